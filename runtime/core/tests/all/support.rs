//! A pod in a temporary directory that leaves nothing behind.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use oci_spec::runtime::{LinuxResources, Spec};
use runtime_core::pod::{ContainerConfig, ContainerState, PodConfig, Rootfs, Shim};
use serde_json::{Value, json};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// `None`, with a line that says so, where this machine has no busybox.
pub(crate) fn busybox() -> Option<&'static Path> {
    let path = Path::new("/bin/busybox");
    if path.exists() {
        return Some(path);
    }
    println!("skipped: /bin/busybox (package busybox-static) is not there");
    None
}

/// Whether the kernel is at least this one; a line that says so where it is not.
pub(crate) fn linux(major: u32, minor: u32, what: &str) -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_str().unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let new = (numbers.next(), numbers.next()) >= (Some(major), Some(minor));
    if !new {
        println!("skipped: {what} from Linux {major}.{minor} on, this is {release}");
    }
    new
}

/// The example, or what whoever runs the tests names.
pub(crate) fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("TRIMTAB_PROGRAM") {
        return program.into();
    }
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("examples/runtime")
}

/// A layer with busybox and its usual names.
pub(crate) fn layer(dir: &Path) -> PathBuf {
    let layer = dir.join("layer");
    for sub in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(layer.join(sub)).unwrap();
    }
    fs::copy(busybox().unwrap(), layer.join("bin/busybox")).unwrap();
    for name in [
        "sh", "sleep", "cat", "true", "false", "id", "ls", "echo", "mount", "stat", "dd", "kill", "readlink", "ps",
        "tty", "stty", "head", "yes", "grep", "hostname", "test", "rm", "ln", "mkdir", "awk", "seq",
    ] {
        std::os::unix::fs::symlink("busybox", layer.join("bin").join(name)).unwrap();
    }
    fs::write(layer.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n").unwrap();
    layer
}

pub(crate) struct Pod {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: PodConfig,
    pub(crate) layer: PathBuf,
    pub(crate) shim: Shim,
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = Shim::destroy(&self.config.run_dir);
    }
}

impl Pod {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub(crate) fn start_with(change: impl FnOnce(&mut PodConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layer = layer(dir.path());
        let id = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut config = PodConfig {
            run_dir: dir.path().join("run"),
            hostname: "pod".to_owned(),
            network: None,
            host_ipc: false,
            host_pid: false,
            shared_pid: false,
            user_map: None,
            sysctls: Vec::new(),
            cgroup: PathBuf::from(format!("trimtab-test/{id}")),
            id,
            resources: LinuxResources::default(),
        };
        change(&mut config);
        let shim = Shim::start(&program(), &config).unwrap();
        Self { dir, config, layer, shim }
    }

    pub(crate) fn log_path(&self, id: &str) -> PathBuf {
        self.dir.path().join(format!("{id}.log"))
    }

    /// A container that runs a shell script.
    pub(crate) fn container(&self, id: &str, script: &str) -> ContainerConfig {
        self.container_with(id, script, |_| {})
    }

    pub(crate) fn container_with(&self, id: &str, script: &str, change: impl FnOnce(&mut Value)) -> ContainerConfig {
        let mut spec = spec(script);
        spec["linux"]["cgroupsPath"] = json!(self.config.cgroup.join(id));
        change(&mut spec);
        ContainerConfig {
            id: id.to_owned(),
            spec: serde_json::from_value::<Spec>(spec).unwrap(),
            rootfs: Rootfs { lower: vec![self.layer.clone()], scratch: self.dir.path().join(format!("scratch-{id}")) },
            log_path: self.log_path(id),
            log_max_bytes: 10 << 20,
            log_files: 5,
            stdin: false,
            stdin_once: false,
        }
    }

    /// Runs a script to its end: state and log.
    pub(crate) fn run(&self, id: &str, script: &str) -> (ContainerState, String) {
        self.shim.start_container(&self.container(id, script)).unwrap();
        (self.wait(id), self.log(id))
    }

    pub(crate) fn run_config(&self, config: &ContainerConfig) -> (ContainerState, String) {
        self.shim.start_container(config).unwrap();
        (self.wait(&config.id), self.log(&config.id))
    }

    pub(crate) fn wait(&self, id: &str) -> ContainerState {
        let changes = self.shim.changes().unwrap();
        for _ in 0..100 {
            let state = self.shim.containers().unwrap().into_iter().find(|c| c.id == id).unwrap();
            if state.exit.is_some() {
                return state;
            }
            readable(&changes, Duration::from_secs(20));
            let mut drain = [0; 64];
            while rustix::io::read(&changes, &mut drain).is_ok_and(|n| n > 0) {}
        }
        panic!("{id} does not end");
    }

    /// The texts of a log's records.
    pub(crate) fn log(&self, id: &str) -> String {
        let text = fs::read_to_string(self.log_path(id)).unwrap_or_default();
        text.lines().map(|l| l.splitn(4, ' ').nth(3).unwrap().to_owned() + "\n").collect()
    }
}

/// The smallest useful spec.
pub(crate) fn spec(script: &str) -> Value {
    let caps = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP"];
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps, "inheritable": caps},
            "noNewPrivileges": true
        },
        "root": {"path": "ignored"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/kcore", "/proc/acpi", "/proc/keys", "/sys/firmware", "/nowhere"],
            "readonlyPaths": ["/proc/sys", "/proc/bus"],
            "resources": {}
        }
    })
}

/// Waits until a descriptor is readable.
pub(crate) fn readable(fd: &OwnedFd, timeout: Duration) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec { tv_sec: timeout.as_secs().try_into().unwrap(), tv_nsec: timeout.subsec_nanos().into() };
    poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout)).unwrap();
}

/// The descriptor that comes with a message.
pub(crate) fn receive_fd(socket: impl std::os::fd::AsFd) -> OwnedFd {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut text = [0; 64];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [std::io::IoSliceMut::new(&mut text)], &mut control, RecvFlags::empty()).unwrap();
    let mut fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    fds.next().unwrap().next().unwrap()
}

/// What a command that had to succeed has printed.
pub(crate) fn succeeded(args: &[&str], output: Output) -> String {
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a command that had to fail has said.
pub(crate) fn failed(args: &[&str], output: Output) -> String {
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

pub(crate) fn read_all(fd: OwnedFd) -> String {
    let mut text = Vec::new();
    // A terminal ends with EIO.
    let _ = fs::File::from(fd).read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

pub(crate) fn exit_code(fd: OwnedFd) -> i32 {
    let mut bytes = [0; 4];
    fs::File::from(fd).read_exact(&mut bytes).unwrap();
    i32::from_le_bytes(bytes)
}

/// Polls something that has no event to wait for.
pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::yield_now();
    }
}

/// Sends a packet to a shim and forgets about it.
pub(crate) fn send_raw(run_dir: &Path, bytes: &[u8]) {
    use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketType, connect, send, socket};
    let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    connect(&socket, &SocketAddrUnix::new(run_dir.join("shim.sock")).unwrap()).unwrap();
    send(&socket, bytes, SendFlags::NOSIGNAL).unwrap();
}
