//! `cargo xtask conformance`: other people's suites against what is ours. They come from their own repositories and are
//! built there; docs/runtime-conformance.md says which, and what the failures mean.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Subcommand, ValueEnum};

use crate::run::{built, cargo};
use crate::{engines, machine};

/// What is asked to conform.
#[derive(Subcommand)]
pub(crate) enum Conformance {
    /// The OCI command line (root): a suite, one group at a time, each with a time limit.
    Oci {
        #[arg(long)]
        suite: Suite,
        /// Where the suite lies, built.
        #[arg(long)]
        from: PathBuf,
        /// Only groups whose name contains one of these, with commas between them.
        #[arg(long, default_value = "")]
        only: String,
        /// A program that is called as runc is, instead of ours.
        #[arg(long)]
        runtime: Option<PathBuf>,
        /// On a QEMU machine with Debian's kernel and cgroup v2 alone (installs them), which has this one's files.
        #[arg(long)]
        machine: bool,
        /// Time limits are so many times as long.
        #[arg(long, default_value_t = 1)]
        patience: u32,
    },
    /// The runtime's own tests in QEMU machines with Debian's kernel (root; installs them): all of them with nothing but
    /// cgroup v2, those of systemd's cgroups with systemd on v2, and on v1.
    Machine {
        /// One machine alone: v2, selinux, systemd or systemd-v1.
        #[arg(default_value = "")]
        machine: String,
        /// Only tests in whose names this is.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Debian's podman and containerd with the OCI command line as their runtime (root; installs them).
    Engines {
        /// A program that is called as runc is, instead of ours.
        #[arg(long)]
        runtime: Option<PathBuf>,
    },
}

/// Whose suite it is.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// youki's tests/contest: a folder with `contest`, `runtimetest` (static) and `bundle.tar.gz`.
    Contest,
    /// crun's tests/*.py: a checkout with tests/init; needs Python 3.12 or later, with libmount.
    Crun,
    /// runc's tests/integration: a checkout with tests/cmd/_bin and images in testdata; needs bats.
    Runc,
}

/// Seconds that a group may take; of crun's, where a case is run by itself, a case.
const LIMITS: [(Suite, u32); 3] = [(Suite::Contest, 300), (Suite::Crun, 120), (Suite::Runc, 900)];

/// How long a group may take to end when its last case has been told of.
const LAST_CASE: Duration = Duration::from_secs(30);

/// How many times as long things take in an emulated machine, at most.
const EMULATION: &str = "4";

/// A group with a case that panics on hosts with v1 cgroups, which would take the others along: these, and the case.
const PANICKING: (&str, &str, &str) = (
    "exec",
    "exec::preserve_fds_test,ignore_paused_test,no_capabilities_test,unset_bounding_capabilities_test,new_privileges_test,\
     some_capabilities_test,capabilities_by_flag_test_case1,capabilities_by_flag_test_case2,mount_test",
    "cgroup_test",
);

/// A suite that is run.
struct Run<'a> {
    suite: Suite,
    /// Where it lies, absolute.
    from: &'a Path,
    /// What it calls as it would call runc.
    runtime: &'a Path,
    /// Limits are so many times as long.
    patience: u32,
}

/// What became of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

/// One case of a suite, and what became of it.
struct Case {
    verdict: Verdict,
    name: String,
    /// Why it was skipped, where the suite says it.
    why: String,
}

impl Case {
    fn new(verdict: Verdict, name: &str) -> Self {
        Self { verdict, name: name.to_owned(), why: String::new() }
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, why, .. } = self;
        if why.is_empty() { write!(f, "{name}") } else { write!(f, "{name} ({why})") }
    }
}

/// Runs a suite and prints what passed, failed and was skipped, with names. Failures are told, not an error.
pub(crate) fn run(what: &Conformance) -> Result<()> {
    match what {
        Conformance::Oci { suite, from, only, runtime, machine, patience } => {
            let from = from.canonicalize().with_context(|| format!("no folder {}", from.display()))?;
            with_runtime(runtime.as_deref(), |runtime, _| match machine {
                true => run_in_machine(*suite, &from, only, runtime),
                false => run_suite(&Run { suite: *suite, from: &from, runtime, patience: *patience }, only),
            })
        }
        Conformance::Engines { runtime } => with_runtime(runtime.as_deref(), engines::run),
        Conformance::Machine { machine, only } => machine::run(machine, only),
    }
}

