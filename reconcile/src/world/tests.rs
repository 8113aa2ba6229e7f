//! Late, doubled and lost events against our own writes.

use std::sync::Arc;

use api::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;

use crate::{Answer, Key, Live, Object, ObjectName, Resource, World};

fn map(name: &str, uid: &str, revision: u64) -> Arc<dyn Object> {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.into());
    map.metadata.namespace = Some("ns".into());
    map.metadata.uid = Some(uid.into());
    map.metadata.resource_version = Some(revision.to_string());
    Arc::new(map)
}

/// Runs a script of events and says what the world shows after each.
fn check(script: &str, expect: &str) {
    let resource = Resource::of::<ConfigMap>();
    let mut world = World::default();
    world.keep(&resource, &[]);
    let now = Timestamp::UNIX_EPOCH;
    let mut shown = String::new();
    for line in script.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let words: Vec<&str> = line.split(' ').collect();
        let object = |s: &str| {
            let (uid, revision) = s.split_once('@').unwrap();
            map(uid.split('/').next().unwrap(), uid, revision.parse().unwrap())
        };
        let changed = match words.as_slice() {
            ["list", revision, rest @ ..] => {
                let objects = rest.iter().map(|s| object(s)).collect();
                !world.listed(&resource, objects, revision.parse().unwrap(), now).is_empty()
            }
            ["watch", s] => !world.said(&resource, object(s), now).is_empty(),
            ["watch-gone", s] => world.said_gone(&resource, object(s).as_ref()).is_some(),
            ["wrote", s] => !world.wrote(&resource, object(s), now).is_empty(),
            ["wrote-gone", uid] => world.wrote_gone(&resource, uid).is_some(),
            other => panic!("unknown step {other:?}"),
        };
        let objects: Vec<String> = world
            .objects(&resource)
            .map(|o| {
                let m = o.metadata();
                format!("{}@{}", m.uid.as_deref().unwrap(), m.resource_version.as_deref().unwrap())
            })
            .collect();
        let objects = if objects.is_empty() { "-".into() } else { objects.join(" ") };
        shown += &format!("{objects}{}\n", if changed { " *" } else { "" });
    }
    let expect: String = expect.lines().map(str::trim).filter(|l| !l.is_empty()).map(|l| format!("{l}\n")).collect();
    assert_eq!(shown, expect, "after\n{script}");
}

#[test]
fn a_write_is_shown_until_the_watch_catches_up_and_changes_once() {
    check(
        "list 5 a/1@3
         wrote a/1@7
         watch a/1@6
         watch a/1@7
         watch a/1@8",
        "a/1@3 *
         a/1@7 *
         a/1@7
         a/1@7
         a/1@8 *",
    );
}

#[test]
fn a_relist_from_before_a_creation_keeps_it_and_one_from_after_decides() {
    check("list 5\nwrote a/1@7\nlist 6\nlist 8", "-\na/1@7 *\na/1@7\n- *");
}

#[test]
fn an_answer_that_comes_after_the_deletion_was_seen_does_not_raise_the_dead() {
    check("list 5\nwatch a/1@6\nwatch-gone a/1@8\nwrote a/1@6", "-\na/1@6 *\n- *\n-");
}

#[test]
fn a_deleted_object_stays_gone_though_older_events_arrive_and_its_name_is_free() {
    check(
        "list 5 a/1@3\nwrote-gone a/1\nwatch a/1@6\nwatch a/2@9\nwatch-gone a/1@8",
        "a/1@3 *\n- *\n-\na/2@9 *\na/2@9",
    );
}

#[test]
fn what_was_said_before_is_no_news_and_does_not_raise_the_dead() {
    check(
        "list 5 a/1@3\nwatch a/1@6\nwatch a/1@6\nwatch-gone a/1@8\nwatch a/1@6\nwatch-gone a/1@8\nwatch a/2@9\nwatch-gone a/1@8",
        "a/1@3 *\na/1@6 *\na/1@6\n- *\n-\n-\na/2@9 *\na/2@9",
    );
}

#[test]
fn an_answer_is_for_the_one_who_asked_and_until_it_has_decided() {
    let name = ObjectName { namespace: "ns".into(), name: "a".into() };
    let (key, other) = (Key::of::<ConfigMap>(name.clone()), Key::of::<ConfigMap>(ObjectName::default()));
    let question = Live::Object(Resource::of::<ConfigMap>(), name);
    let mut world = World::default();
    world.answer("one", &key, question.clone(), Answer::Object(None));
    assert!(world.live("one", &key, &question).is_some());
    assert!(world.live("two", &key, &question).is_none() && world.live("one", &other, &question).is_none());
    world.unanswer("one", &key);
    assert!(world.live("one", &key, &question).is_none());
}

#[test]
fn another_of_the_same_name_comes_after_the_end_of_the_one_before() {
    let resource = Resource::of::<ConfigMap>();
    let now = Timestamp::UNIX_EPOCH;
    let uid = |o: &Option<Arc<dyn Object>>| o.as_ref().and_then(|o| o.metadata().uid.clone()).unwrap_or("-".into());
    let listed = |world: &mut World| world.listed(&resource, vec![map("a", "a/2", 9)], 9, now);
    let said = |world: &mut World| world.said(&resource, map("a", "a/2", 9), now);
    let wrote = |world: &mut World| world.wrote(&resource, map("a", "a/2", 9), now);
    type Way<'a> = &'a dyn Fn(&mut World) -> Vec<crate::Change>;
    let ways: [Way<'_>; 3] = [&listed, &said, &wrote];
    for way in ways {
        let mut world = World::default();
        world.keep(&resource, &[]);
        world.listed(&resource, vec![map("a", "a/1", 3)], 5, now);
        let changes: Vec<String> =
            way(&mut world).iter().map(|c| format!("{} -> {}", uid(&c.before), uid(&c.after))).collect();
        assert_eq!(changes, ["a/1 -> -", "- -> a/2"]);
        assert!(world.by_uid(&resource, "a/1").is_none() && world.by_uid(&resource, "a/2").is_some());
    }
}
