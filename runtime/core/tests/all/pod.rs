//! The shim through its handle.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use oci_spec::runtime::LinuxResources;
use runtime_core::Error;
use runtime_core::pod::{ExecConfig, Shim};
use serde_json::json;

use crate::oci_seccomp::Agent;
use crate::support::{Pod, busybox, eventually, exit_code, linux, program, read_all, readable};

/// Name, change of the spec, the error wanted.
type Case<'a> = (&'a str, &'a dyn Fn(&mut serde_json::Value), &'a str);

fn exec(container: &str, args: &[&str]) -> ExecConfig {
    let args = args.iter().map(|a| (*a).to_owned()).collect();
    ExecConfig { container: container.to_owned(), args, tty: false, stdin: false }
}

#[test]
fn a_container_runs_and_its_end_is_known() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    let (state, log) = pod.run("a", "echo out; echo err >&2; printf unfinished; exit 7");
    let exit = state.exit.unwrap();
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (7, None, false));
    assert!(exit.finished_at >= exit.started_at);
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["err", "out", "unfinished"]);
    pod.shim.remove_container("a").unwrap();
    assert_eq!(pod.shim.containers().unwrap(), []);
    // The scratch space is there for the next attempt.
    assert!(pod.run("a", "echo again").1.ends_with("again\n"));
}

#[test]
fn signals_end_containers_with_128_and_more() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    pod.shim.start_container(&pod.container("k", "sleep 1000")).unwrap();
    assert!(matches!(pod.shim.remove_container("k"), Err(Error::State(_))));
    pod.shim.signal("k", 9, false).unwrap();
    let exit = pod.wait("k").exit.unwrap();
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    pod.shim.signal("k", 9, false).unwrap();
    assert!(matches!(pod.shim.signal("none", 9, false), Err(Error::NotFound(_))));
    assert!(matches!(pod.shim.signal("k", 4000, false), Err(Error::Invalid(_))));
    let script = "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    pod.shim.start_container(&pod.container("t", script)).unwrap();
    eventually("ready", || pod.log("t") == "ready\n");
    pod.shim.signal("t", 15, true).unwrap();
    assert_eq!(pod.wait("t").exit.unwrap().code, 3);
}

/// What a container sees of itself and of the machine.
#[test]
fn containers_are_confined() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    let script = "
        echo pid $$
        id -u; id -g
        grep -E 'Cap(Inh|Prm|Bnd)|NoNewPrivs' /proc/self/status
        ls /proc/self/fd
        test -e /proc/1/root/bin/busybox && echo own-root
        cat /proc/kcore | head -c 1 | grep -c .
        ls /sys/firmware | grep -c .
        echo 1 > /proc/sys/kernel/printk || echo read-only
        stat -c %t:%T /dev/null /dev/full /dev/tty
        readlink /dev/fd; readlink /dev/ptmx
        echo $HOME
        ls -d /tmp/x /work 2>/dev/null
        grep -c . /proc/self/mountinfo
        cat /proc/self/cgroup | grep -vc ':/$'
    ";
    let (state, log) = pod.run("c", script);
    assert_eq!(state.exit.unwrap().code, 1, "{log}");
    let log: String = log.lines().filter(|l| !l.contains("can't") && !l.is_empty()).map(|l| format!("{l}\n")).collect();
    let mounts: u32 = log.lines().rev().nth(1).unwrap().parse().unwrap();
    assert!(mounts < 16, "{log}");
    let log = log.replace(&format!("\n{mounts}\n"), "\nFEW\n");
    let want = "pid 1\n0\n0\nCapInh:\t0000000000000000\nCapPrm:\t00000000000001eb\nCapBnd:\t00000000000001eb\nNoNewPrivs:\t1\n\
        0\n1\n2\n3\nown-root\n0\n0\nread-only\n1:3\n1:7\n5:0\n/proc/self/fd\npts/ptmx\n/root\nFEW\n0\n";
    assert_eq!(log, want);
}

