//! Network namespaces that play hosts, and links between them.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use network::Config;
use rustix::mount::{UnmountFlags, unmount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A network namespace; gone when dropped.
pub(crate) struct Space {
    pub(crate) name: String,
}

impl Space {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("tt-{name}-{}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let space = Self { name };
        space.ip(&["link", "set", "lo", "up"]);
        space
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// `ip` in this namespace.
    pub(crate) fn ip(&self, words: &[&str]) -> String {
        run("ip", &[&["-n", &self.name], words].concat())
    }

    /// A program in this namespace.
    pub(crate) fn run(&self, words: &[&str]) -> String {
        run("ip", &[&["netns", "exec", &self.name], words].concat())
    }

    /// A link to another namespace: its name, `at` here, `there` in the other.
    pub(crate) fn link(&self, name: &str, at: &str, other: &Space, there: &str) {
        self.ip(&["link", "add", name, "type", "veth", "peer", "name", name, "netns", &other.name]);
        for (space, address) in [(self, at), (other, there)] {
            space.ip(&["addr", "add", address, "dev", name]);
            space.ip(&["link", "set", name, "up"]);
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        run("ip", &["netns", "del", &self.name]);
    }
}

/// A namespace that plays a node. What a failed test has mounted goes with it.
pub(crate) struct Host {
    pub(crate) space: Space,
    /// All its threads live in the namespace.
    runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new(test: &str) -> Self {
        let space = Space::new(test);
        let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { runtime: within(&space.path(), runtime), space, dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.space.path()
    }

    pub(crate) fn config(&self, instance: &str) -> Config {
        Config {
            instance: instance.into(),
            run_dir: self.dir.path().join(format!("netns-{instance}")),
            data_dir: self.dir.path().join(format!("data-{instance}")),
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
            cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
            node_ips: vec!["10.244.1.1".parse().unwrap()],
            mtu: 1500,
        }
    }

    /// Runs async code in the namespace.
    pub(crate) fn block_on<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.block_on(self.runtime.spawn(work)).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
        let mut ours: Vec<&Path> = points.filter(|point| point.starts_with(self.dir.path())).collect();
        ours.reverse();
        for point in ours {
            let _ = unmount(point, UnmountFlags::DETACH);
        }
    }
}

pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs work on a thread of its own in a namespace.
pub(crate) fn within<T: Send + 'static>(namespace: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    let file = File::open(namespace).unwrap();
    thread::spawn(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    })
    .join()
    .unwrap()
}
