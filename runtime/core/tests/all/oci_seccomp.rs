//! Filters on real processes: what each architecture may call, what the default filter closes, and agents that answer.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use crate::oci::Bundle;
use crate::support::busybox;
use crate::sys;

/// The error that the agents of these tests make up: no mkdir ever says so.
const MADE_UP: i32 = libc::EADDRNOTAVAIL;
/// rmdir, as one or the other program calls it.
const REMOVES: [libc::c_long; 2] = [libc::SYS_unlinkat, if cfg!(target_arch = "x86_64") { 84 } else { -1 }];

/// An agent for some processes: directories cannot be made, and are removed by the kernel.
pub(crate) struct Agent {
    path: PathBuf,
    _dir: tempfile::TempDir,
    served: JoinHandle<Vec<Value>>,
}

impl Agent {
    pub(crate) fn start(processes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        let socket = UnixListener::bind(&path).unwrap();
        let served = std::thread::spawn(move || {
            let meet = |_| socket.accept().map(|(connection, _)| introduced(&connection)).unwrap();
            let threads: Vec<_> = (0..processes).map(meet).map(|(state, listener)| (state, serve(listener))).collect();
            threads.into_iter().map(|(state, thread)| thread.join().map(|()| state).unwrap()).collect()
        });
        Self { path, _dir: dir, served }
    }

    pub(crate) fn profile(&self) -> Value {
        json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": self.path, "listenerMetadata": "m", "syscalls": [
            {"names": ["mkdir", "mkdirat", "rmdir", "unlinkat"], "action": "SCMP_ACT_NOTIFY"}]})
    }

    /// What it was told of the processes, once all have ended.
    pub(crate) fn told(self) -> Vec<Value> {
        self.served.join().unwrap()
    }
}