/// Does something with the program that is to be called as runc is, and a folder for the time being.
fn with_runtime(runtime: Option<&Path>, work: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("trimtab-conformance-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let runtime = match runtime {
        Some(runtime) => runtime.canonicalize()?,
        None => ours(&folder)?,
    };
    let done = work(&runtime, &folder);
    std::fs::remove_dir_all(&folder)?;
    done
}

/// Does what we were told to in a machine, which has us and the suite among its files.
fn run_in_machine(suite: Suite, from: &Path, only: &str, runtime: &Path) -> Result<()> {
    let suite = suite.to_possible_value().context("a suite without a name")?;
    let mut line = Command::new(std::env::current_exe()?);
    line.args(["conformance", "oci", "--patience", EMULATION, "--suite", suite.get_name(), "--only", only]);
    machine::command(from, line.arg("--from").arg(from).arg("--runtime").arg(runtime))
}

fn run_suite(run: &Run<'_>, only: &str) -> Result<()> {
    let mut all: BTreeMap<Verdict, Vec<String>> = BTreeMap::new();
    for group in
        groups(run.suite, run.from)?.into_iter().filter(|group| only.split(',').any(|part| group.contains(part)))
    {
        let (cases, ended) = run_group(run, &group)?;
        let count = |wanted| cases.iter().filter(|case| case.verdict == wanted).count();
        let (passed, failed, skipped) = (count(Verdict::Passed), count(Verdict::Failed), count(Verdict::Skipped));
        let note = if ended { "" } else { "  CUT SHORT" };
        println!("{group}: {passed} passed, {failed} failed, {skipped} skipped{note}");
        for case in cases {
            all.entry(case.verdict).or_default().push(format!("{group}: {case}"));
        }
    }
    for (verdict, title) in [(Verdict::Failed, "failed"), (Verdict::Skipped, "skipped")] {
        println!("\n{title}:");
        all.get(&verdict).into_iter().flatten().for_each(|name| println!("  {name}"));
    }
    let count = |verdict| all.get(&verdict).map_or(0, Vec::len);
    let (passed, failed, skipped) = (count(Verdict::Passed), count(Verdict::Failed), count(Verdict::Skipped));
    println!("\n{passed} passed, {failed} failed, {skipped} skipped, of {}", passed + failed + skipped);
    Ok(())
}

/// Our command line as one program, which is what suites call.
fn ours(folder: &Path) -> Result<PathBuf> {
    let built = built(cargo().args(["build", "--locked", "--package", "runtime-core", "--example", "runtime"]))?;
    // A copy: the suite goes on while somebody builds.
    let copy = folder.join("runtime");
    std::fs::copy(&built.first().context("cargo tells of no program")?.program, &copy)?;
    let program = folder.join("oci");
    std::fs::write(&program, format!("#!/bin/sh\nexec {} oci \"$@\"\n", copy.display()))?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    Ok(program)
}

/// The names of a suite's groups.
fn groups(suite: Suite, from: &Path) -> Result<Vec<String>> {
    let files = |folder: &str, start: &str, end: &str| -> Result<Vec<String>> {
        let folder = from.join(folder);
        let entries = std::fs::read_dir(&folder).with_context(|| format!("no folder {}", folder.display()))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| name.starts_with(start) && name.ends_with(end)).collect();
        names.sort();
        Ok(names)
    };
    match suite {
        Suite::Crun => files("tests", "test_", ".py"),
        Suite::Runc => files("tests/integration", "", ".bats"),
        Suite::Contest => {
            let output =
                Command::new(from.join("contest")).arg("list").current_dir(from).output().context("start contest")?;
            Ok(String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim().to_owned()).collect())
        }
    }
}