#[test]
fn errors_name_what_is_wrong() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    let cases: [Case<'_>; 12] = [
        (
            "args",
            &|s| s["process"]["args"] = json!(["nowhere"]),
            "exec: \"nowhere\": executable file not found in $PATH",
        ),
        (
            "path",
            &|s| s["process"]["args"] = json!(["/nowhere"]),
            "exec: \"/nowhere\": stat /nowhere: No such file or directory",
        ),
        ("dir", &|s| s["process"]["args"] = json!(["/etc/passwd"]), "exec \"/etc/passwd\": Permission denied"),
        ("empty", &|s| s["process"]["args"] = json!([]), "process.args: must name a program"),
        ("cwd", &|s| s["process"]["cwd"] = json!("x"), "process.cwd: \"x\" is not an absolute path"),
        ("fd", &|s| s["process"]["cwd"] = json!("/proc/self/fd/7"), "process.cwd"),
        ("uid", &|s| s["process"]["user"]["uid"] = json!(u32::MAX), "process.user.uid: 4294967295 is not an id"),
        ("nul", &|s| s["process"]["env"] = json!(["A=\0"]), "process.env"),
        (
            "bind",
            &|s| s["mounts"] = json!([{"destination": "/x", "source": "/nowhere", "options": ["bind"]}]),
            "open mount source /nowhere",
        ),
        (
            "option",
            &|s| s["mounts"] = json!([{"destination": "/x", "type": "tmpfs", "options": ["colour=red"]}]),
            "mounts: /x: option colour=red",
        ),
        (
            "seccomp",
            &|s| s["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            "linux.seccomp: SCMP_ACT_NOTIFY",
        ),
        ("huge", &|s| s["linux"]["resources"]["rdma"] = json!(null), ""),
    ];
    for (id, change, want) in cases {
        let result = pod.shim.start_container(&pod.container_with(id, "exit 0", change));
        match result {
            Err(error) => {
                let text = match std::error::Error::source(&error) {
                    Some(_) => error.to_string(),
                    None => error.to_string(),
                };
                assert!(!want.is_empty() && text.starts_with(want), "{id}: {text}");
            }
            Ok(_) => assert_eq!(want, "", "{id}"),
        }
    }
    assert_eq!(pod.shim.containers().unwrap().len(), 1);
}

#[test]
fn processes_join_containers() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    let secure = |s: &mut serde_json::Value| s["process"]["env"] = json!(["PATH=/bin", "COLOUR=red"]);
    pod.shim.start_container(&pod.container_with("c", "sleep 1000", secure)).unwrap();
    let script = "echo $COLOUR; ls /proc/self/fd | wc -l; cat /proc/1/cmdline | tr '\\0' ' '; grep -c CapInh:.0000000000000000 /proc/self/status; \
        cat /proc/self/cgroup | grep -vc ':/$'; echo oops >&2; exit 5";
    let streams = pod.shim.exec(&exec("c", &["/bin/busybox", "sh", "-c", script])).unwrap();
    let (out, err) = (read_all(streams.stdout.unwrap()), read_all(streams.stderr.unwrap()));
    assert_eq!(exit_code(streams.exit.unwrap()), 5);
    let first: Vec<&str> = out.lines().take(1).collect();
    assert_eq!((first, err.as_str()), (vec!["red"], "oops\n"), "{out}");
    // stdin reaches it, and its end too.
    let streams = pod.shim.exec(&ExecConfig { stdin: true, ..exec("c", &["cat"]) }).unwrap();
    let mut stdin = fs::File::from(streams.stdin.unwrap());
    stdin.write_all(b"through\n").unwrap();
    drop(stdin);
    assert_eq!(read_all(streams.stdout.unwrap()), "through\n");
    assert_eq!(exit_code(streams.exit.unwrap()), 0);
    // A terminal is one of the container's own.
    let config = ExecConfig { tty: true, stdin: true, ..exec("c", &["sh", "-c", "tty; stty size; exit 4"]) };
    let streams = pod.shim.exec(&config).unwrap();
    drop((streams.stdin, streams.terminal));
    assert!(read_all(streams.stdout.unwrap()).starts_with("/dev/pts/0\r\n"));
    assert_eq!(exit_code(streams.exit.unwrap()), 4);
    assert!(matches!(pod.shim.exec(&exec("c", &["nowhere"])), Err(Error::Invalid(_))));
    assert!(matches!(pod.shim.exec(&exec("x", &["true"])), Err(Error::NotFound(_))));
    pod.shim.signal("c", 9, false).unwrap();
    pod.wait("c");
    assert!(matches!(pod.shim.exec(&exec("c", &["true"])), Err(Error::State(_))));
}

