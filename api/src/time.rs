//! Times as Kubernetes writes them (`metav1.Time`, `metav1.MicroTime`).

use jiff::{Timestamp, tz::TimeZone};

use crate::{Document, duration};

/// `2024-01-31T12:00:00Z`: whole seconds, UTC. The fraction is cut.
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// As [`rfc3339`], by the clocks of a zone: `2024-01-31T17:30:00+05:30`.
pub fn rfc3339_in(time: Timestamp, zone: &TimeZone) -> String {
    match time.to_zoned(zone.clone()) {
        shown if shown.offset().is_zero() => rfc3339(time),
        shown => shown.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    }
}

/// `2024-01-31T12:00:00.000000Z`: always six decimals.
pub fn rfc3339_micro(time: Timestamp) -> String {
    let micros = time.as_microsecond().rem_euclid(1_000_000);
    format!("{}.{micros:06}Z", time.strftime("%Y-%m-%dT%H:%M:%S"))
}

/// Reads RFC 3339 as Go's `time.Parse(time.RFC3339, ..)` does: `T` and `Z` in capitals, an offset with a colon.
pub fn parse(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let shaped = bytes.get(10) == Some(&b'T') && (text.ends_with('Z') || has_offset(text));
    if !shaped || text.contains([' ', 't', 'z', '[']) || bytes.get(4) != Some(&b'-') {
        return None;
    }
    text.parse().ok()
}

fn has_offset(text: &str) -> bool {
    let tail = text.len().checked_sub(6).and_then(|at| text.get(at..)).unwrap_or_default().as_bytes();
    matches!(tail, [b'+' | b'-', _, _, b':', _, _])
}

/// The age of an object as tables show it; `<unknown>` where it has no creation time.
pub fn age(document: &Document, now: Timestamp) -> String {
    since(document.str_at("/metadata/creationTimestamp"), now)
}

/// The time since an RFC 3339 text as tables show it; `<unknown>` where there is none.
pub fn since(text: &str, now: Timestamp) -> String {
    match parse(text) {
        Some(then) => duration::human(now.duration_since(then).as_secs()),
        None => "<unknown>".into(),
    }
}

/// A time zone by its name in IANA's table, which is in this program: as Go's `time.LoadLocation` finds it, to the letter.
pub fn zone(name: &str) -> Option<TimeZone> {
    if name.is_empty() || name == "UTC" {
        return Some(TimeZone::UTC);
    }
    TimeZone::get(name).ok().filter(|zone| zone.iana_name() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::{parse, rfc3339, rfc3339_in, rfc3339_micro, zone};

    #[test]
    fn zones_are_found_by_their_exact_names() {
        for name in ["", "UTC", "Etc/UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "US/Pacific", "EST"] {
            assert!(zone(name).is_some(), "{name}");
        }
        for name in ["europe/berlin", "Europe/Nowhere", "Local", "../UTC", "Europe/Berlin ", "+01:00"] {
            assert!(zone(name).is_none(), "{name}");
        }
    }

    #[test]
    fn times_are_read_strictly_and_written_in_utc() {
        let time = parse("2024-02-29T01:02:03.9876543+02:00").expect("valid");
        assert_eq!(rfc3339(time), "2024-02-28T23:02:03Z");
        assert_eq!(rfc3339_micro(time), "2024-02-28T23:02:03.987654Z");
        let shown = |name| rfc3339_in(time, &zone(name).expect("a zone"));
        assert_eq!(shown("Asia/Kolkata"), "2024-02-29T04:32:03+05:30");
        assert_eq!(shown("Europe/London"), "2024-02-28T23:02:03Z");
        for bad in ["", "2024-02-29", "2024-02-29 01:02:03Z", "2024-02-29T01:02:03", "2024-02-30T01:02:03Z", "é"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
