//! The options of an OCI mount: mount(8)'s words as attributes, propagation and file system data.

use rustix::mount::MountAttrFlags;

use crate::sys::MountAttributes;

/// What the options of one mount come to.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// `bind` or `rbind`.
    pub(crate) bind: Option<Bind>,
    /// Attributes of the mount itself.
    pub(crate) own: MountAttributes,
    /// One of them says when access times are written: `noatime`, `relatime` and their kin, not what undoes these.
    pub(crate) names_atime: bool,
    /// Attributes of everything below it too (`rro` and the like).
    pub(crate) recursive: MountAttributes,
    /// (MS_PRIVATE and so on, recursively).
    pub(crate) propagation: Option<(u64, bool)>,
    /// Ids are mapped, for everything below too; and how, where the option itself says that.
    pub(crate) id_map: Option<(bool, Option<String>)>,
    /// What a source that is a symbolic link stands for, if not for what it leads to.
    pub(crate) source_link: Option<SourceLink>,
    /// A link at the destination is covered, not followed.
    pub(crate) over_link: bool,
    /// Copy what the image has at the mount point into a new tmpfs.
    pub(crate) copy_up: bool,
    /// What is mounted there already is changed.
    pub(crate) remount: bool,
    /// Flags of the file system as a whole.
    pub(crate) superblock: Vec<String>,
    /// Flags and `key=value` for the kind of file system.
    pub(crate) data: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bind {
    One,
    Recursive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceLink {
    /// The link itself is mounted.
    Mount,
    /// A link like it is made in the container.
    Copy,
}

const RDONLY: u64 = MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64;
const NOSUID: u64 = MountAttrFlags::MOUNT_ATTR_NOSUID.bits() as u64;
const NODEV: u64 = MountAttrFlags::MOUNT_ATTR_NODEV.bits() as u64;
const NOEXEC: u64 = MountAttrFlags::MOUNT_ATTR_NOEXEC.bits() as u64;
const NODIRATIME: u64 = MountAttrFlags::MOUNT_ATTR_NODIRATIME.bits() as u64;
const NOSYMFOLLOW: u64 = MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW.bits() as u64;
const NOATIME: u64 = MountAttrFlags::MOUNT_ATTR_NOATIME.bits() as u64;
const STRICTATIME: u64 = MountAttrFlags::MOUNT_ATTR_STRICTATIME.bits() as u64;
/// The access time attributes are one field of values: it is cleared whole when one is set.
const ATIME: u64 = MountAttrFlags::MOUNT_ATTR__ATIME.bits() as u64;

/// What else a bind mount clears once it names one of these: mount(2), MS_REMOUNT with MS_BIND.
const LOCKABLE: u64 = RDONLY | NOSUID | NODEV | NOEXEC;

/// Words that choose when access times are written; without one of them a bind mount keeps what its source does.
const ATIME_WORDS: [&str; 4] = ["noatime", "nodiratime", "relatime", "strictatime"];

/// Word, attributes set, attributes cleared. With an `r` in front the word is recursive.
const ATTRIBUTES: [(&str, u64, u64); 18] = [
    ("ro", RDONLY, 0),
    ("rw", 0, RDONLY),
    ("nosuid", NOSUID, 0),
    ("suid", 0, NOSUID),
    ("nodev", NODEV, 0),
    ("dev", 0, NODEV),
    ("noexec", NOEXEC, 0),
    ("exec", 0, NOEXEC),
    ("nodiratime", NODIRATIME, 0),
    ("diratime", 0, NODIRATIME),
    ("nosymfollow", NOSYMFOLLOW, 0),
    ("symfollow", 0, NOSYMFOLLOW),
    ("noatime", NOATIME, ATIME),
    ("atime", 0, ATIME),
    ("relatime", 0, ATIME),
    ("norelatime", 0, ATIME),
    ("strictatime", STRICTATIME, ATIME),
    ("nostrictatime", 0, ATIME),
];

/// Words for a file system as a whole that the kernel knows for each (fs/fs_context.c); a bind mount makes none.
const SUPERBLOCK: [&str; 7] = ["async", "dirsync", "lazytime", "mand", "nolazytime", "nomand", "sync"];

/// Words of mount(8) that say nothing to the kernel: what it does unasked, what it logs, and what is for fstab(5).
const SILENT: [&str; 10] =
    ["_netdev", "auto", "defaults", "iversion", "loud", "noauto", "nofail", "noiversion", "nouser", "silent"];

impl Options {
    /// The attributes of a bind mount. One that names any has those and no others, as if mount(8) remounted it; one that
    /// names none keeps its source's. With `locked`, what protects the source stays unless it is named.
    pub(crate) fn of_bind(&self, locked: bool) -> MountAttributes {
        let MountAttributes { set, clear, .. } = self.own;
        if set | clear == 0 {
            return self.own;
        }
        let atime = if self.names_atime { clear | ATIME | NODIRATIME } else { clear & !(ATIME | NODIRATIME) };
        let others = if locked { NOSYMFOLLOW } else { NOSYMFOLLOW | LOCKABLE };
        // Access times are one field: a value in it is set after all of it has been cleared.
        MountAttributes { set, clear: (atime | others) & !(set & !ATIME), ..self.own }
    }
}

const PROPAGATION: [(&str, u64); 4] = [
    ("private", libc::MS_PRIVATE),
    ("slave", libc::MS_SLAVE),
    ("shared", libc::MS_SHARED),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// Reads the options of a mount.
pub(crate) fn parse(options: &[String]) -> Options {
    let mut parsed = Options::default();
    options.iter().for_each(|option| apply(&mut parsed, option));
    parsed
}

/// MS_* and whether it goes for everything below, for a word such as `rslave`.
pub(crate) fn propagation(word: &str) -> Option<(u64, bool)> {
    let find = |word: &str| PROPAGATION.iter().find(|(name, _)| *name == word).map(|(_, flag)| *flag);
    find(word).map(|flag| (flag, false)).or_else(|| find(word.strip_prefix('r')?).map(|flag| (flag, true)))
}

/// Every word that is known, for `features`.
pub(crate) fn words() -> Vec<String> {
    let attributes = ATTRIBUTES.iter().flat_map(|(name, ..)| [(*name).to_owned(), format!("r{name}")]);
    let propagation = PROPAGATION.iter().flat_map(|(name, _)| [(*name).to_owned(), format!("r{name}")]);
    let others =
        ["bind", "copy-symlink", "dest-nofollow", "idmap", "rbind", "remount", "ridmap", "src-nofollow", "tmpcopyup"];
    let others = others.iter().chain(&SUPERBLOCK).chain(&SILENT).map(|word| (*word).to_owned());
    let mut words: Vec<String> = attributes.chain(propagation).chain(others).collect();
    words.sort();
    words
}

fn apply(parsed: &mut Options, option: &str) {
    let attribute = |word: &str| ATTRIBUTES.iter().find(|(name, ..)| *name == word);
    if let Some((_, set, clear)) = attribute(option) {
        merge(&mut parsed.own, *set, *clear);
        parsed.names_atime |= ATIME_WORDS.contains(&option);
    } else if let Some((_, set, clear)) = option.strip_prefix('r').and_then(attribute) {
        merge(&mut parsed.recursive, *set, *clear);
    } else if let Some(found) = propagation(option) {
        parsed.propagation = Some(found);
    } else {
        match option.split_once('=').map_or((option, None), |(word, how)| (word, Some(how))) {
            // Beside `rbind` it says nothing new.
            ("bind", None) => parsed.bind = parsed.bind.or(Some(Bind::One)),
            ("rbind", None) => parsed.bind = Some(Bind::Recursive),
            ("tmpcopyup", None) => parsed.copy_up = true,
            ("remount", None) => parsed.remount = true,
            (word, None) if SUPERBLOCK.contains(&word) => parsed.superblock.push(word.to_owned()),
            (word, _) if SILENT.contains(&word) || word.starts_with("x-") || word.starts_with("X-") => {}
            ("src-nofollow", None) => parsed.source_link = Some(SourceLink::Mount),
            ("copy-symlink", None) => parsed.source_link = Some(SourceLink::Copy),
            ("dest-nofollow", None) => parsed.over_link = true,
            (word @ ("idmap" | "ridmap"), how) => parsed.id_map = Some((word == "ridmap", how.map(str::to_owned))),
            _ => parsed.data.push(option.to_owned()),
        }
    }
}

/// The later word wins.
fn merge(attributes: &mut MountAttributes, set: u64, clear: u64) {
    attributes.set = (attributes.set & !clear) | set;
    attributes.clear = (attributes.clear & !set) | clear;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_attributes() {
        let words = ["ro", "rbind", "rw", "noatime", "strictatime", "rnosuid", "rslave", "size=64k", "relatime"];
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        let options = parse(&words);
        assert_eq!((options.own.set, options.own.clear), (0, ATIME | RDONLY));
        assert_eq!((options.recursive.set, options.recursive.clear), (NOSUID, 0));
        assert_eq!(options.bind, Some(Bind::Recursive));
        assert_eq!(options.propagation, Some((libc::MS_SLAVE, true)));
        assert_eq!(options.data, ["size=64k"]);
        let bind = |words: &[&str], locked| {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            let attributes = parse(&words).of_bind(locked);
            (attributes.set, attributes.clear)
        };
        let rest = NODEV | NOEXEC | NOSYMFOLLOW;
        assert_eq!(bind(&["rbind", "rprivate", "defaults"], false), (0, 0));
        assert_eq!(bind(&["ro", "nosuid"], false), (RDONLY | NOSUID, rest));
        assert_eq!(bind(&["ro", "nosuid"], true), (RDONLY | NOSUID, NOSYMFOLLOW));
        assert_eq!(bind(&["rw", "atime"], true), (0, NOSYMFOLLOW | RDONLY));
        assert_eq!(bind(&["nodiratime"], false), (NODIRATIME, ATIME | RDONLY | NOSUID | rest));
        assert_eq!(bind(&["noatime"], true), (NOATIME, ATIME | NODIRATIME | NOSYMFOLLOW));
        assert_eq!(options.id_map, None);
        assert_eq!(parse(&["ridmap".to_owned()]).id_map, Some((true, None)));
        assert_eq!(parse(&["idmap=uids=0-1-2".to_owned()]).id_map, Some((false, Some("uids=0-1-2".to_owned()))));
    }

    #[test]
    fn what_is_for_a_file_system_is_told_apart() {
        let options = parse(&["sync", "loud", "nofail", "x-a.b=c", "remount", "uid=7"].map(str::to_owned));
        assert!(options.remount);
        assert_eq!((options.superblock, options.data), (vec!["sync".to_owned()], vec!["uid=7".to_owned()]));
    }

    /// The table of config.md, Linux mount options.
    #[test]
    fn the_words_of_the_specification_are_known() {
        const WANTED: &str = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime \
            nodev nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private \
            ratime rbind rdev rdiratime relatime remount rexec rnoatime rnodiratime rnoexec rnorelatime rnostrictatime \
            rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable \
            rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable idmap ridmap";
        let known = words();
        for word in WANTED.split_whitespace() {
            assert!(known.iter().any(|k| k == word), "{word}");
            assert!(parse(&[word.to_owned()]).data.is_empty(), "{word}");
        }
    }
}
