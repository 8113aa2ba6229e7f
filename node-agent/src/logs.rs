//! Container logs on disk (`RFC3339Nano stdout|stderr P|F text`), read from the end, from a time, or followed.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use api::Timestamp;

/// A step when looking for lines from the end of a file, in bytes.
const BLOCK: u64 = 64 << 10;

/// Which lines, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) follow: bool,
    pub(crate) tail: Option<u64>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) timestamps: bool,
    pub(crate) limit_bytes: Option<u64>,
    /// `stdout` or `stderr` alone.
    pub(crate) stream: Option<&'static str>,
}

/// Where to begin so that `lines` lines are left.
pub(crate) fn tail_offset(file: &mut File, lines: u64) -> io::Result<u64> {
    let size = file.metadata()?.len();
    if lines == 0 {
        return Ok(size);
    }
    let (mut end, mut left) = (size, lines);
    let mut last = true;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let mut block = vec![0; usize::try_from(end - start).unwrap_or(0)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        for (at, byte) in block.iter().enumerate().rev() {
            // The newline that ends the file ends the last line; it does not begin one more.
            if *byte == b'\n' && !std::mem::take(&mut last) {
                left -= 1;
                if left == 0 {
                    return Ok(start + at as u64 + 1);
                }
            }
            last = false;
        }
        end = start;
    }
    Ok(0)
}

/// One line of a log, cut into its parts.
pub(crate) struct Line<'a> {
    pub(crate) time: &'a str,
    pub(crate) stream: &'a str,
    /// The text goes on in the next line.
    pub(crate) partial: bool,
    pub(crate) text: &'a [u8],
}

/// Cuts a line (without its newline); `None` where it has not the form.
pub(crate) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    let text = parts.next().unwrap_or_default();
    let utf8 = std::str::from_utf8;
    Some(Line { time: utf8(time).ok()?, stream: utf8(stream).ok()?, partial: tag.starts_with(b"P"), text })
}

/// A line as the client wants it; empty where it is not wanted.
pub(crate) fn shown(line: &Line<'_>, options: &Options) -> Vec<u8> {
    let old = options.since.is_some_and(|since| line.time.parse::<Timestamp>().is_ok_and(|at| at < since));
    if old || options.stream.is_some_and(|s| s != line.stream) {
        return Vec::new();
    }
    let mut out = Vec::with_capacity(line.text.len() + 40);
    if options.timestamps {
        out.extend_from_slice(line.time.as_bytes());
        out.push(b' ');
    }
    out.extend_from_slice(line.text);
    if !line.partial {
        out.push(b'\n');
    }
    out
}

/// The end of a log as plain text: at most so many lines and bytes.
pub(crate) fn tail_text(path: &Path, lines: u64, bytes: usize) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let at = tail_offset(&mut file, lines)?;
    file.seek(SeekFrom::Start(at))?;
    let mut raw = Vec::new();
    file.take(1 << 20).read_to_end(&mut raw)?;
    let options = Options::default();
    let text: Vec<u8> = raw.split(|b| *b == b'\n').filter_map(parse).flat_map(|line| shown(&line, &options)).collect();
    let from = text.len().saturating_sub(bytes);
    Ok(String::from_utf8_lossy(text.get(from..).unwrap_or_default()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(lines: usize) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text: String = (0..lines).map(|n| format!("2026-11-24T00:00:{n:02}Z stdout F line {n}\n")).collect();
        fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn the_last_lines_are_found_from_the_end() {
        let file = file(50);
        assert_eq!(tail_text(file.path(), 2, 4096).unwrap(), "line 48\nline 49\n");
        assert_eq!(tail_text(file.path(), 100, 4096).unwrap().lines().count(), 50);
        assert_eq!(tail_text(file.path(), 0, 4096).unwrap(), "");
        assert_eq!(tail_text(file.path(), 50, 8).unwrap(), "line 49\n");
    }

    #[test]
    fn lines_before_the_time_are_passed_over_and_partial_ones_are_joined() {
        let options = Options { since: "2026-11-24T00:00:05Z".parse().ok(), ..Options::default() };
        let early = parse(b"2026-11-24T00:00:04Z stdout F x").unwrap();
        let part = parse(b"2026-11-24T00:00:06Z stderr P a b").unwrap();
        assert_eq!(shown(&early, &options), b"");
        assert_eq!(shown(&part, &options), b"a b");
    }
}
