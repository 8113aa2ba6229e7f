//! Schedules of CronJobs, as robfig/cron v3 reads them: five fields, words such as `@daily`, and `@every`.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// When something is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At the minutes that five fields name.
    Fields(Fields),
    /// So long after the last time, in whole seconds.
    Every(SignedDuration),
}

/// The values of each field, a bit each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether days or weekdays are said to be any: then both must fit, else one of them.
    any_day: bool,
}

/// The least and the greatest value of a field, and the names of values.
struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { min: 0, max: 59, names: &[] };
const HOURS: Bounds = Bounds { min: 0, max: 23, names: &[] };
const DAYS: Bounds = Bounds { min: 1, max: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds = Bounds { min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// Words for schedules.
const WORDS: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// So many years are looked through; what is not due in them never is.
const YEARS: i16 = 5;

impl Schedule {
    /// Reads one; the error is robfig's.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("empty spec string".into());
        }
        if let Some(every) = text.strip_prefix("@every ") {
            let found = crate::duration::parse(every).and_then(|d| i64::try_from(d.as_secs()).ok());
            let found =
                found.ok_or_else(|| format!("failed to parse duration {text}: time: invalid duration {every:?}"))?;
            return Ok(Self::Every(SignedDuration::from_secs(found.max(1))));
        }
        let fields = match WORDS.iter().find(|(word, _)| *word == text) {
            Some((_, fields)) => fields,
            None if text.starts_with('@') => return Err(format!("unrecognized descriptor: {text}")),
            None => text,
        };
        let parts: Vec<&str> = fields.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = parts.as_slice() else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
        };
        let (minutes, _) = field(minutes, &MINUTES)?;
        let (hours, _) = field(hours, &HOURS)?;
        let (days, any_day) = field(days, &DAYS)?;
        let (months, _) = field(months, &MONTHS)?;
        let (weekdays, any_weekday) = field(weekdays, &WEEKDAYS)?;
        Ok(Self::Fields(Fields { minutes, hours, days, months, weekdays, any_day: any_day || any_weekday }))
    }

    /// The first time after another at which the clocks of a zone show what the schedule names; `None`: never. A time that
    /// clocks set forward pass over does not come; one that they show twice comes twice.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(every) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(*every).ok()
            }
            Self::Fields(fields) => fields.next(after, zone),
        }
    }
}

impl Fields {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        // The first minute that begins later.
        let mut at = Timestamp::from_second(after.as_second().div_euclid(60).checked_add(1)?.checked_mul(60)?).ok()?;
        let last = zone.to_datetime(at).year().checked_add(YEARS)?;
        loop {
            let shown = zone.to_datetime(at);
            if shown.year() > last {
                return None;
            }
            let minutes = if !has(self.months, shown.month()) || !self.has_day(shown.date()) {
                at = begin(shown.date().tomorrow().ok()?, zone)?;
                continue;
            } else if !has(self.hours, shown.hour()) {
                60 - shown.minute()
            } else if !has(self.minutes, shown.minute()) {
                1
            } else {
                return Some(at);
            };
            at = at.checked_add(SignedDuration::from_mins(minutes.into())).ok()?;
        }
    }

    fn has_day(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        if self.any_day { day && weekday } else { day || weekday }
    }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| (bits >> value) & 1 == 1)
}

/// When a day begins: at its first minute, also where clocks pass over midnight.
fn begin(date: Date, zone: &TimeZone) -> Option<Timestamp> {
    Some(date.to_zoned(zone.clone()).ok()?.timestamp())
}

/// The values of a list, and whether it says any.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let mut all = (0, false);
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (bits, any) = range(part, bounds)?;
        all = (all.0 | bits, all.1 || any);
    }
    Ok(all)
}

