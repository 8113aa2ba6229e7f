//! Scenarios of Endpoints.

use expect_test::{Expect, expect};

use crate::endpoints::EndpointsOfServices;
use crate::model::script::run;

fn check(script: &str, expect: Expect) {
    expect.assert_eq(&run(vec![Box::new(EndpointsOfServices)], script));
}

const SERVICE: &str = "apply Service ns/web {metadata: {labels: {l: v}}, spec: {clusterIP: 10.0.0.1, ipFamilies: [IPv4], selector: {app: web}, ports: [{name: a, port: 80}, {name: b, port: 81, targetPort: http}]}}\n";

fn pod(name: &str, ports: &str, ip: &str) -> String {
    let conditions = "conditions: [{type: Ready, status: 'True'}]";
    format!(
        "apply Pod ns/{name} {{metadata: {{labels: {{app: web}}}}, spec: {{nodeName: n1, containers: [{{name: c, image: x, ports: [{ports}]}}]}}}}
         status pods ns/{name} {{podIP: {ip}, podIPs: [{{ip: {ip}}}, {{ip: 'fd00::1'}}], phase: Running, {conditions}}}\n"
    )
}

#[test]
fn each_port_has_the_pods_that_offer_it_and_terminating_pods_are_left_out() {
    let (one, two) = (pod("one", "{name: http, containerPort: 8080}", "10.1.0.1"), pod("two", "", "10.1.0.2"));
    check(
        &format!("{SERVICE}{one}{two}get Endpoints\nagain\ndelete Pod ns/one\nget Endpoints\nagain"),
        expect![[r#"
            web  [{"addresses":[{"ip":"10.1.0.1","nodeName":"n1","targetRef":{"kind":"Pod","name":"one","namespace":"ns","uid":"uid-3"}},{"ip":"10.1.0.2","nodeName":"n1","targetRef":{"kind":"Pod","name":"two","namespace":"ns","uid":"uid-4"}}],"ports":[{"name":"a","port":80,"protocol":"TCP"}]},{"addresses":[{"ip":"10.1.0.1","nodeName":"n1","targetRef":{"kind":"Pod","name":"one","namespace":"ns","uid":"uid-3"}}],"ports":[{"name":"b","port":8080,"protocol":"TCP"}]}]
            --
            web  [{"addresses":[{"ip":"10.1.0.2","nodeName":"n1","targetRef":{"kind":"Pod","name":"two","namespace":"ns","uid":"uid-4"}}],"ports":[{"name":"a","port":80,"protocol":"TCP"}]}]
            --
        "#]],
    );
}

#[test]
fn endpoints_without_a_service_stay_and_those_of_a_service_go_with_it() {
    check(
        "apply Endpoints ns/alone {subsets: [{addresses: [{ip: 1.2.3.4}]}]}
         apply Service ns/custom {spec: {clusterIP: 10.0.0.2, ports: [{port: 80}]}}
         apply Endpoints ns/custom {subsets: [{addresses: [{ip: 1.2.3.4}], ports: [{port: 80}]}]}
         trace
         again
         delete Service ns/custom
         trace
         get Endpoints",
        expect![[r#"
            --
            endpoints-controller: delete endpoints ns/custom Background
            --
            alone  [{"addresses":[{"ip":"1.2.3.4"}]}]
            --
        "#]],
    );
}

#[test]
fn a_headless_service_without_ports_has_addresses_and_publishes_what_is_not_ready() {
    let service = "apply Service ns/web {spec: {clusterIP: None, publishNotReadyAddresses: true, ipFamilies: [IPv6], selector: {app: web}}}\n";
    let pod = pod("one", "", "10.1.0.1").replace("'True'", "'False'");
    check(
        &format!("{service}{pod}get Endpoints\ntrace\ndelete Pod ns/one\nget Endpoints\nagain"),
        expect![[r#"
            web  [{"addresses":[{"ip":"fd00::1","nodeName":"n1","targetRef":{"kind":"Pod","name":"one","namespace":"ns","uid":"uid-3"}}]}]
            --
            endpoints-controller: create endpoints ns/web
            endpoints-controller: patch endpoints ns/web {"metadata":{},"subsets":[{"addresses":[{"ip":"fd00::1","nodeName":"n1","targetRef":{"kind":"Pod","name":"one","namespace":"ns","uid":"uid-3"}}]}]}
            --
            web  [{"addresses":[{"ip":"fd00::1","nodeName":"n1","targetRef":{"kind":"Pod","name":"one","namespace":"ns","uid":"uid-3"}}]}]
            --
        "#]],
    );
}
