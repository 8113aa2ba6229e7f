#![allow(unsafe_code)]
//! Network namespaces as bind-mounted files, each made by a thread of its own that ends with it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Runs `inside` in a network namespace, the given or a new one, that is then kept at `path`: what stands there is whole,
/// whenever this process is killed. `outside` runs first on the same thread, still in the caller's namespace, and hands
/// its result over: sockets belong to the namespace they are made in.
pub(crate) fn create<A, T: Send + 'static>(
    path: PathBuf,
    given: Option<OwnedFd>,
    outside: impl FnOnce() -> io::Result<A> + Send + 'static,
    inside: impl FnOnce(A) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let work = move || {
        let prepared = outside()?;
        match given {
            Some(given) => move_into_link_name_space(given.as_fd(), Some(LinkNameSpaceType::Network))?,
            // SAFETY: the flag is NEWNET alone: memory, descriptors and the file system stay shared with the process.
            None => unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?,
        }
        let done = inside(prepared)?;
        pin(&path).inspect_err(|_| {
            let _ = delete(&path);
        })?;
        Ok(done)
    };
    thread::spawn(work).join().map_err(|_| io::Error::other("the namespace's thread panicked"))?
}

/// Keeps the calling thread's network namespace alive as a file.
fn pin(path: &Path) -> io::Result<()> {
    File::create(path)?;
    mount_bind("/proc/thread-self/ns/net", path)?;
    Ok(())
}

/// Lets go of a namespace. Idempotent.
pub(crate) fn delete(path: &Path) -> io::Result<()> {
    match unmount(path, UnmountFlags::DETACH) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A directory whose mounts reach the mount namespaces of shims that are started later, and no peer group beyond.
pub(crate) fn shared_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    if mount_change(path, MountPropagationFlags::SHARED).is_ok() {
        return Ok(());
    }
    mount_bind(path, path)?;
    mount_change(path, MountPropagationFlags::SHARED)?;
    Ok(())
}

/// Takes away what [`shared_directory`] made.
pub(crate) fn remove_shared_directory(path: &Path) -> io::Result<()> {
    match unmount(path, UnmountFlags::DETACH) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs root.
    #[test]
    fn what_is_not_whole_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n");
        let of = path.clone();
        let inode = |path: &Path| rustix::fs::stat(path).map(|stat| stat.st_ino);
        let made = create(
            path.clone(),
            None,
            || Ok(()),
            move |()| {
                assert!(!of.exists(), "a process that is killed now leaves nothing that looks like a namespace");
                Ok(inode(Path::new("/proc/thread-self/ns/net"))?)
            },
        );
        assert_eq!(inode(&path).unwrap(), made.unwrap());
        delete(&path).unwrap();
        let failed = create(path.clone(), None, || Ok(()), |()| Err::<(), _>(io::Error::other("no")));
        assert!(failed.is_err() && !path.exists());
    }
}
