//! `cargo xtask conformance engines`: podman, also that of an ordinary user, and containerd, as Debian has them, with
//! `trimtab oci` in the place of runc.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::packages;

/// What is told, a line of shell, and what it prints (a part of it) when all is well.
type Step = (&'static str, &'static str, &'static str);

/// Limits that every container gets: podman's own are above what a machine without CAP_SYS_RESOURCE may give.
const CONTAINERS_CONF: &str = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n";

/// Without the CRI, which wants a network.
const CONTAINERD_CONF: &str = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";

/// Before the steps, in a mount namespace of their own: a folder of cgroups that engines may add directories to.
const WORLD: &str = "
    set -e
    mkdir cgroup && mount -t tmpfs tmpfs cgroup
    for path in /sys/fs/cgroup/*; do
        mountpoint -q $path && mkdir cgroup/${path##*/} && mount --bind $path cgroup/${path##*/}
    done
    if mountpoint -q cgroup/cpu || mountpoint -q cgroup/memory; then mount --move cgroup /sys/fs/cgroup; fi
    for file in passwd group subuid subgid; do cp /etc/$file $file; mount --bind $file /etc/$file; done
    echo user:x:54321:54321::/:/bin/sh >> passwd; echo user:x:54321: >> group
    echo user:700000:65536 | tee -a subuid >> subgid
    echo ready; exec cat";

/// Before each step.
const WORDS: &str = "
    podman() {
        CONTAINERS_CONF=$PWD/containers.conf command podman --root $PWD/images --runroot $PWD/run --runtime $OCI \
            --cgroup-manager cgroupfs --storage-driver vfs --events-backend file \"$@\"
    }
    v2=$(findmnt -n -o TARGET -t cgroup2 | tail -n 1) group=trimtab-${PWD##*/}
    user() {
        unshare --mount sh -c 'mount --bind $0 /sys/fs/cgroup; echo $$ > /sys/fs/cgroup/$1/caller/cgroup.procs; shift
            exec setpriv --reuid=54321 --regid=54321 --clear-groups \"$@\"' $v2 $group \
            env HOME=$PWD/home XDG_RUNTIME_DIR=$PWD/home/run \"$@\"
    }
    rootless() {
        user podman --runtime $OCI --cgroup-manager cgroupfs --storage-driver overlay --events-backend file \"$@\"
    }
    ctr() { command ctr --address $PWD/containerd.sock \"$@\"; }
    run=\"run --snapshotter native --runc-binary $OCI\" image=localhost/busybox:latest
    exec 2>&1
";

const STEPS: &[Step] = &[
    (
        "an image of busybox",
        "mkdir -p files/bin files/etc files/tmp && cp /bin/busybox files/bin && chroot files /bin/busybox --install -s /bin &&
         echo root:x:0:0::/:/bin/sh > files/etc/passwd && tar -C files -cf files.tar . && podman import files.tar busybox",
        "sha256:",
    ),
    ("podman run", "podman run --rm --network none busybox echo hello", "hello"),
    ("podman run: exit code", "podman run --rm --network none busybox sh -c 'exit 7'; echo code $?", "code 7"),
    (
        "podman run: limits, user, read-only root, tmpfs, volume",
        "podman run --rm --network none --memory 64m --pids-limit 50 --cpus 0.5 --user 7:8 --read-only --tmpfs /scratch \
         --volume $PWD/files/etc:/seen:ro busybox sh -c 'exec 2>&1; id -u; id -g; touch /x; touch /scratch/y && cat /seen/passwd' | tr '\\n' ' '",
        "7 8 touch: /x: Read-only file system root:x:0:0::/:/bin/sh",
    ),
    ("podman run: terminal", "podman run --rm -t --network none busybox tty", "/dev/pts/0"),
    ("podman run -d", "podman run -d --name one --network none busybox sleep 1000 && podman inspect one --format '{{.State.Status}}'", "running"),
    ("podman exec", "podman exec one sh -c 'echo inside; exit 5'; echo code $?", "inside\ncode 5"),
    ("podman pause", "podman pause one && podman inspect one --format '{{.State.Status}}'", "paused"),
    ("podman unpause", "podman unpause one && podman exec one echo again", "again"),
    ("podman stats", "podman stats --no-stream --no-reset --format '{{.Name}} {{.PIDS}}' one", "one 1"),
    ("podman top", "podman top one pid args", "sleep 1000"),
    ("podman knows its runtime", "[ $(podman inspect one --format '{{.OCIRuntime}}') = $OCI ] && echo ours", "ours"),
    ("podman kill", "podman kill one && podman wait one", "137"),
    ("podman rm", "podman rm one && podman ps -aq | wc -l", "0"),
    ("podman stop", "podman run -d --name two --network none busybox sleep 1000 && podman stop -t 0 two && podman rm two", "two"),
    (
        "podman pod create",
        "podman pod create --name pod --network none --infra-image busybox --infra-command 'sleep 1000'",
        "",
    ),
    ("podman run --pod", "podman run -d --pod pod --name three busybox sleep 1000 && podman pod ps --format '{{.Status}}'", "Running"),
    ("podman exec in a pod", "podman exec three hostname", "pod"),
    ("podman run --rm --pod", "podman run --rm --pod pod busybox hostname", "pod"),
    // Podman cannot remove a directory that it made for a controller which this host has not mounted.
    ("podman pod rm", "podman pod rm -f -t 0 pod > /dev/null; echo $(podman pod ps -q; podman ps -aq) nothing", "nothing"),
    (
        "containerd starts",
        "podman save -o image.tar $image > /dev/null; containerd --config $PWD/containerd.toml --address $PWD/containerd.sock \
         --root $PWD/contents --state $PWD/tasks --log-level error > containerd.log 2>&1 & echo $! > containerd.pid
         timeout 20 sh -c 'until [ -S containerd.sock ]; do sleep 0.1; done' && ctr version",
        "Server:",
    ),
    ("ctr image import", "ctr image import image.tar", "done"),
    ("ctr run", "ctr $run --rm $image first sh -c 'echo hello; exit 6'; echo code $?", "hello\ncode 6"),
    ("ctr run -d", "ctr $run -d $image second sleep 1000 && ctr task ls", "RUNNING"),
    ("ctr task exec", "ctr task exec --exec-id x second sh -c 'echo inside; exit 4'; echo code $?", "inside\ncode 4"),
    ("ctr task pause", "ctr task pause second && ctr task ls", "PAUSED"),
    ("ctr task resume", "ctr task resume second && ctr task ls", "RUNNING"),
    ("ctr task kill", "ctr task kill -s KILL second && ctr task rm second; ctr container rm second && ctr container ls -q | wc -l", "0"),
    (
        "an ordinary user with a cgroup of his own",
        "mkdir -p home/run home/files $v2/$group/caller && cp files.tar home && chown -R 54321:54321 home $v2/$group &&
         rootless import home/files.tar busybox",
        "sha256:",
    ),
    ("rootless podman run", "rootless run --rm --network none busybox sh -c 'id -u; exit 7'; echo code $?", "0\ncode 7"),
    (
        "rootless podman run: user, read-only root, tmpfs, volume",
        "rootless run --rm --network none --user 7:8 --read-only --tmpfs /scratch --volume $PWD/home/files:/files busybox \
         sh -c 'exec 2>&1; id -u; touch /x; touch /scratch/y; touch /files/z' | tr '\\n' ' '
         rootless run --rm --network none --volume $PWD/home/files:/files busybox touch /files/own && stat -c %u home/files/own",
        "7 touch: /x: Read-only file system touch: /files/z: Permission denied 54321",
    ),
    ("rootless podman run: his own id", "rootless run --rm --network none --userns keep-id busybox id -u", "54321"),
    (
        "rootless podman run: slirp4netns, sysctl",
        "rootless run --rm --network slirp4netns --sysctl net.ipv4.ip_forward=1 busybox \
         sh -c 'cat /proc/sys/net/ipv4/ip_forward; ip -o -4 address show tap0'",
        "1\n2: tap0    inet 10.0.2.100/24",
    ),
    (
        "rootless podman run: an overlay over a volume",
        "rootless run --rm --network none --volume $PWD/home/files:/files:O busybox sh -c 'touch /files/new; ls /files' | tr '\\n' ' '
         ls home/files",
        "new own own\n",
    ),
    ("rootless podman run -d", "rootless run -d --name one --network none busybox sleep 1000 > /dev/null && ls -d $v2/$group/*/ | wc -l", "2\n"),
    ("rootless podman exec", "rootless exec one sh -c 'echo inside; exit 5'; echo code $?; rootless exec --user 9 one id -u", "inside\ncode 5\n9"),
    ("rootless podman exec: terminal", "rootless exec -t one tty", "/dev/pts/0"),
    ("rootless podman pause", "rootless pause one && rootless inspect one --format '{{.State.Status}}'", "paused"),
    ("rootless podman unpause", "rootless unpause one && rootless exec one echo again", "again"),
    ("rootless podman run --pid", "rootless run --rm --network none --pid container:one busybox ps", "sleep 1000"),
    ("rootless podman kill", "rootless kill one && rootless wait one && rootless rm one && ls $v2/$group | grep -v '[.]'", "137\none\ncaller\n"),
    (
        "rootless podman pod",
        "rootless pod create --name pod --network none --infra-image busybox --infra-command 'sleep 1000' > /dev/null &&
         rootless run -d --pod pod --name three busybox sleep 1000 > /dev/null && rootless exec three hostname",
        "pod",
    ),
    ("rootless podman pod rm", "rootless pod rm -f -t 0 pod > /dev/null; echo $(rootless pod ps -q; rootless ps -aq) nothing", "nothing"),
    (
        "the user leaves",
        "kill -KILL $(cat home/run/libpod/tmp/pause.pid); echo 1 > $v2/$group/cgroup.kill
         timeout 20 sh -c \"until rmdir $v2/$group/caller $v2/$group; do sleep 0.1; done\" 2> /dev/null && echo gone",
        "gone",
    ),
];

/// Tells the story to its end; an error if a step prints something else.
pub(crate) fn run(runtime: &Path, folder: &Path) -> Result<()> {
    packages::install_engines()?;
    std::fs::write(folder.join("containers.conf"), CONTAINERS_CONF)?;
    std::fs::write(folder.join("containerd.toml"), CONTAINERD_CONF)?;
    let mut world = world(folder)?;
    let failed: Vec<bool> = STEPS.iter().map(|step| tell(step, &world, runtime, folder)).collect::<Result<_>>()?;
    let _ = Command::new("sh").args(["-c", "kill $(cat containerd.pid)"]).current_dir(folder).status();
    drop(world.stdin.take());
    world.wait()?;
    let failed = failed.into_iter().filter(|failed| *failed).count();
    println!("{} passed, {failed} failed", STEPS.len() - failed);
    if failed == 0 { Ok(()) } else { bail!("{failed} steps failed") }
}

/// A process that holds a mount namespace until its input ends.
fn world(folder: &Path) -> Result<Child> {
    let mut world = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", WORLD])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start unshare (package util-linux)")?;
    let mut line = String::new();
    let output = world.stdout.take().context("no output")?;
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)?;
    if line == "ready\n" { Ok(world) } else { bail!("no mount namespace") }
}

/// Tells one step; whether it failed.
fn tell((what, line, wanted): &Step, world: &Child, runtime: &Path, folder: &Path) -> Result<bool> {
    let output = Command::new("nsenter")
        .args(["--mount", "--wd", "--target", &world.id().to_string(), "timeout", "60", "bash", "-c"])
        .arg(format!("{WORDS}{line}"))
        .env("OCI", runtime)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .context("start nsenter (package util-linux)")?;
    let said = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let good = said.contains(wanted);
    println!("{} {what}", if good { "ok    " } else { "FAILED" });
    if !good {
        println!("  wanted {wanted:?}, said {said:?}");
    }
    Ok(!good)
}