/// What a runtime says when it comes: the state of a process, and its listener.
fn introduced(connection: &UnixStream) -> (Value, OwnedFd) {
    let mut text = [0; 8192];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(connection, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    assert_eq!(fds.len(), 1);
    (serde_json::from_slice(&text[..got.bytes]).unwrap(), fds.remove(0))
}

/// Answers until nobody is left who could call.
fn serve(listener: OwnedFd) -> JoinHandle<()> {
    std::thread::spawn(move || {
        loop {
            let mut ready = [PollFd::new(&listener, PollFlags::IN)];
            poll(&mut ready, None).unwrap();
            if !ready[0].revents().contains(PollFlags::IN) {
                return;
            }
            // Who called may have been killed meanwhile.
            let Ok((id, number)) = sys::receive(&listener) else { continue };
            let error = (!REMOVES.contains(&number.into())).then_some(MADE_UP);
            let _ = sys::answer(&listener, id, error);
        }
    })
}

const SCRIPT: &str = "mkdir /tmp/new; busybox rmdir /tmp/old && test ! -e /tmp/old && echo removed";
const SAID: &str = "removed\nmkdir: can't create directory '/tmp/new': Cannot assign requested address\n";

fn bundle(agent: &Agent, script: &str, no_new_privileges: bool) -> Bundle {
    let bundle = Bundle::new("notify", script, |s| {
        s["process"]["noNewPrivileges"] = json!(no_new_privileges);
        s["linux"]["seccomp"] = agent.profile();
        s["annotations"] = json!({"a": "b"});
    });
    std::fs::create_dir(bundle.dir.path().join("rootfs/tmp/old")).unwrap();
    bundle
}

fn both(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

/// What every introduction says (config-linux.md, The Container Process State).
fn check_state(state: &Value, bundle: &Bundle, status: &str) {
    assert_eq!((&state["fds"], &state["metadata"]), (&json!(["seccompFd"]), &json!("m")));
    let (version, container) = (&state["ociVersion"], &state["state"]);
    assert!(version.is_string() && container["ociVersion"] == *version, "{state}");
    assert_eq!((&container["id"], &container["status"]), (&json!(bundle.id), &json!(status)));
    assert_eq!((&container["bundle"], &container["annotations"]["a"]), (&json!(bundle.bundle()), &json!("b")));
    assert!(state["pid"].as_i64().is_some_and(|pid| pid > 0), "{state}");
}

#[test]
fn somebody_else_answers_system_calls() {
    let Some(_) = busybox() else { return };
    for no_new_privileges in [true, false] {
        let agent = Agent::start(1);
        let bundle = bundle(&agent, SCRIPT, no_new_privileges);
        let output = bundle.oci(&["run", "-b", bundle.bundle(), &bundle.id]);
        assert_eq!(both(&output), SAID);
        let told = agent.told();
        check_state(&told[0], &bundle, "creating");
        assert_eq!(told[0]["pid"], told[0]["state"]["pid"]);
    }
}

#[test]
fn agents_answer_for_what_is_created_first_and_for_what_joins() {
    let Some(_) = busybox() else { return };
    for no_new_privileges in [true, false] {
        let agent = Agent::start(2);
        let bundle = bundle(&agent, "busybox rmdir /tmp/old; sleep 1000", no_new_privileges);
        let mut create = bundle.command(&["create", "-b", bundle.bundle(), &bundle.id]);
        assert!(create.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
        let state: Value = serde_json::from_str(&bundle.good(&["state", &bundle.id])).unwrap();
        bundle.good(&["start", &bundle.id]);
        let old = bundle.dir.path().join("rootfs/tmp/old");
        crate::support::eventually("its directory is removed", || !old.exists());
        std::fs::create_dir(&old).unwrap();
        assert_eq!(both(&bundle.oci(&["exec", &bundle.id, "sh", "-c", SCRIPT])), SAID);
        bundle.good(&["delete", "--force", &bundle.id]);
        let told = agent.told();
        check_state(&told[0], &bundle, "creating");
        check_state(&told[1], &bundle, "running");
        // The process that joins is not the container's first.
        assert_eq!((&told[0]["pid"], &told[1]["state"]["pid"]), (&state["pid"], &state["pid"]));
        assert_ne!(told[1]["pid"], state["pid"]);
    }
}

#[test]
fn an_agent_that_goes_away_leaves_calls_that_nobody_has() {
    let Some(_) = busybox() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent");
    let agent = UnixListener::bind(&path).unwrap();
    let bundle = Bundle::new("gone", "mkdir /tmp/x", |s| {
        s["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]});
    });
    let mut run = bundle.command(&["run", "-b", bundle.bundle(), &bundle.id]);
    let run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (connection, _) = agent.accept().unwrap();
    drop(introduced(&connection));
    assert!(both(&run.wait_with_output().unwrap()).contains("Function not implemented"));
    // Nobody there at all is an error of the container's start.
    drop((connection, agent));
    let error = bundle.bad(&["run", "-b", bundle.bundle(), &bundle.id]);
    assert!(error.contains("seccomp agent at"), "{error}");
    let bundle = Bundle::new("write", "true", |s| {
        s["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nowhere",
            "syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]});
    });
    let error = bundle.bad(&["run", "-b", bundle.bundle(), &bundle.id]);
    assert!(error.contains("SCMP_ACT_NOTIFY cannot be used for the write syscall"), "{error}");
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use crate::elf::{self, Abi};
    use crate::support::Pod;

    /// Ended by SIGSYS.
    const KILLED: i32 = 128 + 31;

    /// A call, the architectures listed beside the machine's own, and how the program ends.
    type Case<'a> = (Abi, u32, &'a [u32], &'a [&'a str], i32);

    fn ends(profile: &Value, (abi, number, arguments, listed, wanted): &Case<'_>) -> Option<String> {
        let bundle = Bundle::new("arch", "", |s| {
            s["process"]["args"] = json!(["/call"]);
            s["linux"]["seccomp"] = profile.clone();
            s["linux"]["seccomp"]["architectures"] = json!(listed);
        });
        elf::write(&bundle.dir.path().join("rootfs/call"), *abi, *number, arguments);
        let output = bundle.oci(&["run", "-b", bundle.bundle(), &bundle.id]);
        let right = output.status.code() == Some(*wanted);
        (!right).then(|| format!("{abi:?} {number} {listed:?}: {:?}, not {wanted}: {}", output.status, both(&output)))
    }

    #[test]
    fn calls_of_each_architecture_are_answered_by_its_rules() {
        let Some(_) = busybox() else { return };
        let open = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77},
            {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 78},
            {"names": ["shmat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 79},
            {"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 80,
                "args": [{"index": 1, "value": 5, "op": "SCMP_CMP_GT"}]}]});
        let (x86, x32): (&[&str], &[&str]) = (&["SCMP_ARCH_X86"], &["SCMP_ARCH_X32", "SCMP_ARCH_ARM"]);
        let cases: [Case<'_>; 12] = [
            (Abi::X86_64, 110, &[], &[], 77),
            (Abi::X86_64, 110, &[], x86, 77),
            (Abi::X86, 64, &[], x86, 77),
            (Abi::X86, 64, &[], &[], KILLED),
            // What its number is elsewhere: semget.
            (Abi::X86_64, 64, &[0, 0, 0], x86, libc::EINVAL),
            (Abi::X86, 102, &[1, 0], x86, 78),
            (Abi::X86, 359, &[], x86, 78),
            (Abi::X86, 117, &[1 << 16 | 21], x86, 79),
            (Abi::X86, 19, &[99, 6], x86, 80),
            (Abi::X86, 19, &[99, 5], x86, libc::EBADF),
            // The filter comes before a kernel that has no x32.
            (Abi::X32, 110, &[], x32, 77),
            (Abi::X32, 110, &[], x86, KILLED),
        ];
        let wrong: Vec<String> = cases.iter().filter_map(|case| ends(&open, case)).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        let closed = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["execve", "exit", "exit_group"], "action": "SCMP_ACT_ALLOW"}]});
        let cases: [Case<'_>; 5] = [
            (Abi::X86_64, 39, &[], x86, libc::EPERM),
            (Abi::X86_64, 240, &[], x86, libc::ENOSYS),
            (Abi::X86, 20, &[], x86, libc::EPERM),
            (Abi::X86, 240, &[], x86, libc::EPERM),
            (Abi::X86, 260, &[], x86, libc::ENOSYS),
        ];
        let wrong: Vec<String> = cases.iter().filter_map(|case| ends(&closed, case)).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// Name, numbers on x86-64 and i386, arguments that do nothing, and what the default filter answers.
    type Probe = (&'static str, u32, u32, &'static [u32], i32);

    const NONE: &[u32] = &[0, 0, 0, 0, 0];
    const NO_FD: &[u32] = &[u32::MAX, 0, 0, 0, 0];
    const NEW_USER: u32 = 0x1000_0000;
    const PROBES: [Probe; 32] = [
        ("mount", 165, 21, NONE, libc::EPERM),
        ("umount2", 166, 52, NONE, libc::EPERM),
        ("fsopen", 430, 430, NONE, libc::EPERM),
        ("fsconfig", 431, 431, NO_FD, libc::EPERM),
        ("fsmount", 432, 432, NO_FD, libc::EPERM),
        ("fspick", 433, 433, NO_FD, libc::EPERM),
        ("open_tree", 428, 428, NO_FD, libc::EPERM),
        ("move_mount", 429, 429, NO_FD, libc::EPERM),
        ("mount_setattr", 442, 442, NO_FD, libc::EPERM),
        ("pivot_root", 155, 217, NONE, libc::EPERM),
        ("unshare", 272, 310, &[NEW_USER], libc::EPERM),
        ("clone", 56, 120, &[NEW_USER, 0, 0, 0, 0], libc::EPERM),
        ("clone3", 435, 435, NONE, libc::ENOSYS),
        ("setns", 308, 346, NO_FD, libc::EPERM),
        ("bpf", 321, 357, NONE, libc::EPERM),
        ("keyctl", 250, 288, &[u32::MAX], libc::EPERM),
        ("add_key", 248, 286, NONE, libc::EPERM),
        ("request_key", 249, 287, NONE, libc::EPERM),
        ("io_uring_setup", 425, 425, NONE, libc::EPERM),
        ("io_uring_enter", 426, 426, NO_FD, libc::EPERM),
        ("io_uring_register", 427, 427, NO_FD, libc::EPERM),
        ("userfaultfd", 323, 374, &[u32::MAX], libc::EPERM),
        ("perf_event_open", 298, 336, NONE, libc::EPERM),
        ("process_vm_writev", 311, 348, NO_FD, libc::EPERM),
        ("kcmp", 312, 349, NO_FD, libc::EPERM),
        ("quotactl", 179, 131, NO_FD, libc::EPERM),
        ("swapon", 167, 87, NONE, libc::EPERM),
        ("init_module", 175, 128, NONE, libc::EPERM),
        ("finit_module", 313, 350, NO_FD, libc::EPERM),
        ("open_by_handle_at", 304, 342, NO_FD, libc::EPERM),
        ("socket", 41, 359, &[40, 1, 0], libc::EPERM),
        ("later", 600, 600, NONE, libc::ENOSYS),
    ];

    /// In a pod, with the filter that pods have, as root: (name, what came of it) for 64 and for 32 bits.
    fn probe(pod: &Pod, id: &str, filtered: bool) -> Vec<(String, i32)> {
        let all = [(Abi::X86_64, "64"), (Abi::X86, "32")];
        for (name, number, number_32, arguments, _) in PROBES {
            for (abi, bits) in all {
                let number = if abi == Abi::X86 { number_32 } else { number };
                elf::write(&pod.layer.join(format!("bin/{name}-{bits}")), abi, number, arguments);
            }
        }
        let names: Vec<&str> = PROBES.iter().map(|(name, ..)| *name).collect();
        let script = format!("for n in {}; do for b in 64 32; do $n-$b; echo $n $?; done; done", names.join(" "));
        let none = oci_spec::runtime::Capabilities::new();
        let profile = runtime_core::seccomp::default_profile(&none).unwrap();
        let config = pod.container_with(id, &script, |s| {
            // What the kernel itself would refuse for want of a capability would prove nothing.
            let caps: Vec<String> = ["SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH", "BPF", "PERFMON", "SYS_MODULE"]
                .map(|c| format!("CAP_{c}"))
                .to_vec();
            s["process"]["capabilities"] = json!({"bounding": caps, "effective": caps, "permitted": caps});
            if filtered {
                s["linux"]["seccomp"] = serde_json::to_value(&profile).unwrap();
            }
        });
        let (_, log) = pod.run_config(&config);
        let answers = log.lines().map(|line| {
            let (name, code) = line.split_once(' ').unwrap();
            (name.to_owned(), code.parse().unwrap())
        });
        answers.collect()
    }

    #[test]
    fn the_default_filter_closes_ways_out() {
        let Some(_) = busybox() else { return };
        let pod = Pod::start();
        let (with, without) = (probe(&pod, "with", true), probe(&pod, "without", false));
        assert_eq!((with.len(), without.len()), (2 * PROBES.len(), 2 * PROBES.len()));
        let wanted = |name: &str| PROBES.iter().find(|(probe, ..)| *probe == name).map(|(.., wanted)| *wanted).unwrap();
        let wrong: Vec<_> = with.iter().filter(|(name, code)| *code != wanted(name)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        // Without the filter most of them come to something else: it is the filter that answers.
        let same: Vec<_> = without.iter().filter(|(name, code)| *code == wanted(name)).map(|(name, _)| name).collect();
        assert!(same.len() <= 12, "{same:?}");
    }
}
