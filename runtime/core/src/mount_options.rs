//! The options of an OCI mount: mount(8)'s words as attributes, propagation and file system data.

use std::path::Path;

use rustix::mount::MountAttrFlags;

use crate::sys::MountAttributes;
use crate::{Error, Result};

/// What the options of one mount come to.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// `bind` or `rbind`.
    pub(crate) bind: Option<Bind>,
    /// Attributes of the mount itself.
    pub(crate) own: MountAttributes,
    /// Attributes of everything below it too (`rro` and the like).
    pub(crate) recursive: MountAttributes,
    /// (MS_PRIVATE and so on, recursively).
    pub(crate) propagation: Option<(u64, bool)>,
    /// Copy what the image has at the mount point into a new tmpfs.
    pub(crate) copy_up: bool,
    /// Flags and `key=value` for the file system.
    pub(crate) data: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bind {
    One,
    Recursive,
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

/// Word, attributes set, attributes cleared. With an `r` in front the word is recursive.
const ATTRIBUTES: [(&str, u64, u64); 20] = [
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
    ("norelatime", STRICTATIME, ATIME),
    ("strictatime", STRICTATIME, ATIME),
    ("nostrictatime", 0, ATIME),
    ("defaults", 0, 0),
    ("nofail", 0, 0),
];

const PROPAGATION: [(&str, u64); 4] = [
    ("private", libc::MS_PRIVATE),
    ("slave", libc::MS_SLAVE),
    ("shared", libc::MS_SHARED),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// Reads the options of the mount at `destination`.
pub(crate) fn parse(options: &[String], destination: &Path) -> Result<Options> {
    let mut parsed = Options::default();
    for option in options {
        apply(&mut parsed, option, destination)?;
    }
    Ok(parsed)
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
    let others = ["bind", "rbind", "tmpcopyup"].map(str::to_owned);
    let mut words: Vec<String> = attributes.chain(propagation).chain(others).collect();
    words.sort();
    words
}

fn apply(parsed: &mut Options, option: &str, destination: &Path) -> Result<()> {
    let attribute = |word: &str| ATTRIBUTES.iter().find(|(name, ..)| *name == word);
    if let Some((_, set, clear)) = attribute(option) {
        merge(&mut parsed.own, *set, *clear);
    } else if let Some((_, set, clear)) = option.strip_prefix('r').and_then(attribute) {
        merge(&mut parsed.recursive, *set, *clear);
    } else if let Some(found) = propagation(option) {
        parsed.propagation = Some(found);
    } else {
        match option {
            "bind" => parsed.bind = Some(Bind::One),
            "rbind" => parsed.bind = Some(Bind::Recursive),
            "tmpcopyup" => parsed.copy_up = true,
            "idmap" | "ridmap" => {
                let place = destination.display();
                return Err(Error::Invalid(format!("mounts: {place}: option {option} is not supported")));
            }
            data => parsed.data.push(data.to_owned()),
        }
    }
    Ok(())
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
        let Ok(options) = parse(&words, Path::new("/x")) else { panic!("refused") };
        assert_eq!((options.own.set, options.own.clear), (0, ATIME | RDONLY));
        assert_eq!((options.recursive.set, options.recursive.clear), (NOSUID, 0));
        assert_eq!(options.bind, Some(Bind::Recursive));
        assert_eq!(options.propagation, Some((libc::MS_SLAVE, true)));
        assert_eq!(options.data, ["size=64k"]);
        assert!(parse(&["idmap".to_owned()], Path::new("/x")).is_err());
    }
}