#[test]
fn somebody_else_answers_system_calls_of_a_pod() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    let agent = Agent::start(2);
    let watched = |s: &mut serde_json::Value| {
        s["linux"]["seccomp"] = agent.profile();
        s["annotations"] = json!({"a": "b"});
    };
    pod.shim.start_container(&pod.container_with("c", "mkdir /tmp/first; sleep 1000", watched)).unwrap();
    let want = |name: &str| format!("mkdir: can't create directory '/tmp/{name}': Cannot assign requested address\n");
    eventually("its first process asks", || pod.log("c") == want("first"));
    let streams = pod.shim.exec(&exec("c", &["mkdir", "/tmp/second"])).unwrap();
    assert_eq!(read_all(streams.stderr.unwrap()), want("second"));
    let first = pod.shim.containers().unwrap()[0].pid;
    pod.shim.signal("c", 9, false).unwrap();
    pod.wait("c");
    let told = agent.told();
    let of = |n: usize| (&told[n]["state"]["id"], &told[n]["state"]["annotations"]["a"], &told[n]["metadata"]);
    assert_eq!((of(0), of(1)), ((&json!("c"), &json!("b"), &json!("m")), (&json!("c"), &json!("b"), &json!("m"))));
    assert_eq!((&told[0]["pid"], told[1]["pid"] != told[0]["pid"]), (&json!(first), true));
    // An agent that is not there keeps nobody waiting, and the container from starting.
    let gone = |s: &mut serde_json::Value| {
        s["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nowhere",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    };
    let error = pod.shim.start_container(&pod.container_with("d", "exit 0", gone)).unwrap_err().to_string();
    assert_eq!(error, "failed to connect with seccomp agent at /nowhere: No such file or directory (os error 2)");
}

#[test]
fn sessions_attach() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    let mut config = pod.container("c", "while read line; do echo got $line; done; echo end");
    (config.stdin, config.stdin_once) = (true, true);
    pod.shim.start_container(&config).unwrap();
    let watcher = pod.shim.attach("c", false).unwrap();
    assert!(watcher.stdin.is_none() && watcher.stderr.is_some());
    let session = pod.shim.attach("c", true).unwrap();
    let mut stdin = fs::File::from(session.stdin.unwrap());
    stdin.write_all(b"one\ntwo\n").unwrap();
    drop(stdin);
    assert_eq!(read_all(session.stdout.unwrap()), "got one\ngot two\nend\n");
    assert_eq!(read_all(watcher.stdout.unwrap()), "got one\ngot two\nend\n");
    assert_eq!(pod.wait("c").exit.unwrap().code, 0);
    assert_eq!(pod.log("c"), "got one\ngot two\nend\n");
    assert!(matches!(pod.shim.attach("c", true), Err(Error::State(_))));
}

#[test]
fn containers_have_terminals() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    let terminal = |s: &mut serde_json::Value| s["process"]["terminal"] = json!(true);
    let mut config =
        pod.container_with("c", "read x; tty; stat -c %t /dev/console; stty size; echo $x; exit 9", terminal);
    config.stdin = true;
    pod.shim.start_container(&config).unwrap();
    let session = pod.shim.attach("c", true).unwrap();
    let size = rustix::termios::Winsize { ws_row: 33, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(session.terminal.as_ref().unwrap(), size).unwrap();
    fs::File::from(session.stdin.unwrap()).write_all(b"typed\n").unwrap();
    drop(session.terminal);
    let seen = read_all(session.stdout.unwrap()).replace('\r', "");
    assert_eq!(seen, "typed\n/dev/pts/0\n88\n33 99\ntyped\n");
    assert_eq!(pod.wait("c").exit.unwrap().code, 9);
}

