//! Durations and timestamps in expressions.

use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, Zoned};

use super::value::Val;

const UNITS: [(&str, f64); 7] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// A date with or without a time.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    crate::time::parse(text).or_else(|| {
        let date: jiff::civil::Date = text.parse().ok()?;
        date.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    })
}

/// Go's `time.ParseDuration`, in nanoseconds.
pub(super) fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let (mut whole, mut part) = (0_i128, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let width = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, after) = tail.split_at(width);
        let (_, scale) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        match number.parse::<i64>() {
            Ok(number) => whole += i128::from(number) * scale as i128,
            Err(_) => part += number.parse::<f64>().ok()? * scale,
        }
        rest = after;
    }
    i64::try_from(whole + part as i128).ok().map(|nanos| if sign < 0.0 { -nanos } else { nanos })
}

/// As seconds, the way protobuf writes durations in JSON.
pub(super) fn show(nanos: i64) -> String {
    let (seconds, rest) = (nanos / 1_000_000_000, (nanos % 1_000_000_000).abs());
    if rest == 0 {
        return format!("{seconds}s");
    }
    let sign = if nanos < 0 && seconds == 0 { "-" } else { "" };
    format!("{sign}{seconds}.{rest:09}").trim_end_matches('0').to_owned() + "s"
}

/// As RFC 3339 with as many decimals as there are.
pub(super) fn show_timestamp(time: Timestamp) -> String {
    time.to_string()
}

/// The getters of timestamps and durations.
pub(super) fn get(name: &str, of: &Val<'_>, zone: Option<&str>) -> Option<Result<i64, String>> {
    match of {
        Val::Duration(nanos) => {
            let unit = match name {
                "getHours" => 3_600_000_000_000,
                "getMinutes" => 60_000_000_000,
                "getSeconds" => 1_000_000_000,
                "getMilliseconds" => 1_000_000,
                _ => return None,
            };
            Some(Ok(nanos / unit))
        }
        Val::Timestamp(time) => {
            let zone = match zone.map_or(Ok(TimeZone::UTC), time_zone) {
                Ok(zone) => zone,
                Err(error) => return Some(Err(error)),
            };
            field(name, &time.to_zoned(zone)).map(Ok)
        }
        _ => None,
    }
}

fn field(name: &str, time: &Zoned) -> Option<i64> {
    Some(match name {
        "getFullYear" => i64::from(time.year()),
        "getMonth" => i64::from(time.month()) - 1,
        "getDayOfYear" => i64::from(time.day_of_year()) - 1,
        "getDayOfMonth" => i64::from(time.day()) - 1,
        "getDate" => i64::from(time.day()),
        "getDayOfWeek" => i64::from(time.weekday().to_sunday_zero_offset()),
        "getHours" => i64::from(time.hour()),
        "getMinutes" => i64::from(time.minute()),
        "getSeconds" => i64::from(time.second()),
        "getMilliseconds" => i64::from(time.subsec_nanosecond() / 1_000_000),
        _ => return None,
    })
}

/// A name of the zone table, or an offset such as `-08:00`.
fn time_zone(name: &str) -> Result<TimeZone, String> {
    let unknown = || format!("unknown time zone {name}");
    let Some((hours, minutes)) = name.split_once(':') else { return crate::time::zone(name).ok_or_else(unknown) };
    let whole: i32 = hours.parse().map_err(|_| unknown())?;
    let part: i32 = minutes.parse().map_err(|_| unknown())?;
    if !(0..60).contains(&part) {
        return Err(format!("timezone offset minutes out of range [0, 59]: {name}"));
    }
    let signed = if hours.starts_with('-') { -part } else { part };
    Offset::from_seconds(whole.saturating_mul(3600) + signed * 60).map(|o| o.to_time_zone()).map_err(|_| unknown())
}
