//! What a pod can ask of its node, through the API: debugging, user namespaces, the host's network and ports, mounts that
//! propagate, an end for want of memory, and room for a hundred.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::machine::{Machine, Pods, busybox};

/// On an agent that lives, and on one that is killed at every step.
fn on_both(test: impl Fn(&Machine)) {
    let Some(()) = busybox() else { return };
    for mortal in [false, true] {
        let mut machine = Machine::start(mortal);
        test(&machine);
        assert_eq!(machine.end() > 0, mortal);
    }
}

fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "command": ["sh", "-c", script]})
}

fn statuses(pod: &Pod) -> Vec<ContainerStatus> {
    let status = pod.status.clone().unwrap_or_default();
    status.container_statuses.into_iter().chain(status.ephemeral_container_statuses).flatten().collect()
}

fn running(pod: Option<&Pod>) -> bool {
    pod.is_some_and(|pod| statuses(pod).iter().all(|c| c.started == Some(true)) && !statuses(pod).is_empty())
}

fn over(pod: Option<&Pod>) -> bool {
    let phase = pod.and_then(|pod| pod.status.as_ref()?.phase.clone());
    matches!(phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// How a container ended, if it has.
fn end(pod: Option<&Pod>, name: &str) -> Option<ContainerStateTerminated> {
    statuses(pod?).into_iter().find(|c| c.name == name)?.state?.terminated
}

fn address(pod: &Pod) -> IpAddr {
    pod.status.as_ref().and_then(|s| s.pod_ip.as_ref()).and_then(|ip| ip.parse().ok()).unwrap()
}

/// What is answered at an address, from the machine's own network; `None`: nobody listens.
fn ask(machine: &Machine, at: SocketAddr) -> Option<String> {
    machine.within(move || {
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(5)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    })
}

/// Asks until the answer is as wanted: rules follow a moment after the pod's status.
fn asked(machine: &Machine, at: SocketAddr, wanted: Option<&str>) {
    let began = std::time::Instant::now();
    while ask(machine, at).as_deref() != wanted {
        assert!(began.elapsed() < Duration::from_secs(20), "{at}: not {wanted:?}\n{}", machine.log());
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn a_debugging_container_sees_its_target() {
    on_both(|machine| {
        for (pod, shared) in [("apart", false), ("together", true)] {
            let containers = [shell("a", "exec sleep 3001"), shell("b", "exec sleep 3002")];
            machine.create(
                pod,
                json!({"shareProcessNamespace": shared, "containers": containers, "terminationGracePeriodSeconds": 0}),
            );
            machine.until(pod, running);
            let mut debug = shell("debug", "ps -o args | grep '^sleep 300' | sort; hostname");
            (debug["image"], debug["targetContainerName"]) = ("trimtab.local/busybox:latest".into(), "a".into());
            debug["imagePullPolicy"] = "Never".into();
            let patch = Patch::Strategic(json!({"spec": {"ephemeralContainers": [debug]}}));
            let pods = machine.pods.clone();
            machine.block_on(async move {
                pods.patch_subresource("ephemeralcontainers", pod, &PatchParams::default(), &patch)
                    .await
                    .map(drop)
                    .unwrap();
            });
            let found = machine.until(pod, |pod| end(pod, "debug").is_some());
            assert_eq!(end(found.as_ref(), "debug").unwrap().exit_code, 0);
            let seen = if shared { "sleep 3001\nsleep 3002\n" } else { "sleep 3001\n" };
            assert_eq!(machine.printed(pod, "debug"), format!("{seen}{pod}\n"));
            assert!(end(found.as_ref(), "a").is_none() && end(found.as_ref(), "b").is_none());
        }
    });
}

#[test]
fn pods_have_user_namespaces_of_their_own() {
    on_both(|machine| {
        let script = "tr -s ' ' < /proc/self/uid_map; touch /v/mine; stat -c %u /v/mine; nc -ll -p 80 -e echo inside";
        for pod in ["u1", "u2"] {
            let mut container = shell("c", script);
            container["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
            let volumes = json!([{"name": "v", "emptyDir": {}}]);
            machine.create(
            pod,
            json!({"hostUsers": false, "containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 0}),
        );
        }
        let mut ranges = BTreeSet::new();
        for name in ["u1", "u2"] {
            let pod = machine.until(name, running).unwrap();
            asked(machine, (address(&pod), 80).into(), Some("inside\n"));
            let printed = machine.printed(name, "c");
            let words: Vec<&str> = printed.split_whitespace().collect();
            let [inside, outside, count, owner] = words.as_slice() else { panic!("{printed}") };
            assert_eq!((*inside, *count, *owner), ("0", "65536", "0"));
            ranges.insert(outside.parse::<u32>().unwrap());
            let volume = machine
                .dir
                .path()
                .join("data/pods")
                .join(pod.metadata.uid.unwrap())
                .join("volumes/kubernetes.io~empty-dir/v");
            assert_eq!(fs::metadata(volume.join("mine")).unwrap().uid(), 0, "on disk it is root's: the mount maps it");
        }
        assert!(ranges.len() == 2 && ranges.iter().all(|first| *first >= 65_536), "{ranges:?}");
    });
}

#[test]
fn the_hosts_network_and_its_ports() {
    on_both(|machine| {
        let host: IpAddr = [192, 168, 7, 1].into();
        machine.create(
            "host",
            json!({"hostNetwork": true, "terminationGracePeriodSeconds": 0,
        "containers": [shell("c", "ip -o link show uplink | wc -l; nc -ll -p 8080 -e echo host")]}),
        );
        let mut ports = shell("c", "nc -ll -p 80 -e echo pod");
        ports["ports"] = json!([{"containerPort": 80, "hostPort": 9090},
        {"containerPort": 53, "hostPort": 9053, "protocol": "UDP"}]);
        let ported = json!({"containers": [ports], "terminationGracePeriodSeconds": 0});
        machine.create("ports", ported.clone());
        let pod = machine.until("host", running).unwrap();
        assert_eq!(address(&pod), host);
        asked(machine, (host, 8080).into(), Some("host\n"));
        assert_eq!(machine.printed("host", "c"), "1\n", "it sees the host's link");
        let pod = machine.until("ports", running).unwrap();
        assert_ne!(address(&pod), host);
        asked(machine, (host, 9090).into(), Some("pod\n"));
        assert_eq!(ask(machine, (host, 80).into()), None, "the pod's own port is not the host's");
        let served = machine.in_pod(&pod, || UdpSocket::bind("0.0.0.0:53").unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            let (_, from) = served.recv_from(&mut buffer).unwrap();
            served.send_to(b"datagram", from).unwrap();
        });
        let said = machine.within(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket.connect((host, 9053)).unwrap();
            socket.send(b"x").unwrap();
            let mut buffer = [0; 64];
            socket.recv(&mut buffer).map(|len| String::from_utf8_lossy(&buffer[..len]).into_owned())
        });
        assert_eq!(said.unwrap(), "datagram");
        // A port can be had once.
        machine.create("second", ported);
        let pod = machine.until("second", over).unwrap();
        assert_eq!(pod.status.unwrap().reason.as_deref(), Some("NodePorts"));
        // From another pod, by the node's address.
        machine.create("client", json!({"restartPolicy": "Never", "containers": [shell("c", "nc 192.168.7.1 9090")]}));
        machine.until("client", over);
        assert_eq!(machine.printed("client", "c"), "pod\n");
        machine.delete("ports", 0);
        machine.until("ports", |pod| pod.is_none());
        asked(machine, (host, 9090).into(), None);
    });
}

fn on_host(program: &str, args: &[&str]) {
    assert!(Command::new(program).args(args).status().unwrap().success(), "{program} {args:?}");
}

#[test]
fn mounts_propagate_as_a_pod_asks() {
    on_both(|machine| {
        let volume = machine.dir.path().join("volume");
        let at = |name: &str| volume.join(name).display().to_string();
        fs::create_dir(&volume).unwrap();
        on_host("mount", &["-t", "tmpfs", "x", &at("")]);
        on_host("mount", &["--make-shared", &at("")]);
        for dir in ["late", "up"] {
            fs::create_dir(volume.join(dir)).unwrap();
        }
        let await_file = |name: &str| format!("while [ ! -e /v/{name} ]; do sleep 0.05; done");
        let look = format!("{}; echo $(ls /v/late /v/up)", await_file("go"));
        let slave = format!("{look}; touch /v/looked");
        let container = |name: &str, script: &str, propagation: &str| {
            let mut container = shell(name, script);
            container["volumeMounts"] = json!([{"name": "v", "mountPath": "/v", "mountPropagation": propagation}]);
            container["securityContext"] = json!({"privileged": propagation == "Bidirectional"});
            container
        };
        // A container that starts later would have the mount from the beginning, and one that looks later would not see it.
        let (begin, looked) = (await_file("begin"), await_file("looked"));
        let both = format!("{begin}; mount -t tmpfs y /v/up; touch /v/up/inside; {look}; {looked}; umount /v/up");
        machine.create(
            "p",
            json!({"restartPolicy": "Never", "volumes": [{"name": "v", "hostPath": {"path": volume}}], "containers": [
                container("none", &look, "None"), container("in", &slave, "HostToContainer"),
                container("both", &both, "Bidirectional"),
            ]}),
        );
        machine.until("p", running);
        fs::write(volume.join("begin"), "").unwrap();
        let began = std::time::Instant::now();
        while !volume.join("up/inside").exists() {
            assert!(began.elapsed() < Duration::from_secs(20), "{}", machine.log());
            std::thread::park_timeout(Duration::from_millis(20));
        }
        on_host("mount", &["-t", "tmpfs", "x", &at("late")]);
        fs::write(volume.join("late/seen"), "").unwrap();
        fs::write(volume.join("go"), "").unwrap();
        machine.until("p", over);
        assert_eq!(machine.printed("p", "none"), "/v/late: /v/up:\n");
        assert_eq!(machine.printed("p", "in"), "/v/late: seen /v/up: inside\n");
        assert_eq!(machine.printed("p", "both"), "/v/late: seen /v/up: inside\n");
        assert!(!volume.join("up/inside").exists(), "what it has unmounted is unmounted");
        on_host("umount", &["-R", &at("")]);
    });
}

#[test]
fn one_container_runs_out_of_memory() {
    on_both(|machine| {
        let limited = |name: &str, script: &str| {
            let mut container = shell(name, script);
            container["resources"] = json!({"limits": {"memory": "16Mi"}});
            container
        };
        let hog = limited("hog", "x=$(yes | head -c 100000000); echo survived");
        let containers = [hog, limited("other", "exec sleep 1000")];
        machine.create(
            "p",
            json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": containers}),
        );
        let pod = machine.until("p", |pod| end(pod, "hog").is_some());
        let ended = end(pod.as_ref(), "hog").unwrap();
        assert_eq!((ended.reason.as_deref(), ended.exit_code), (Some("OOMKilled"), 137));
        let pod = pod.unwrap();
        let other = statuses(&pod).into_iter().find(|c| c.name == "other").unwrap();
        assert_eq!((other.ready, pod.status.unwrap().phase.as_deref()), (true, Some("Running")));
    });
}

#[test]
fn a_hundred_pods_at_once() {
    const PODS: usize = 100;
    let Some(()) = busybox() else { return };
    let machine = Machine::start(false);
    let began = std::time::Instant::now();
    for number in 0..PODS {
        let container = shell("c", "exec nc -ll -p 80 -e hostname");
        machine.create(&format!("p{number}"), json!({"terminationGracePeriodSeconds": 0, "containers": [container]}));
    }
    let all = machine.until_all(|pods| pods.len() == PODS && pods.values().all(|pod| running(Some(pod))));
    println!("{PODS} pods run after {:?}", began.elapsed());
    let addresses: BTreeSet<IpAddr> = all.values().map(address).collect();
    assert_eq!(addresses.len(), PODS, "each has an address of its own");
    for (name, pod) in &all {
        asked(&machine, (address(pod), 80).into(), Some(&format!("{name}\n")));
        assert_eq!(statuses(pod)[0].restart_count, 0);
    }
    let pods = machine.pods.clone();
    let all = kube::api::ListParams::default();
    machine.block_on(async move { pods.delete_collection(&Default::default(), &all).await.map(drop).unwrap() });
    machine.until_all(Pods::is_empty);
    machine.clean();
}