/// The cases of a group that are run each by itself, since one that hangs would take the others along. Nothing: the
/// group is run whole.
fn cases_of(suite: Suite, from: &Path, group: &str) -> Result<Vec<String>> {
    if suite != Suite::Crun {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(from.join("tests").join(group))?;
    Ok(crun_names(&text))
}

/// The keys of a test file's dictionary `all_tests`.
fn crun_names(text: &str) -> Vec<String> {
    let (_, table) = text.split_once("\nall_tests").unwrap_or_default();
    let name = |line: &str| Some(line.trim().strip_prefix('"')?.split_once('"')?.0.to_owned());
    table.lines().filter_map(name).collect()
}

/// The command of one group or case, in the suite's folder.
fn line_of(suite: Suite, runtime: &Path, group: &str, case: &str) -> String {
    let runtime = runtime.display();
    match suite {
        Suite::Contest => format!("./contest run --runtime {runtime} --runtimetest ./runtimetest -t {group}"),
        // Names are separated by blanks, and some have blanks in them.
        Suite::Crun if case.is_empty() || case.contains(' ') => {
            format!("INIT=$PWD/tests/init OCI_RUNTIME={runtime} python3 tests/{group}")
        }
        Suite::Crun => {
            format!("INIT=$PWD/tests/init OCI_RUNTIME={runtime} RUN_TESTS={case} python3 tests/{group}")
        }
        Suite::Runc => format!("RUNC={runtime} bats -t tests/integration/{group}"),
    }
}

/// Runs a group: its cases, and whether it came to its end.
fn run_group(run: &Run<'_>, group: &str) -> Result<(Vec<Case>, bool)> {
    let (panicking, others, case) = PANICKING;
    let v2_alone = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if run.suite == Suite::Contest && group == panicking && !v2_alone {
        let (mut cases, ended) = run_once(run, others, group, "")?;
        cases.push(Case::new(Verdict::Failed, case));
        return Ok((cases, ended));
    }
    let names = cases_of(run.suite, run.from, group)?;
    if names.is_empty() {
        return run_once(run, group, group, "");
    }
    let mut cases = Vec::new();
    for name in names {
        let (found, _) = run_once(run, group, group, &name)?;
        // None within its time is a failure too.
        let case = found.into_iter().find(|case| case.name == name);
        cases.push(case.unwrap_or_else(|| Case::new(Verdict::Failed, &name)));
    }
    Ok((cases, true))
}

/// Runs what is wanted of a group, or one case: the cases that are told of, and whether these are all.
fn run_once(run: &Run<'_>, wanted: &str, group: &str, case: &str) -> Result<(Vec<Case>, bool)> {
    let line = line_of(run.suite, run.runtime, wanted, case);
    // A terminal, as tests of terminals want one; mounts of its own, shared as they are on hosts with systemd; nothing of
    // ours but the three streams.
    const CLOSE: &str =
        "for fd in /proc/self/fd/*; do fd=${fd##*/}; [ $fd -lt 3 ] || eval \"exec $fd>&-\"; done 2>/dev/null";
    let limit = LIMITS.iter().find(|(of, _)| *of == run.suite).map_or(900, |(_, limit)| *limit);
    let limit = limit.saturating_mul(run.patience).to_string();
    let mut child = Command::new("unshare")
        .args(["--mount", "--propagation", "shared"])
        .args(["timeout", "--kill-after", "5", &limit, "script", "--quiet", "--flush", "--return", "--command"])
        .args([&format!("{CLOSE}; {line}"), "/dev/null"])
        .current_dir(run.from)
        .env_remove("RUNTIME_KIND")
        .env("SHELL", "/bin/bash")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("start unshare, timeout and script (package util-linux)")?;
    // The end of our input would come to the suite as keys that somebody pressed.
    let input = child.stdin.take();
    let text = output_of(&mut child, |text| is_whole(run.suite, group, text))?;
    drop(input);
    let cases: Vec<Case> = match run.suite {
        Suite::Contest => text.lines().filter_map(contest_case).collect(),
        Suite::Crun | Suite::Runc => text.lines().filter_map(tap_case).collect(),
    };
    Ok((cases, is_whole(run.suite, group, &text)))
}

/// What a child prints up to its end. When that is whole and the end does not come, since something that it left holds its
/// output, it is told to end.
fn output_of(child: &mut Child, whole: impl Fn(&str) -> bool) -> Result<String> {
    let stdout = BufReader::new(child.stdout.take().context("no standard output")?);
    let (sender, lines) = channel();
    std::thread::spawn(move || stdout.split(b'\n').map_while(|l| l.ok()).all(|line| sender.send(line).is_ok()));
    let mut text = String::new();
    loop {
        let line = match lines.recv_timeout(if whole(&text) { LAST_CASE } else { Duration::MAX }) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                Command::new("kill").arg(child.id().to_string()).status().context("start kill")?;
                break;
            }
        };
        text.push_str(&String::from_utf8_lossy(&line).replace('\r', ""));
        text.push('\n');
    }
    child.wait()?;
    Ok(text)
}

