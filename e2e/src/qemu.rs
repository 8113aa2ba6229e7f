//! One QEMU machine with Debian's cloud kernel: what it is booted from, and the way to switch it on.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cluster::last_lines;

const DISK: &str = "2G";
/// Debian's `qemu-system-common` has it; it is not on PATH.
const VIRTIOFSD: &str = "/usr/lib/qemu/virtiofsd";

/// What machines of one kind are booted from: a kernel, its first files, and the tree that goes on their disks.
#[derive(Debug)]
pub struct Boot {
    dir: PathBuf,
    release: String,
    purpose: String,
}

/// A machine that is switched on, or what serves one. Its power is cut when it is dropped.
#[derive(Debug)]
pub struct Power(Child);

impl Drop for Power {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Boot {
    /// Makes them in a folder. `purpose` names the script of `e2e/machine` that they go on with when they have begun;
    /// `files` are programs to be there, with the place where each is to lie.
    pub fn build(dir: &Path, purpose: &str, files: &[(PathBuf, String)]) -> Result<Self> {
        let release = newest_cloud_kernel()?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("machine/build.sh");
        let mut build = Command::new("bash");
        build.arg(script).arg(dir).arg(&release).arg(purpose);
        build.args(files.iter().map(|(file, place)| format!("{}={place}", file.display())));
        run_to_end(&mut build)?;
        Ok(Self { dir: dir.to_owned(), release, purpose: purpose.to_owned() })
    }

    /// The tree that disks are made of.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// Makes the disk of a machine.
    pub fn make_disk(&self, name: &str) -> Result<()> {
        run_to_end(Command::new("mkfs.ext4").args(["-q", "-d"]).arg(self.root()).arg(self.disk(name)).arg(DISK))
    }

    fn disk(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.img"))
    }

    /// Where a machine's console goes.
    pub fn console(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// Adds a machine to a command that is empty so far, or that runs another: its disk, `memory_mib` of memory, and what
    /// its kernel is told beside the usual.
    pub fn describe<'a>(&self, command: &'a mut Command, name: &str, memory_mib: u32, told: &str) -> &'a mut Command {
        command.args(["-accel", "tcg", "-cpu", "max", "-nodefaults", "-display", "none", "-no-reboot"]);
        command.args(["-m", &memory_mib.to_string(), "-device", "virtio-rng-pci"]);
        command.arg("-kernel").arg(format!("/boot/vmlinuz-{}", self.release));
        command.arg("-initrd").arg(self.dir.join("initrd"));
        // A machine beside much other work may think that its clock does not tick.
        let words = "console=ttyS0 quiet panic=1 no_timer_check rw";
        command.arg("-append").arg(format!("{words} tt.purpose={} {told}", self.purpose));
        command.arg("-drive").arg(format!("file={},format=raw,if=virtio", self.disk(name).display()));
        command.arg("-serial").arg(format!("file:{}", self.console(name).display())).args(["-serial", "stdio"])
    }

    /// Lets a machine of `memory_mib` read this one's files, as the virtiofs `host`, while what is returned is kept (root).
    pub fn share_files(&self, command: &mut Command, memory_mib: u32) -> Result<Power> {
        let socket = self.dir.join("files");
        let listener = UnixListener::bind(&socket)?;
        // Read-only here, whatever becomes of the machine.
        let script = "mount -o remount,bind,ro / && exec \"$@\"";
        let mut serve = Command::new("unshare");
        serve.args(["--mount", "sh", "-c", script, "sh", VIRTIOFSD, "--fd=0", "--rlimit-nofile=0"]);
        serve.args(["-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot"]);
        serve.stdin(OwnedFd::from(listener)).stderr(fs::File::create(self.dir.join("files.log"))?);
        let serving = Power(serve.spawn().context("start unshare (package util-linux)")?);
        let memory = format!("memory-backend-memfd,id=memory,size={memory_mib}M,share=on");
        command.args(["-object", &memory, "-numa", "node,memdev=memory"]);
        command.arg("-chardev").arg(format!("socket,id=files,path={}", socket.display()));
        command.args(["-device", "vhost-user-fs-pci,chardev=files,tag=host"]);
        Ok(serving)
    }

    /// Switches a machine on and prints what it says, up to a line `status` and a number: whether that is 0. An error when
    /// it says nothing for as long as `silence`.
    pub fn watch(&self, command: &mut Command, name: &str, silence: Duration) -> Result<bool> {
        let (_power, lines) = switch_on(command)?;
        loop {
            let Ok(line) = lines.recv_timeout(silence) else {
                bail!("the machine says no more; its console:\n{}", last_lines(&self.console(name)));
            };
            match line.trim().strip_prefix("status ") {
                Some(status) => return Ok(status == "0"),
                None => println!("{}", line.trim_end()),
            }
        }
    }
}

/// Switches a machine on. Returns what it says on its second serial line, too.
pub fn switch_on(command: &mut Command) -> Result<(Power, Receiver<String>)> {
    let mut qemu = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start qemu-system-x86_64")?;
    let stdout = qemu.stdout.take().context("no standard output")?;
    let (sender, lines) = channel();
    thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
    Ok((Power(qemu), lines))
}

fn run_to_end(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// The newest kernel of Debian's `linux-image-cloud-amd64`.
fn newest_cloud_kernel() -> Result<String> {
    let names = fs::read_dir("/boot")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let kernels = names.filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned()));
    let newest = kernels.filter(|release| release.contains("-cloud-")).max();
    newest.context("no kernel of machines in /boot: install linux-image-cloud-amd64")
}