#[test]
fn limits_hold() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    let limits = |s: &mut serde_json::Value| {
        s["linux"]["resources"] = json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}, "pids": {"limit": 8},
            "cpu": {"shares": 512, "quota": 50_000, "period": 100_000}});
    };
    let config = pod.container_with("oom", "x=$(yes | head -c 100000000); echo survived", limits);
    let (state, log) = pod.run_config(&config);
    let exit = state.exit.unwrap();
    assert!(exit.oom_killed && exit.code == 137, "{exit:?} {log}");
    let (state, log) =
        pod.run_config(&pod.container_with("p", "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; echo all", limits));
    assert!(state.exit.unwrap().code != 0 && log.contains("can't fork"), "{log}");
    pod.shim.start_container(&pod.container_with("c", "sleep 1000", limits)).unwrap();
    let stats = pod.shim.stats(Some("c")).unwrap();
    assert!(stats.pids >= 1 && stats.memory_usage_bytes > 0 && stats.cpu_usage_ns > 0, "{stats:?}");
    let more: LinuxResources =
        serde_json::from_value(json!({"memory": {"limit": 64 << 20, "swap": 64 << 20}})).unwrap();
    pod.shim.update(Some("c"), &more).unwrap();
    let unknown: LinuxResources = serde_json::from_value(json!({"unified": {"nosuch.max": "1"}})).unwrap();
    let error = pod.shim.update(None, &unknown).unwrap_err();
    let want = "invalid configuration: linux.resources.unified: nosuch.max: no nosuch controller of cgroup v2";
    assert_eq!(error.to_string(), want);
}

#[test]
fn the_default_filter_holds() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    let profile = runtime_core::seccomp::default_profile(&oci_spec::runtime::Capabilities::new()).unwrap();
    let filter = |s: &mut serde_json::Value| s["linux"]["seccomp"] = serde_json::to_value(&profile).unwrap();
    let script = "grep Seccomp: /proc/self/status; mount -t tmpfs x /tmp 2>/dev/null || echo refused";
    let (state, log) = pod.run_config(&pod.container_with("c", script, filter));
    assert_eq!(state.exit.unwrap().code, 0);
    assert_eq!(log, "Seccomp:\t2\nrefused\n");
    let keep = |s: &mut serde_json::Value| {
        filter(s);
        s["process"]["noNewPrivileges"] = json!(false);
    };
    assert_eq!(pod.run_config(&pod.container_with("n", script, keep)).1, log);
}

#[test]
fn volumes_are_mounted_as_asked() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    let volume = pod.dir.path().join("volume");
    fs::create_dir_all(volume.join("sub")).unwrap();
    fs::write(volume.join("file"), "content\n").unwrap();
    let mounts = |s: &mut serde_json::Value| {
        let list = s["mounts"].as_array_mut().unwrap();
        list.push(json!({"destination": "/data", "source": volume, "options": ["rbind", "rw"]}));
        list.push(json!({"destination": "/ro/deep", "source": volume, "options": ["bind", "rro", "noexec"]}));
        list.push(json!({"destination": "/etc/passwd", "source": volume.join("file"), "options": ["bind", "ro"]}));
        list.push(
            json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "mode=700"]}),
        );
        list.push(
            json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid"]}),
        );
    };
    let script = "cat /etc/passwd; echo new > /data/new; echo x > /ro/deep/x || echo ro; dd if=/dev/zero of=/t/f bs=1k count=100 2>/dev/null || echo full; \
        ls -d /sys/fs/cgroup/memory /sys/fs/cgroup/cgroup.procs 2>/dev/null | head -1 | grep -c cgroup; mkdir /sys/fs/cgroup/x || echo ro";
    let (state, log) = pod.run_config(&pod.container_with("c", script, mounts));
    let log: Vec<&str> = log.lines().filter(|l| !l.contains("can't")).collect();
    assert_eq!(log, ["content", "ro", "full", "1", "ro"]);
    assert_eq!(state.exit.unwrap().code, 0);
    assert_eq!(fs::read_to_string(volume.join("new")).unwrap(), "new\n");
}

