//! What the kernel says of processes: time on the processors, memory, names.

use std::fs;
use std::path::PathBuf;

/// The kernel counts in hundredths of a second, whatever its own clock is (proc_pid_stat(5), USER_HZ).
const TICKS: f64 = 100.0;

fn file(pid: u32, name: &str) -> String {
    fs::read_to_string(PathBuf::from(format!("/proc/{pid}")).join(name)).unwrap_or_default()
}

/// The fields of /proc/PID/stat after the name in parentheses, which may hold anything.
fn stat(pid: u32) -> Vec<u64> {
    let text = file(pid, "stat");
    let after = text.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    after.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect()
}

fn ticks(pid: u32, fields: &[usize]) -> f64 {
    let stat = stat(pid);
    fields.iter().filter_map(|field| stat.get(field - 3)).sum::<u64>() as f64 / TICKS
}

/// Seconds that a process has spent on processors so far.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    ticks(pid, &[14, 15])
}

/// Seconds that the children that it has waited for have spent.
pub(crate) fn children_cpu_seconds(pid: u32) -> f64 {
    ticks(pid, &[16, 17])
}

fn kibibytes(text: &str, field: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

/// The most memory that a process ever had resident, in MiB.
pub(crate) fn peak_mib(pid: u32) -> f64 {
    kibibytes(&file(pid, "status"), "VmHWM:") / 1024.0
}

/// Its proportional share of memory, in MiB: pages that n processes share count a nth.
pub(crate) fn pss_mib(pid: u32) -> f64 {
    kibibytes(&file(pid, "smaps_rollup"), "Pss:") / 1024.0
}

/// All processes.
fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// All processes whose command line or cgroup names `mark`, but for this one.
pub(crate) fn marked(mark: &str) -> Vec<u32> {
    let own = std::process::id();
    let named = |pid: &u32| file(*pid, "cmdline").contains(mark) || file(*pid, "cgroup").contains(mark);
    all().filter(|pid| *pid != own).filter(named).collect()
}

/// What lies in memory file systems mounted below a directory, in MiB.
pub(crate) fn memory_files_mib(below: &str) -> f64 {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let ours = table.lines().filter(|line| line.contains(" - tmpfs "));
    let points = ours.filter_map(|line| line.split(' ').nth(4)).filter(|point| point.starts_with(below));
    points.map(|point| size(&PathBuf::from(point))).sum::<u64>() as f64 / f64::from(1 << 20)
}

fn size(path: &PathBuf) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    let inside = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path()));
    meta.blocks() * 512 + if meta.is_dir() { inside.sum() } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Stdio;

    use super::{cpu_seconds, marked, peak_mib, pss_mib};

    #[test]
    fn the_kernel_knows_us() {
        let own = std::process::id();
        assert!(peak_mib(own) > 0.1 && pss_mib(own) > 0.1);
        assert!(cpu_seconds(own) < 1000.0);
    }

    #[test]
    fn processes_are_found_by_a_word_of_their_command_line() {
        // Somebody else may run this test at the same time.
        let word = format!("31.{:010}", std::process::id());
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "echo; read _", &word]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The kernel lets us go on before the child has its command line; once it speaks it has.
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let found = marked(&word);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, [child.id()]);
    }
}