/// Whether all cases of a group are told of.
fn is_whole(suite: Suite, group: &str, text: &str) -> bool {
    match suite {
        Suite::Contest => text.contains(&format!("# End group {group}")),
        Suite::Crun | Suite::Runc => {
            let planned: Vec<usize> = text.lines().filter_map(tap_plan).collect();
            !planned.is_empty() && planned.iter().sum::<usize>() == text.lines().filter_map(tap_case).count()
        }
    }
}

/// `1..7`
fn tap_plan(line: &str) -> Option<usize> {
    line.strip_prefix("1..")?.trim().parse().ok()
}

/// `ok 3 name`, `not ok 3 - name # 0.1s`, `ok 3 name # skip why`.
fn tap_case(line: &str) -> Option<Case> {
    let (failed, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (true, rest),
        None => (false, line.strip_prefix("ok ")?),
    };
    let (number, rest) = rest.split_once(' ')?;
    number.parse::<usize>().ok()?;
    let (name, note) = rest.split_once(" #").unwrap_or((rest, ""));
    let name = name.trim_start_matches("- ").trim();
    let note = note.trim_start();
    let skip = note.get(..4).filter(|word| word.eq_ignore_ascii_case("skip"));
    let verdict = match (failed, skip) {
        (true, _) => Verdict::Failed,
        (false, Some(_)) => Verdict::Skipped,
        (false, None) => Verdict::Passed,
    };
    // What follows a reason is how long the case took.
    let why = skip.and(note.get(4..)).unwrap_or_default();
    let why = why.split_once(" # ").map_or(why, |(why, _)| why).trim().to_owned();
    Some(Case { why, ..Case::new(verdict, name) })
}

/// `1 / 12 : name : ok`, `... : not ok`, `... : skipped`.
fn contest_case(line: &str) -> Option<Case> {
    let (head, verdict) = line.rsplit_once(" : ")?;
    let (numbers, name) = head.split_once(" : ")?;
    let (at, of) = numbers.split_once(" / ")?;
    [at, of].iter().all(|number| number.trim().parse::<usize>().is_ok()).then_some(())?;
    let verdict = match verdict.trim() {
        "ok" => Verdict::Passed,
        "not ok" => Verdict::Failed,
        _ => Verdict::Skipped,
    };
    Some(Case::new(verdict, name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_suites_are_verdicts() {
        let tap = |line| tap_case(line).map(|case| format!("{:?} {case}", case.verdict));
        assert_eq!(tap("ok 1 runc exec --cgroup [v1]").as_deref(), Some("Passed runc exec --cgroup [v1]"));
        assert_eq!(tap("ok 2 a # skip test requires x").as_deref(), Some("Skipped a (test requires x)"));
        assert_eq!(tap("ok 12 - ps #SKIP requires v2 # 0.1s").as_deref(), Some("Skipped ps (requires v2)"));
        assert_eq!(tap("not ok 3 - start # 5.2s").as_deref(), Some("Failed start"));
        assert_eq!(tap("# not ok"), None);
        let contest = |line| contest_case(line).map(|case| format!("{:?} {case}", case.verdict));
        assert_eq!(contest("1 / 12 : create : ok").as_deref(), Some("Passed create"));
        assert_eq!(contest("3 / 3 : zero : not ok").as_deref(), Some("Failed zero"));
        assert_eq!(contest("3 / 3 : zero : skipped").as_deref(), Some("Skipped zero"));
        assert_eq!(contest("# Start group x"), None);
        let file = "def test_a():\n  x = {\"no\": 1}\n\nall_tests = {\n  \"a\": test_a,\n    \"b c\" : test_b,\n}\n";
        assert_eq!(crun_names(file), ["a", "b c"]);
    }
}