/// An image must not lead mounts, masks or files out of its root.
#[test]
fn links_of_an_image_stay_inside() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    let outside = pod.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, pod.layer.join("data")).unwrap();
    std::os::unix::fs::symlink("/../../..", pod.layer.join("up")).unwrap();
    let mounts = |s: &mut serde_json::Value| {
        let list = s["mounts"].as_array_mut().unwrap();
        list.push(json!({"destination": "/up/made", "type": "tmpfs", "source": "tmpfs"}));
        list.push(json!({"destination": "/etc/new", "source": "/dev/null", "options": ["bind"]}));
    };
    let (_, log) = pod.run_config(&pod.container_with("c", "ls -d /made /etc/new", mounts));
    assert_eq!(log, "/etc/new\n/made\n");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    for (dir, id, kind) in [("proc", "p", "proc"), ("sys", "s", "sysfs")] {
        fs::remove_dir(pod.layer.join(dir)).unwrap();
        std::os::unix::fs::symlink("/tmp", pod.layer.join(dir)).unwrap();
        let error = pod.shim.start_container(&pod.container(id, "true")).unwrap_err();
        let want = format!("mounts: /{dir}: {kind} must be mounted on ordinary directory");
        assert!(error.to_string().starts_with(&want), "{error}");
        fs::remove_file(pod.layer.join(dir)).unwrap();
        fs::create_dir(pod.layer.join(dir)).unwrap();
    }
}

#[test]
fn pods_share_what_they_are_told_to() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start_with(|config| config.shared_pid = true);
    pod.shim.start_container(&pod.container("a", "sleep 1000")).unwrap();
    let (_, log) = pod.run("b", "cat /proc/1/comm; ps | grep -c 'sleep 100[0]'; ls /proc/1/root 2>&1 | grep -c denied; readlink /proc/self/ns/ipc");
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(&lines[..3], ["trimtab-pause", "1", "1"]);
    let ipc = fs::read_link("/proc/self/ns/ipc").unwrap();
    assert_ne!(Some(lines[3]), ipc.to_str());
    // An orphan is reaped by the pod's first process, and dies with its container.
    let (state, _) = pod.run("o", "sleep 1001 & exit 0");
    assert_eq!(state.exit.unwrap().code, 0);
    let (_, log) = pod.run("d", "ps | grep -c 'sleep 100[1]'");
    assert_eq!(log, "0\n");
    pod.shim.signal("a", 9, false).unwrap();
    pod.wait("a");
}

