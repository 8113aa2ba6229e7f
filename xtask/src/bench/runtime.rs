//! `runtime`: what callers of a runtime's command line wait for beside a whole run (P18), and what a pod's shim keeps.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::container::CONFIG;
use super::host::{Host, samples};
use super::row::{Contender, Figure, Row, percentiles};

pub(super) const ROW: Row = Row {
    id: "runtime",
    what: "create and start, exec of /bin/true, 100 containers run at once, cgroups on; memory of a shim (target: 1.5 MB)",
    once: false,
    contenders,
};

const RUNS: &str = "15";
const AT_ONCE: usize = 100;

fn contenders(host: &Host) -> Result<Vec<Contender<'_>>> {
    bundle(&host.dir.join("lasting"))?;
    let mut runtimes = vec![("trimtab oci".to_owned(), vec![host.trimtab().display().to_string(), "oci".into()])];
    for name in ["runc", "crun"] {
        runtimes.extend(host.peer(name).map(|path| (name.to_owned(), vec![path.display().to_string()])));
    }
    let mut all: Vec<Contender<'_>> =
        runtimes.into_iter().map(|(name, words)| Contender::new(name, move || turn(host, &words))).collect();
    all.push(Contender::new("trimtab's shim", || shim(host)));
    Ok(all)
}

/// The bundle of P18 with a program that stays, and a cgroup for each container.
fn bundle(dir: &Path) -> Result<()> {
    super::container::bundle(dir)?;
    fs::copy("/bin/busybox", dir.join("rootfs/bin/sleep"))?;
    let config = CONFIG.replace("\"/bin/true\"", "\"/bin/sleep\", \"1000\"");
    let config = config.replace("\"cgroupsPath\": \"/trimtab-bench/c\",", "");
    Ok(fs::write(dir.join("config.json"), config)?)
}

/// As P18: in a mount namespace without the v2 mount of a hybrid host.
fn turn(host: &Host, runtime: &[String]) -> Result<Vec<Figure>> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"", "sh"]);
    command.arg(std::env::current_exe()?).args(["lives", RUNS]).arg(host.dir.join("lasting"));
    let samples = samples(command.args(runtime).arg("--root").arg(host.dir.join("containers")))?;
    let of = |what: &str| samples.get(what).with_context(|| format!("no {what}"));
    let median = |name: &str, what: &str| Ok(percentiles(name, of(what)?).into_iter().take(1));
    let figures: Vec<Figure> = median("create, start", "started")?.chain(median("exec", "exec")?).collect::<Vec<_>>();
    let all: Result<_> = median("100 at once", "hundred");
    Ok(figures.into_iter().chain(all?).collect())
}

fn shim(host: &Host) -> Result<Vec<Figure>> {
    let samples = samples(Command::new(host.driver("starts")).arg(RUNS).env("TRIMTAB_PROGRAM", host.trimtab()))?;
    let running = percentiles("start", samples.get("running").context("no runs")?).into_iter().take(1);
    let bytes = samples.get("pss").and_then(|pss| pss.first()).context("no memory")?;
    Ok(running.chain([Figure::new("shim MiB", bytes / f64::from(1 << 20))]).collect())
}

/// Leads containers of a bundle through their lives; prints `started|exec NANOSECONDS` for each and `hundred NANOSECONDS`
/// for as many as that at once.
#[derive(Args)]
pub(crate) struct Lives {
    /// How many.
    count: usize,
    /// The bundle.
    bundle: OsString,
    /// The runtime's program and the options before its command.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    runtime: Vec<OsString>,
}

/// A command that fails ends it all.
pub(crate) fn lives(lives: &Lives) -> Result<()> {
    for n in 0..lives.count {
        let id = format!("life{n}");
        let start = Instant::now();
        lives.run(&["create", "--bundle"], &[&lives.bundle, &id.as_str().into()])?;
        lives.run(&["start", &id], &[])?;
        println!("started {}", start.elapsed().as_nanos());
        let start = Instant::now();
        lives.run(&["exec", &id, "/bin/true"], &[])?;
        println!("exec {}", start.elapsed().as_nanos());
        lives.run(&["delete", "--force", &id], &[])?;
    }
    let ids: Vec<OsString> = (0..AT_ONCE).map(|n| format!("many{n}").into()).collect();
    let start = Instant::now();
    let begin = |id: &OsString| lives.spawn(&["run", "--detach", "--bundle"], &[&lives.bundle, id]);
    let begun: Vec<Child> = ids.iter().map(begin).collect::<Result<_>>()?;
    let ended: Vec<bool> = begun.into_iter().map(|mut child| Ok(child.wait()?.success())).collect::<Result<_>>()?;
    let taken = start.elapsed();
    for id in &ids {
        lives.run(&["delete", "--force"], &[id])?;
    }
    ensure!(ended.iter().all(|good| *good), "not all of {AT_ONCE} containers ran");
    println!("hundred {}", taken.as_nanos());
    Ok(())
}

impl Lives {
    fn spawn(&self, words: &[&str], more: &[&OsString]) -> Result<Child> {
        let (program, options) = self.runtime.split_first().context("no runtime")?;
        let mut command = Command::new(program);
        command.args(options).args(words).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().with_context(|| format!("start {}", program.display()))
    }

    fn run(&self, words: &[&str], more: &[&OsString]) -> Result<()> {
        let status = self.spawn(words, more)?.wait()?;
        ensure!(status.success(), "{words:?}: {status}");
        Ok(())
    }
}
