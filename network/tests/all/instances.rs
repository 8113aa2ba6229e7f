//! Several instances on one machine, and one after the other.

use network::{Config, Network};

use crate::conversation::{endpoint, frontend};
use crate::place::{Host, Space, run};

#[test]
fn a_restart_adopts_and_purge_leaves_nothing_but_the_other_instance() {
    let host = Host::new("own");
    let (first, second) =
        (host.config("one"), Config { pod_cidrs: vec!["10.244.2.0/24".parse().unwrap()], ..host.config("two") });
    let run_dir = first.run_dir.clone();
    let (again, run_two) = (first.clone(), second.run_dir.clone());
    let owned = Space::new("owned");
    let given = owned.path();
    let kept = host.block_on(async move {
        let network = Network::open(first).await.unwrap();
        let a = network.attach("a", None).await.unwrap();
        network.attach("b", None).await.unwrap();
        network.detach("b").await.unwrap();
        network.detach("b").await.unwrap();
        network.set_frontends(vec![frontend("10.96.0.1:443", &[endpoint(&a, 1)])]).await.unwrap();
        drop(network);
        let network = Network::open(again).await.unwrap();
        assert_eq!(network.attachments(), vec![a.clone()]);
        assert_eq!(network.attach("a", None).await.unwrap(), a);
        let other = Network::open(second).await.unwrap();
        let given = || std::fs::File::open(&given).unwrap().into();
        let kept = other.attach("kept", Some(given())).await.unwrap();
        let ino = |fd: std::os::fd::OwnedFd| rustix::fs::fstat(&fd).unwrap().st_ino;
        assert_eq!(ino(std::fs::File::open(&kept.namespace).unwrap().into()), ino(given()), "the given one");
        assert_eq!(other.attach("kept", Some(given())).await.unwrap(), kept, "attach is idempotent");
        other.set_frontends(Vec::new()).await.unwrap();
        Network::purge("one", &run_dir).await.unwrap();
        Network::purge("one", &run_dir).await.unwrap();
        assert!(!run_dir.exists());
        kept
    });
    let links = run("ip", &["-n", &host.space.name, "-o", "link"]);
    assert!(!links.contains("ttone") && links.contains("tttwo-br"), "{links}");
    let tables = run("ip", &["netns", "exec", &host.space.name, "nft", "list", "tables"]);
    assert!(!tables.contains("trimtab-one") && tables.contains("trimtab-two"), "{tables}");
    assert!(kept.namespace.exists());
    host.block_on(async move { Network::purge("two", &run_two).await.unwrap() });
}
