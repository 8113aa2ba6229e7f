//! `events`: what a container uses, at intervals, and when it wants for memory.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::Serialize;
use serde_json::Value;

use super::arguments::Arguments;
use super::container::Container;
use super::{Global, print};
use crate::{Error, Result, failed};

/// A line of what is told; the order of its fields is what runc's readers know.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

pub(super) fn events(global: &Global, arguments: &mut Arguments) -> Result<()> {
    let (mut interval, mut once) = (Duration::from_secs(5), false);
    while let Some(option) = arguments.option() {
        match option.as_str() {
            "--interval" => interval = duration(&arguments.value(&option)?)?,
            "--stats" => once = true,
            other => return Err(Error::Invalid(format!("events: unknown option {other}"))),
        }
    }
    let container = Container::load(&global.root, &arguments.only_id()?)?;
    let process = container.process().ok_or_else(|| Error::State("container not running".to_owned()))?;
    let host = container.host()?;
    let group = host.open(&container.cgroup)?;
    let tell = |kind, data| -> Result<()> {
        let event = Event { kind, id: &container.id, data };
        print(&(serde_json::to_string(&event).map_err(|e| Error::Invalid(e.to_string()))? + "\n"))
    };
    if once {
        return tell("stats", Some(host.report(&group)));
    }
    let memory = host.watch_memory(&group)?;
    let mut next = Instant::now() + interval;
    loop {
        let mut fds = vec![PollFd::new(&process, PollFlags::IN)];
        fds.extend(memory.as_ref().map(|memory| PollFd::from_borrowed_fd(memory.as_fd(), PollFlags::IN)));
        let left = Timespec::try_from(next.saturating_duration_since(Instant::now()));
        let left = left.map_err(|_| Error::Invalid("--interval: too long".to_owned()))?;
        match poll(&mut fds, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(failed(|| "wait for events".to_owned())(e)),
        }
        let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        let (ended, wants) = (ready(0), ready(1));
        if let Some(memory) = memory.as_ref().filter(|_| wants)
            && memory.happened()
        {
            tell("oom", None)?;
        }
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            tell("stats", Some(host.report(&group)))?;
            next += interval;
        }
    }
}

/// `5s`, `100ms`, `1m30s`: as Go writes durations.
fn duration(text: &str) -> Result<Duration> {
    let total = seconds(text).and_then(|total| Duration::try_from_secs_f64(total).ok());
    let bad = || Error::Invalid(format!("--interval: {text:?} is not a time such as 5s, 100ms or 1m30s"));
    total.filter(|total| !total.is_zero()).ok_or_else(bad)
}

fn seconds(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let is_digit = |c: char| c.is_ascii_digit() || c == '.';
    let (mut total, mut rest) = (0.0, text.strip_prefix('+').unwrap_or(text));
    while !rest.is_empty() {
        let (number, after) = rest.split_at_checked(rest.find(|c| !is_digit(c))?)?;
        let (unit, next) = after.split_at_checked(after.find(is_digit).unwrap_or(after.len()))?;
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total += number.parse::<f64>().ok()? * size;
        rest = next;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_units() {
        for (text, ms) in [
            ("5s", 5000),
            ("100ms", 100),
            ("1.5m", 90_000),
            ("1m30s", 90_000),
            ("1h0.5s", 3_600_500),
            ("500000us", 500),
        ] {
            assert_eq!(duration(text).ok(), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "0s", "5d", "1m30", "5s5", "1.5.s", "5 s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
