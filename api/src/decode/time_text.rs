//! Why Go's `time.Parse` refuses a text.

/// Whether a fraction of exactly six digits follows the seconds.
pub(super) fn has_six_decimals(text: &str) -> bool {
    let fraction = text.get(19..).and_then(|rest| rest.strip_prefix('.')).unwrap_or_default();
    fraction.bytes().take_while(u8::is_ascii_digit).count() == 6
}

/// The error of reading `text` as RFC 3339, or as its form with microseconds.
pub(super) fn fault(text: &str, micro: bool) -> String {
    let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
    let mut rest = text;
    for (element, digits) in [
        ("2006", 4),
        ("-", 0),
        ("01", 2),
        ("-", 0),
        ("02", 2),
        ("T", 0),
        ("15", 2),
        (":", 0),
        ("04", 2),
        (":", 0),
        ("05", 2),
    ] {
        match take(rest, element, digits) {
            Some(after) => rest = after,
            None => return format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {element:?}"),
        }
        if let Some(what) = out_of_range(text, rest, element) {
            return format!("parsing time {text:?}: {what} out of range");
        }
    }
    let fraction = rest.strip_prefix('.').map_or(rest, |rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    let element = if micro && !has_six_decimals(text) { ".000000" } else { "Z07:00" };
    let left = if element == "Z07:00" { fraction } else { rest };
    match left.strip_prefix('Z') {
        Some(extra) if !extra.is_empty() => format!("parsing time {text:?}: extra text: {extra:?}"),
        _ => format!("parsing time {text:?} as {layout:?}: cannot parse {left:?} as {element:?}"),
    }
}

fn take<'a>(text: &'a str, element: &str, digits: usize) -> Option<&'a str> {
    if digits == 0 {
        return text.strip_prefix(element);
    }
    let (number, rest) = text.split_at_checked(digits)?;
    number.bytes().all(|b| b.is_ascii_digit()).then_some(rest)
}

fn out_of_range(text: &str, rest: &str, element: &str) -> Option<&'static str> {
    let end = text.len() - rest.len();
    let number: u32 = text.get(end.checked_sub(2)?..end)?.parse().ok()?;
    match (element, number) {
        ("01", 0 | 13..) => Some("month"),
        ("02", 0 | 32..) => Some("day"),
        ("15", 24..) => Some("hour"),
        ("04", 60..) => Some("minute"),
        ("05", 60..) => Some("second"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn faults_are_go_s() {
        let cases = [
            ("", r#"parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006""#),
            ("2024-1", r#"parsing time "2024-1" as "2006-01-02T15:04:05Z07:00": cannot parse "1" as "01""#),
            ("2024-13-01T00:00:00Z", r#"parsing time "2024-13-01T00:00:00Z": month out of range"#),
            (
                "2024-01-31 00:00:00Z",
                r#"parsing time "2024-01-31 00:00:00Z" as "2006-01-02T15:04:05Z07:00": cannot parse " 00:00:00Z" as "T""#,
            ),
            (
                "2024-01-31T00:00:00",
                r#"parsing time "2024-01-31T00:00:00" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "Z07:00""#,
            ),
        ];
        for (text, fault) in cases {
            assert_eq!(super::fault(text, false), fault);
        }
    }
}
