//! Stories on clusters of real processes. Needs root, kubectl and helm.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Mutex;

use e2e::cluster::{Cluster, stories};
use e2e::{leak, story};

/// One cluster at a time: they share the machine's cores, and what they leave is counted.
static TURN: Mutex<()> = Mutex::new(());

fn told(cluster: &Cluster, names: &[&str]) {
    for name in names {
        if let Err(error) = story::tell(cluster, &stories().join(format!("{name}.story"))) {
            panic!("{error:#}\n{}", cluster.logs());
        }
    }
}

#[test]
fn stories_on_the_embedded_store() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = leak::traces();
    let mut cluster = Cluster::start("emb", 1, 3, &[]).unwrap();
    told(&cluster, &["basics"]);
    cluster.down().unwrap();
    drop(cluster);
    assert_eq!(leak::traces(), before, "something is left");
}
