//! /etc/hosts and /etc/resolv.conf.

use expect_test::expect;
use node_plan::etc::{ClusterDns, hostname, hosts, resolv_conf};
use serde_json::json;

use crate::pod;

#[test]
fn hosts_of_a_pod_with_a_subdomain() {
    let pod = pod(
        json!({"hostname": "db-0", "subdomain": "db", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}], "containers": [{"name": "c"}]}),
    );
    expect![[r#"
        # Kubernetes-managed hosts file.
        127.0.0.1	localhost
        ::1	localhost ip6-localhost ip6-loopback
        fe00::0	ip6-localnet
        fe00::0	ip6-mcastprefix
        fe00::1	ip6-allnodes
        fe00::2	ip6-allrouters
        10.1.0.2	db-0.db.default.svc.cluster.local	db-0

        # Entries added by HostAliases.
        1.2.3.4	a	b
    "#]]
    .assert_eq(&hosts(&pod, &["10.1.0.2".parse().unwrap()], "cluster.local", None));
}

#[test]
fn resolvers_by_policy() {
    let cluster = ClusterDns { servers: vec!["10.96.0.10".parse().unwrap()], domain: "cluster.local".into() };
    let host = "nameserver 9.9.9.9\nsearch example.org\n";
    let config = json!({"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}, {"name": "debug"}]});
    let text = |policy: &str, config| {
        resolv_conf(
            &pod(json!({"dnsPolicy": policy, "dnsConfig": config, "containers": [{"name": "c"}]})),
            &cluster,
            host,
        )
    };
    let all =
        format!("{}--\n{}--\n{}", text("ClusterFirst", json!({})), text("Default", json!({})), text("None", config));
    expect![[r#"
        search default.svc.cluster.local svc.cluster.local cluster.local example.org
        nameserver 10.96.0.10
        options ndots:5
        --
        search example.org
        nameserver 9.9.9.9
        --
        nameserver 1.1.1.1
        options ndots:2 debug
    "#]]
    .assert_eq(&all);
}

#[test]
fn a_long_name_is_cut_where_it_may_be() {
    let mut pod = pod(json!({"containers": [{"name": "c"}]}));
    pod.metadata.name = Some(format!("{}-x", "a".repeat(62)));
    assert_eq!(hostname(&pod), "a".repeat(62));
}
