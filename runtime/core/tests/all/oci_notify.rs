//! sd_notify(3) out of a container.

use std::fs::{self, File};
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::oci::Bundle;
use crate::support::busybox;

/// Says that it is ready, when somebody lets it, and more that is not for the host.
const PROGRAM: &str = r#"
import os, socket, sys, time
while not os.path.exists("/go"): time.sleep(0.01)
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for text in [b"STATUS=x", b"READY=0", b"MAINPID=1\nREADY=1\nERRNO=7"]: s.sendto(text, os.environ["NOTIFY_SOCKET"])
time.sleep(1000)
"#;

/// The host's manager.
struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    fn new(name: &str) -> Self {
        let name = format!("trimtab-{name}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { socket, name }
    }

    fn start(&self, bundle: &Bundle, words: &[&str]) -> Child {
        let mut command = bundle.command(words);
        command.stdout(Stdio::null()).stderr(File::create(bundle.dir.path().join("said")).unwrap());
        command.env("NOTIFY_SOCKET", format!("@{}", self.name)).spawn().unwrap()
    }

    /// What it is told next, with a descriptor.
    fn hears(&self) -> (String, Option<OwnedFd>) {
        let (mut text, mut space) = ([0; 100], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
        let mut control = RecvAncillaryBuffer::new(&mut space);
        // The end of a child may interrupt it.
        let message = rustix::io::retry_on_intr(|| {
            recvmsg(&self.socket, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)
        });
        let bytes = message.unwrap().bytes;
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        (String::from_utf8_lossy(&text[..bytes]).into_owned(), fd)
    }
}

/// A container that has the host's Python, or none where there is none.
fn bundle(name: &str) -> Option<Bundle> {
    busybox()?;
    let python = Command::new("python3").args(["-c", "import sys; print(sys.base_prefix)"]).output();
    let Some(prefix) = python.ok().filter(|o| o.status.success()).map(|o| String::from_utf8(o.stdout).unwrap()) else {
        println!("skipped: no python3");
        return None;
    };
    Some(Bundle::new(name, "", |s| {
        let places = [prefix.trim(), "/lib", "/lib64", "/usr/lib"].map(std::path::Path::new);
        for place in places.iter().filter(|place| place.exists()) {
            let mount = serde_json::json!({"destination": place, "source": place, "options": ["rbind", "ro"]});
            s["mounts"].as_array_mut().unwrap().push(mount);
        }
        s["process"]["args"] = serde_json::json!([format!("{}/bin/python3", prefix.trim()), "-c", PROGRAM]);
    }))
}

#[test]
fn start_waits_until_the_container_is_ready() {
    let Some(bundle) = bundle("notify") else { return };
    let manager = Manager::new("notify");
    let (id, pid_file) = (bundle.id.as_str(), bundle.dir.path().join("pid"));
    let words = ["create", "-b", bundle.bundle(), "--pid-file", pid_file.to_str().unwrap(), id];
    assert!(manager.start(&bundle, &words).wait().unwrap().success());
    let mut start = manager.start(&bundle, &["start", id]);
    // It waits.
    crate::support::eventually("it runs", || bundle.status() == "running");
    assert!(start.try_wait().unwrap().is_none());
    fs::write(bundle.dir.path().join("rootfs/go"), "").unwrap();
    assert_eq!(manager.hears().0, "READY=1\n");
    assert_eq!(manager.hears().0, format!("MAINPID={}\n", fs::read_to_string(pid_file).unwrap()));
    let (text, barrier) = manager.hears();
    assert_eq!(text, "BARRIER=1");
    assert!(start.try_wait().unwrap().is_none());
    drop(barrier);
    assert!(start.wait().unwrap().success());
    assert_eq!(bundle.status(), "running");
}

#[test]
fn run_tells_of_itself_and_goes_on_or_of_the_container_and_goes() {
    for words in [["run", "-b"].as_slice(), &["run", "-d", "-b"]] {
        let Some(bundle) = bundle("notify-run") else { return };
        let manager = Manager::new("notify-run");
        fs::write(bundle.dir.path().join("rootfs/go"), "").unwrap();
        let mut run = manager.start(&bundle, &[words, &[bundle.bundle(), &bundle.id]].concat());
        assert_eq!(manager.hears().0, "READY=1\n");
        let (whom, itself) = (manager.hears().0, format!("MAINPID={}\n", run.id()));
        let detached = words.contains(&"-d");
        assert_eq!(whom == itself, !detached, "{whom}");
        if detached {
            drop(manager.hears());
            assert!(run.wait().unwrap().success());
        }
        bundle.good(&["kill", &bundle.id, "KILL"]);
        assert_eq!(run.wait().unwrap().code(), Some(if detached { 0 } else { 137 }));
    }
}

/// Whoever ends before he is ready keeps nobody waiting.
#[test]
fn the_end_of_a_container_is_waited_for_too() {
    let Some(_) = busybox() else { return };
    let manager = Manager::new("notify-end");
    let bundle = Bundle::new("notify-end", "test -S $NOTIFY_SOCKET && echo $NOTIFY_SOCKET > /seen", |_| {});
    assert!(manager.start(&bundle, &["run", "-d", "-b", bundle.bundle(), &bundle.id]).wait().unwrap().success());
    let mut seen = String::new();
    File::open(bundle.dir.path().join("rootfs/seen")).unwrap().read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "/run/notify/notify.sock\n");
}