/// Ids on disk are those inside, in layers as in volumes; what is outside is nobody's.
#[test]
fn a_pod_in_a_user_namespace() {
    let Some(_) = busybox().filter(|_| linux(6, 15, "layers with other ids")) else { return };
    for shared_pid in [false, true] {
        let pod = Pod::start_with(|config| {
            config.user_map = Some((0, 655_360, 65_536));
            config.shared_pid = shared_pid;
        });
        let volume = pod.dir.path().join("volume");
        fs::create_dir(&volume).unwrap();
        fs::write(volume.join("theirs"), "").unwrap();
        std::os::unix::fs::chown(volume.join("theirs"), Some(1000), Some(1000)).unwrap();
        let change = |s: &mut serde_json::Value| {
            let list = s["mounts"].as_array_mut().unwrap();
            list.push(json!({"destination": "/data", "source": volume, "options": ["rbind", "rw"]}));
            list.push(
                json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid"]}),
            );
            list.push(
                json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}),
            );
            s["process"]["oomScoreAdj"] = json!(500);
        };
        let script = "id -u; cat /proc/self/uid_map; stat -c %u /bin/busybox /data/theirs /etc; echo x > /etc/new; \
            stat -c %u /etc/new; echo x > /data/ours; stat -c %t:%T /dev/null; hostname; echo again > /dev/stderr; \
            hostname other && hostname; cat /proc/self/oom_score_adj; mount -t tmpfs x /tmp && echo root; sleep 1000";
        let all = |s: &mut serde_json::Value| {
            change(s);
            let caps = oci_caps();
            s["process"]["capabilities"] = json!({"bounding": caps, "effective": caps, "permitted": caps});
        };
        let config = pod.container_with("c", script, all);
        pod.shim.start_container(&config).unwrap();
        eventually("it says all", || {
            pod.log("c").contains("root\n") || pod.shim.containers().unwrap()[0].exit.is_some()
        });
        let log = pod.log("c").split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            log.replace("again", "").split_whitespace().collect::<Vec<_>>().join(" "),
            "0 0 655360 65536 0 1000 0 0 1:3 pod other 500 root"
        );
        assert!(log.contains("again"));
        assert_eq!(fs::metadata(volume.join("ours")).unwrap().uid(), 0);
        let pid = pod.shim.containers().unwrap()[0].pid;
        assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 655_360);
        let streams = pod
            .shim
            .exec(&exec(
                "c",
                &["/bin/busybox", "sh", "-c", "id -u; ls /proc/1/root/bin/busybox; kill -9 1; echo x > /dev/stdout"],
            ))
            .unwrap();
        let (out, err) = (read_all(streams.stdout.unwrap()), read_all(streams.stderr.unwrap()));
        let first = if shared_pid { "0\nx\n" } else { "0\n/proc/1/root/bin/busybox\nx\n" };
        assert_eq!(out, first, "{err}");
        let network = pod.shim.network().unwrap();
        assert_ne!(rustix::fs::fstat(&network).unwrap().st_ino, fs::metadata("/proc/self/ns/net").unwrap().ino());
        pod.shim.signal("c", 9, false).unwrap();
        assert_eq!(pod.wait("c").exit.unwrap().code, 137);
    }
    let pod = Pod::start();
    let bad = |map| {
        let mut config = pod.config.clone();
        (config.run_dir, config.user_map) = (pod.dir.path().join("other"), Some(map));
        let error = Shim::start(&program(), &config).unwrap_err().to_string();
        Shim::destroy(&config.run_dir).unwrap();
        error
    };
    assert_eq!(bad((1, 655_360, 65_536)), "user_map: root must be mapped");
    assert_eq!(bad((0, 0, 65_536)), "user_map: out of range");
    assert_eq!(bad((0, u32::MAX, 65_536)), "user_map: out of range");
}

/// A debugging container sees the processes of its target, and no other's.
#[test]
fn a_container_joins_the_pid_namespace_of_another() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    for (id, script) in [("a", "sleep 2001"), ("b", "sleep 2002")] {
        pod.shim.start_container(&pod.container(id, script)).unwrap();
    }
    let pid = pod.shim.containers().unwrap()[0].pid;
    let join = |s: &mut serde_json::Value| {
        s["linux"]["namespaces"] = json!([{"type": "pid", "path": format!("/proc/{pid}/ns/pid")}]);
    };
    let script = "ps | grep -c 'sleep 200[12]'; ps | grep -c 'sleep 200[1]'; sleep 2003 & exit 4";
    let (state, log) = pod.run_config(&pod.container_with("debug", script, join));
    assert_eq!((state.exit.unwrap().code, log.as_str()), (4, "1\n1\n"));
    // What it left behind is gone with it, the target is not.
    let (_, log) = pod.run_config(&pod.container_with("again", "ps | grep -c 'sleep 200[3]'", join));
    assert_eq!(log, "0\n");
    assert!(pod.shim.containers().unwrap().iter().any(|c| c.id == "a" && c.exit.is_none()));
}