/// `n`, `n-m`, `*`, each with `/step`.
fn range(text: &str, bounds: &Bounds) -> Result<(u64, bool), String> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts.first().map(|ends| ends.split('-').collect()).unwrap_or_default();
    let single = ends.len() == 1;
    let (start, mut end, mut any) = match ends.as_slice() {
        ["*" | "?"] => (bounds.min, bounds.max, true),
        [one] => (value(one, bounds)?, value(one, bounds)?, false),
        [start, end] => (value(start, bounds)?, value(end, bounds)?, false),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = match parts.as_slice() {
        [_] => 1,
        [_, step] => {
            let step = number(step)?;
            if single {
                end = bounds.max;
            }
            any = any && step <= 1;
            step
        }
        _ => return Err(format!("too many slashes: {text}")),
    };
    if start < bounds.min {
        return Err(format!("beginning of range ({start}) below minimum ({}): {text}", bounds.min));
    }
    if end > bounds.max {
        return Err(format!("end of range ({end}) above maximum ({}): {text}", bounds.max));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    let Some(step) = usize::try_from(step).ok().filter(|step| *step > 0) else {
        return Err(format!("step of range should be a positive number: {text}"));
    };
    Ok(((start..=end).step_by(step).fold(0, |bits, value| bits | (1 << value)), any))
}

fn value(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let named = bounds.names.iter().position(|name| text.eq_ignore_ascii_case(name));
    match named.and_then(|at| u32::try_from(at).ok()) {
        Some(at) => Ok(at + bounds.min),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, String> {
    let failed = |why: &str| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}");
    let number: i64 = text.parse().map_err(|_| failed("invalid syntax"))?;
    match u32::try_from(number) {
        Ok(number) => Ok(number),
        Err(_) if number < 0 => Err(format!("negative number ({number}) not allowed: {text}")),
        Err(_) => Err(failed("value out of range")),
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;
    use crate::time;

    fn next(schedule: &str, zone: &str, after: &str) -> String {
        let after = time::parse(after).expect("a time");
        let schedule = Schedule::parse(schedule).expect("a schedule");
        let zone = time::zone(zone).expect("a zone");
        schedule.next(after, &zone).map_or_else(|| "never".into(), time::rfc3339)
    }

    #[test]
    fn a_zone_says_what_clocks_show() {
        for (schedule, zone, after, want) in [
            ("0 9 * * *", "Asia/Kolkata", "2024-01-31T12:00:00Z", "2024-02-01T03:30:00Z"),
            ("0 0 1 * *", "Pacific/Auckland", "2024-01-31T12:00:00Z", "2024-02-29T11:00:00Z"),
            // Clocks go from 02:00 to 03:00: the half past two of that day does not come.
            ("30 2 * * *", "America/New_York", "2024-03-10T05:00:00Z", "2024-03-11T06:30:00Z"),
            ("0 * * * *", "America/New_York", "2024-03-10T06:00:00Z", "2024-03-10T07:00:00Z"),
            // They go from 02:00 to 01:00: half past one comes twice.
            ("30 1 * * *", "America/New_York", "2024-11-03T04:00:00Z", "2024-11-03T05:30:00Z"),
            ("30 1 * * *", "America/New_York", "2024-11-03T05:30:00Z", "2024-11-03T06:30:00Z"),
            ("30 1 * * *", "America/New_York", "2024-11-03T06:30:00Z", "2024-11-04T06:30:00Z"),
            // They went from midnight to one.
            ("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", "2018-11-05T02:00:00Z"),
            ("15 * * * *", "America/Sao_Paulo", "2018-11-04T02:20:00Z", "2018-11-04T03:15:00Z"),
        ] {
            assert_eq!(next(schedule, zone, after), want, "{schedule} in {zone} after {after}");
        }
    }

    #[test]
    fn the_next_time_is_the_first_one_that_fits() {
        for (schedule, after, want) in [
            ("* * * * *", "2024-01-31T23:59:30Z", "2024-02-01T00:00:00Z"),
            ("*/15 * * * *", "2024-01-31T12:00:00Z", "2024-01-31T12:15:00Z"),
            ("5/20 8-10 * * *", "2024-01-31T10:46:00Z", "2024-02-01T08:05:00Z"),
            ("0 0 29 2 *", "2024-03-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 13 * FRI", "2024-01-01T00:00:00Z", "2024-01-05T00:00:00Z"),
            ("0 0 */2 * mon", "2024-01-30T12:00:00Z", "2024-01-31T00:00:00Z"),
            ("0 0 * * mon", "2024-01-30T12:00:00Z", "2024-02-05T00:00:00Z"),
            ("30 6 1,15 jan,JUL ?", "2024-01-15T06:30:00Z", "2024-07-01T06:30:00Z"),
            ("0 0 31 2 *", "2024-01-01T00:00:00Z", "never"),
            ("@weekly", "2024-01-31T12:00:00Z", "2024-02-04T00:00:00Z"),
            ("@every 90s", "2024-01-31T12:00:00.5Z", "2024-01-31T12:01:30Z"),
        ] {
            assert_eq!(next(schedule, "UTC", after), want, "{schedule}");
        }
    }

    #[test]
    fn faults_are_told_in_robfigs_words() {
        for (schedule, want) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("@often", "unrecognized descriptor: @often"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("9-3 * * * *", "beginning of range (9) beyond end of range (3): 9-3"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("*/2/3 * * * *", "too many slashes: */2/3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
        ] {
            assert_eq!(Schedule::parse(schedule).expect_err(schedule), want);
        }
    }
}
