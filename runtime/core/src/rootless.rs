//! An ordinary user's process as root of a user namespace of its own, where it may have files of other ids.

use std::fmt::Write;
use std::os::fd::AsFd;

use rustix::process::{getegid, geteuid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::id_maps::{self, IdMaps};
use crate::{Result, failed};

/// Makes an ordinary user's process root of a new user namespace, with the ids behind it that /etc/subuid and
/// /etc/subgid give to the user (subuid(5)), as many as newuidmap(1) and newgidmap(1) map. Who is root already stays what
/// he is. Must be called before any other thread is started.
///
/// Returns why there are no other ids, where there are none; an error where there is not even the namespace.
pub fn become_root() -> Result<Option<String>> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    if uid == 0 {
        return Ok(None);
    }
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let name = name_of(&read("/etc/passwd"), uid).unwrap_or_else(|| uid.to_string());
    let map = |file: &str, own: u32| map_of(own, &ranges(&read(file), &name, uid));
    let alone = IdMaps { uid: map_of(uid, &[]), gid: map_of(gid, &[]) };
    let maps = IdMaps { uid: map("/etc/subuid", uid), gid: map("/etc/subgid", gid) };
    let (namespace, why) = if maps.uid == alone.uid || maps.gid == alone.gid {
        (id_maps::user_namespace(&alone)?, Some(format!("/etc/subuid and /etc/subgid have no ids for {name}")))
    } else {
        match id_maps::user_namespace(&maps) {
            Ok(namespace) => (namespace, None),
            Err(e) => (id_maps::user_namespace(&alone)?, Some(e.to_string())),
        }
    };
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::User))
        .map_err(failed(|| "enter the user namespace".to_owned()))?;
    Ok(why)
}

/// The name of a user in the text of passwd(5).
pub(crate) fn name_of(passwd: &str, uid: u32) -> Option<String> {
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let mut lines = passwd.lines().map(fields);
    lines.find(|fields| fields.get(2).is_some_and(|id| id.parse() == Ok(uid)))?.into_iter().next()
}

/// What subuid(5) has for a user, by name or by number: (first, how many).
fn ranges(text: &str, name: &str, uid: u32) -> Vec<(u32, u32)> {
    let range = |line: &str| {
        let (owner, range) = line.split_once(':')?;
        let (first, count) = range.split_once(':')?;
        let ours = owner == name || owner.parse() == Ok(uid);
        Some((first.parse().ok()?, count.trim().parse().ok()?)).filter(|_| ours)
    };
    text.lines().filter_map(range).collect()
}

/// The user as root, and the ranges one behind the other.
fn map_of(own: u32, ranges: &[(u32, u32)]) -> String {
    let (mut text, mut next) = (format!("0 {own} 1\n"), 1u32);
    for (first, count) in ranges {
        let Some(end) = next.checked_add(*count).filter(|_| *count > 0) else { continue };
        let _ = writeln!(text, "{next} {first} {count}");
        next = end;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_user_follow_each_other() {
        let text = "me:100000:65536\nyou:165536:65536\n1000:300000:10\nme:x:1\nme:5\n\n";
        let ranges = ranges(text, "me", 1000);
        assert_eq!(ranges, [(100_000, 65_536), (300_000, 10)]);
        assert_eq!(map_of(1000, &ranges), "0 1000 1\n1 100000 65536\n65537 300000 10\n");
        assert_eq!(map_of(7, &[(1, u32::MAX), (5, 0)]), "0 7 1\n");
        let passwd = "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/:/bin/sh\n";
        assert_eq!(name_of(passwd, 1000).as_deref(), Some("me"));
        assert_eq!(name_of(passwd, 5), None);
    }
}
