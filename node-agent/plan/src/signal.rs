//! Signals by name, and which one ends a container.

use api::k8s_openapi::api::core::v1::Container;

use crate::observed::ImageFacts;

/// SIGKILL.
pub const KILL: i32 = 9;
/// SIGTERM.
pub const TERM: i32 = 15;

/// Signal numbers of Linux on x86-64 and arm64, in order from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// The signal that asks a container to end: its own, its image's, or SIGTERM.
pub fn stop_signal(container: &Container, image: &ImageFacts) -> i32 {
    let own = container.lifecycle.as_ref().and_then(|l| l.stop_signal.as_deref());
    own.and_then(number).or_else(|| image.stop_signal.as_deref().and_then(number)).unwrap_or(TERM)
}

/// The number of `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`.
pub fn number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let bare = name.strip_prefix("SIG").unwrap_or(name);
    if let Some(rest) = bare.strip_prefix("RTMIN") {
        return real_time(34, rest);
    }
    if let Some(rest) = bare.strip_prefix("RTMAX") {
        return real_time(64, rest);
    }
    let index = NAMES.iter().position(|n| *n == bare)?;
    i32::try_from(index + 1).ok()
}

fn real_time(base: i32, offset: &str) -> Option<i32> {
    let offset: i32 = if offset.is_empty() { 0 } else { offset.parse().ok()? };
    Some(base + offset).filter(|n| (34..=64).contains(n))
}
