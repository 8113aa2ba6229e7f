//! Log files in CRI's format: `RFC3339Nano stdout|stderr P|F text`, lines split at 16 KiB, rotated by size.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Longest piece of a line in one record, in bytes.
pub(super) const MAX_LINE_BYTES: usize = 16 << 10;

/// Which stream a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Cuts a stream into records.
#[derive(Debug)]
pub(super) struct Lines {
    stream: Stream,
    pending: Vec<u8>,
}

impl Lines {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Appends the records that `data` completes to `out`.
    pub(super) fn push(&mut self, mut data: &[u8], now: i64, out: &mut Vec<u8>) {
        while !data.is_empty() {
            let room = MAX_LINE_BYTES - self.pending.len();
            let window = data.get(..room.min(data.len())).unwrap_or(data);
            match window.iter().position(|b| *b == b'\n') {
                Some(end) => {
                    self.pending.extend_from_slice(data.get(..end).unwrap_or_default());
                    data = data.get(end + 1..).unwrap_or_default();
                    self.emit('F', now, out);
                }
                None => {
                    self.pending.extend_from_slice(window);
                    data = data.get(window.len()..).unwrap_or_default();
                    if self.pending.len() >= MAX_LINE_BYTES {
                        self.emit('P', now, out);
                    }
                }
            }
        }
    }

    /// The stream has ended: what is pending is the last line.
    pub(super) fn finish(&mut self, now: i64, out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            self.emit('F', now, out);
        }
    }

    fn emit(&mut self, tag: char, now: i64, out: &mut Vec<u8>) {
        out.extend_from_slice(rfc3339(now).as_bytes());
        out.extend_from_slice(format!(" {} {tag} ", self.stream.name()).as_bytes());
        out.append(&mut self.pending);
        out.push(b'\n');
    }
}

/// A log file with its rotation.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
    max_bytes: u64,
    files: u32,
}

impl Log {
    pub(super) fn open(path: &Path, max_bytes: u64, files: u32) -> std::io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut log = Self { path: path.to_owned(), file: None, bytes: 0, max_bytes, files };
        log.reopen()?;
        Ok(log)
    }

    /// Opens the file at the path anew.
    pub(super) fn reopen(&mut self) -> std::io::Result<()> {
        let file = File::options().create(true).append(true).mode(0o640).open(&self.path)?;
        self.bytes = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Writes whole records. A disk that refuses costs the records, never the container.
    pub(super) fn write(&mut self, records: &[u8], now: i64) {
        if records.is_empty() {
            return;
        }
        if self.max_bytes > 0 && self.bytes > 0 && self.bytes + records.len() as u64 > self.max_bytes {
            self.rotate(now);
        }
        if self.file.is_none() {
            let _ = self.reopen();
        }
        if let Some(file) = &mut self.file
            && file.write_all(records).is_ok()
        {
            self.bytes += records.len() as u64;
        }
    }

    /// `name` becomes `name.20060102-150405`, and the oldest go.
    fn rotate(&mut self, now: i64) {
        let (year, month, day, seconds) = civil(now.div_euclid(1_000_000_000));
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let mut target = format!("{}.{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}", self.path.display());
        if Path::new(&target).exists() {
            target.push_str(&format!("-{:09}", now.rem_euclid(1_000_000_000)));
        }
        self.file = None;
        let _ = fs::rename(&self.path, target);
        let mut old = self.rotated();
        old.sort();
        let keep = self.files.saturating_sub(1) as usize;
        let surplus = old.len().saturating_sub(keep);
        for path in old.into_iter().take(surplus) {
            let _ = fs::remove_file(path);
        }
        let _ = self.reopen();
    }

    fn rotated(&self) -> Vec<PathBuf> {
        let (Some(dir), Some(name)) = (self.path.parent(), self.path.file_name()) else { return Vec::new() };
        let prefix = format!("{}.", name.to_string_lossy());
        let entries = fs::read_dir(dir).into_iter().flatten().filter_map(|e| e.ok().map(|e| e.path()));
        entries.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix))).collect()
    }
}

/// A time in nanoseconds since the epoch, in UTC.
pub(crate) fn rfc3339(now: i64) -> String {
    let (year, month, day, seconds) = civil(now.div_euclid(1_000_000_000));
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let nanos = now.rem_euclid(1_000_000_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Year, month, day and second of the day (the days-to-civil algorithm for the Gregorian calendar, eras of 400 years
/// that begin in March).
fn civil(seconds: i64) -> (i64, i64, i64, i64) {
    let days = seconds.div_euclid(86_400) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day, seconds.rem_euclid(86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_827_696, "2000-02-29T12:34:56.000000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(rfc3339(seconds * 1_000_000_000), want);
        }
    }

    #[test]
    fn lines_are_split_at_16_kib() {
        let mut lines = Lines::new(Stream::Stderr);
        let mut out = Vec::new();
        lines.push(b"one\n\ntwo", 0, &mut out);
        lines.push(b"-more\n", 0, &mut out);
        let long = vec![b'x'; MAX_LINE_BYTES + 5];
        lines.push(&long, 0, &mut out);
        lines.push(b"\nend", 0, &mut out);
        lines.finish(0, &mut out);
        let text = String::from_utf8(out).unwrap();
        let rows: Vec<(&str, usize)> = text.lines().map(|l| (&l[31..39], l.len() - 40)).collect();
        let f = "stderr F";
        let want = [("stderr F", 3), (f, 0), (f, 8), ("stderr P", MAX_LINE_BYTES), (f, 5), (f, 3)];
        assert_eq!(rows, want);
    }

    #[test]
    fn logs_rotate_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = Log::open(&path, 10, 3).unwrap();
        for second in 0..6 {
            log.write(b"0123456\n", second * 1_000_000_000);
        }
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["0.log", "0.log.19700101-000004", "0.log.19700101-000005"]);
        assert_eq!(fs::read(&path).unwrap(), b"0123456\n");
    }
}