/// HostToContainer: what is mounted on the host later is seen inside. Bidirectional: the other way round, too.
#[test]
fn mounts_propagate_as_asked() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    let volume = pod.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let on_host = |args: &[&str]| assert!(Command::new("mount").args(args).status().unwrap().success());
    on_host(&["-t", "tmpfs", "x", volume.to_str().unwrap()]);
    on_host(&["--make-shared", volume.to_str().unwrap()]);
    for dir in ["early", "late", "up"] {
        fs::create_dir(volume.join(dir)).unwrap();
    }
    on_host(&["-t", "tmpfs", "x", volume.join("early").to_str().unwrap()]);
    fs::write(volume.join("early/file"), "").unwrap();
    let with = |word: &str| {
        let word = word.to_owned();
        let volume = volume.clone();
        move |s: &mut serde_json::Value| {
            let list = s["mounts"].as_array_mut().unwrap();
            list.push(json!({"destination": "/v", "source": volume, "options": ["rbind", word, "rw"]}));
            list.push(json!({"destination": "/r", "source": volume, "options": ["rbind", "rslave", "rro"]}));
            let caps = oci_caps();
            s["process"]["capabilities"] = json!({"bounding": caps, "effective": caps, "permitted": caps});
        }
    };
    for word in ["rprivate", "rslave", "rshared"] {
        let script = "echo x > /r/early/new || echo ro; mount -t tmpfs y /v/up && echo mounted; echo x > /v/up/inside; \
            read go; ls /v/late; umount /v/up; sleep 1000";
        let mut config = pod.container_with(word, script, with(word));
        config.stdin = true;
        pod.shim.start_container(&config).unwrap();
        eventually("it mounts", || pod.log(word).contains("mounted\n"));
        assert!(pod.log(word).contains("ro\n"), "{}", pod.log(word));
        eventually("it propagates", || word != "rshared" || volume.join("up/inside").exists());
        assert_eq!(volume.join("up/inside").exists(), word == "rshared");
        on_host(&["-t", "tmpfs", "x", volume.join("late").to_str().unwrap()]);
        fs::write(volume.join("late/seen"), "").unwrap();
        fs::File::from(pod.shim.attach(word, true).unwrap().stdin.unwrap()).write_all(b"go\n").unwrap();
        let seen = |pod: &Pod| pod.log(word).contains("seen\n");
        if word == "rprivate" {
            // The end of the script's list is the end of its looking.
            eventually("it looks", || {
                pod.shim
                    .exec(&exec(word, &["sh", "-c", "grep -q /v/up /proc/1/mountinfo"]))
                    .is_ok_and(|s| exit_code(s.exit.unwrap()) != 0)
            });
            assert!(!seen(&pod));
        } else {
            eventually("it sees", || seen(&pod));
        }
        pod.shim.signal(word, 9, false).unwrap();
        pod.wait(word);
        for place in ["late", "up"] {
            let _ = Command::new("umount").arg(volume.join(place)).stderr(std::process::Stdio::null()).status();
        }
    }
    assert!(Command::new("umount").arg("-R").arg(&volume).status().unwrap().success());
}

/// One container of a pod runs out of memory; the pod's other ones do not notice.
#[test]
fn memory_runs_out_for_one_container_alone() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start_with(|config| config.shared_pid = true);
    let limits =
        |s: &mut serde_json::Value| s["linux"]["resources"] = json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
    pod.shim.start_container(&pod.container_with("other", "sleep 1000", limits)).unwrap();
    let (state, log) =
        pod.run_config(&pod.container_with("oom", "x=$(yes | head -c 100000000); echo survived", limits));
    let exit = state.exit.unwrap();
    assert!(exit.oom_killed && exit.code == 137, "{exit:?} {log}");
    let other = pod.shim.containers().unwrap().into_iter().find(|c| c.id == "other").unwrap();
    assert_eq!(other.exit, None);
    pod.shim.signal("other", 9, false).unwrap();
    assert!(!pod.wait("other").exit.unwrap().oom_killed);
}

/// A container whose file lies there because the one who wrote it was killed before he asked for it.
#[test]
fn a_start_that_was_only_written_down_is_no_container() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    let config = pod.container("c", "exit 3");
    fs::write(pod.config.run_dir.join("containers/c.json"), "{").unwrap();
    let (state, _) = pod.run_config(&config);
    assert_eq!(state.exit.unwrap().code, 3);
    assert!(matches!(pod.shim.start_container(&config), Err(Error::State(_))));
}

