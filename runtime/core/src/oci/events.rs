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

/// `5s`, `100ms`, `1m`.
fn duration(text: &str) -> Result<Duration> {
    let bad = || Error::Invalid(format!("--interval: {text:?} is not a time such as 5s or 100ms"));
    let at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(bad)?;
    let (digits, unit) = text.split_at(at);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(bad()),
    };
    let number: f64 = digits.parse().map_err(|_| bad())?;
    match Duration::try_from_secs_f64(number * seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_units() {
        for (text, ms) in [("5s", 5000), ("100ms", 100), ("1.5m", 90_000)] {
            assert_eq!(duration(text).ok(), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "0s", "5d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