#[test]
fn pods_have_names_of_their_own_with_a_network() {
    let Some(_) = busybox() else { return };
    let name = format!("tt-test-{}", std::process::id());
    assert!(Command::new("ip").args(["netns", "add", &name]).status().unwrap().success());
    let pod = Pod::start_with(|config| {
        config.network = Some(Path::new("/run/netns").join(&name));
        config.sysctls = vec![("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())];
    });
    let (_, log) = pod.run("c", "hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ls /sys/class/net");
    drop(pod);
    assert!(Command::new("ip").args(["netns", "del", &name]).status().unwrap().success());
    assert_eq!(log, "pod\n0\nlo\n");
}

#[test]
fn a_new_agent_adopts() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    pod.shim.start_container(&pod.container("c", "echo hello; sleep 1000")).unwrap();
    let before = pod.shim.containers().unwrap();
    let adopted = Shim::adopt(&pod.config.run_dir).unwrap();
    assert_eq!(adopted.containers().unwrap(), before);
    assert_eq!(adopted.config().unwrap(), pod.config);
    assert_eq!(Shim::exits(&pod.config.run_dir).unwrap(), before);
    assert!(matches!(Shim::start(&program(), &pod.config), Err(Error::State(_))));
    assert!(matches!(Shim::adopt(Path::new("/nowhere")), Err(Error::NotFound(_))));
    // Bad messages cost the sender his answer, nothing else.
    for junk in
        [&b"junk"[..], b"{}", b"{\"version\":1,\"call\":{\"start\":{\"container\":\"../../x\"}}}", &[0xff; 70_000]]
    {
        crate::support::send_raw(&pod.config.run_dir, junk);
    }
    adopted.signal("c", 9, false).unwrap();
    assert_eq!(pod.wait("c").exit.unwrap().code, 137);
    assert_eq!(Shim::exits(&pod.config.run_dir).unwrap(), adopted.containers().unwrap());
}

#[test]
fn destroy_leaves_nothing_also_where_the_shim_is_dead() {
    let Some(_) = busybox() else { return };
    for kill in [false, true] {
        let pod = Pod::start_with(|config| config.shared_pid = kill);
        pod.shim.start_container(&pod.container("c", "sleep 1002 & sleep 1003")).unwrap();
        let pid = pod.shim.containers().unwrap()[0].pid;
        let changes = pod.shim.changes().unwrap();
        if kill {
            let shim: serde_json::Value =
                serde_json::from_slice(&fs::read(pod.config.run_dir.join("shim.json")).unwrap()).unwrap();
            let pid = i32::try_from(shim["pid"].as_i64().unwrap()).unwrap();
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            readable(&changes, Duration::from_secs(5));
            assert!(matches!(Shim::adopt(&pod.config.run_dir), Err(Error::NotFound(_))));
            assert_eq!(Shim::exits(&pod.config.run_dir).unwrap()[0].exit, None);
        }
        Shim::destroy(&pod.config.run_dir).unwrap();
        eventually("the container's process goes", || !Path::new(&format!("/proc/{pid}")).exists());
        assert!(!pod.config.run_dir.exists());
        let found = Command::new("find").args(["/sys/fs/cgroup", "-name", &pod.config.id]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(pod.dir.path().to_str().unwrap()));
        Shim::destroy(&pod.config.run_dir).unwrap();
    }
}

fn oci_caps() -> Vec<String> {
    [
        "SYS_ADMIN",
        "SYS_PTRACE",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "CHOWN",
        "FOWNER",
        "KILL",
        "SETUID",
        "SETGID",
        "MKNOD",
    ]
    .map(|name| format!("CAP_{name}"))
    .to_vec()
}

#[test]
fn many_come_and_go() {
    let Some(_) = busybox() else { return };
    let pod = Pod::start();
    let open = |pod: &Pod| {
        let shim: serde_json::Value =
            serde_json::from_slice(&fs::read(pod.config.run_dir.join("shim.json")).unwrap()).unwrap();
        fs::read_dir(format!("/proc/{}/fd", shim["pid"])).unwrap().count()
    };
    let before = open(&pod);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let pod = &pod;
            scope.spawn(move || {
                for n in 0..8 {
                    let id = format!("c{worker}-{n}");
                    let (state, log) = pod.run(&id, "echo x");
                    assert_eq!((state.exit.unwrap().code, log.as_str()), (0, "x\n"));
                    pod.shim.remove_container(&id).unwrap();
                }
            });
        }
    });
    eventually("descriptors are closed", || open(&pod) <= before);
}
