//! The text of a description while it is written: indented lines with tab stops.

use api::time;
use serde_json::Value;

use crate::print::tabs::align;

/// Lines; tab stops do not reach over a `flush`.
#[derive(Default)]
pub(super) struct Text {
    done: String,
    open: String,
}

/// Annotations that are bookkeeping.
const BOOKKEEPING: [&str; 1] = ["kubectl.kubernetes.io/last-applied-configuration"];
/// Annotations longer than this get lines of their own.
const LONG: usize = 140;

impl Text {
    /// A line at a level of indentation (two spaces each).
    pub(super) fn line(&mut self, level: usize, text: &str) {
        self.open.extend(std::iter::repeat_n("  ", level));
        self.open.push_str(text);
        self.open.push('\n');
    }

    /// `Title:<tab>value`.
    pub(super) fn field(&mut self, level: usize, title: &str, value: impl std::fmt::Display) {
        self.line(level, &format!("{title}:\t{value}"));
    }

    /// The same, where there is a value.
    pub(super) fn some(&mut self, level: usize, title: &str, value: &str) {
        if !value.is_empty() {
            self.field(level, title, value);
        }
    }

    /// Pairs below each other, `a=b`.
    pub(super) fn pairs(&mut self, title: &str, map: Option<&Value>) {
        let pairs = map.and_then(Value::as_object).into_iter().flatten();
        let lines: Vec<String> = pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
        self.lines(title, &lines);
    }

    /// Texts below each other; `<none>` where there are none.
    pub(super) fn lines(&mut self, title: &str, lines: &[String]) {
        let Some((first, rest)) = lines.split_first() else {
            self.field(0, title, "<none>");
            return;
        };
        self.field(0, title, first);
        rest.iter().for_each(|line| self.line(0, &format!("\t{line}")));
    }

    /// `key: value` below each other; long values on lines of their own.
    pub(super) fn annotations(&mut self, title: &str, map: Option<&Value>) {
        let pairs = map.and_then(Value::as_object).into_iter().flatten();
        let mut lines = Vec::new();
        for (key, value) in pairs.filter(|(key, _)| !BOOKKEEPING.contains(&key.as_str())) {
            let value = value.as_str().unwrap_or_default().trim_end_matches('\n');
            if value.len() + key.len() + 2 > LONG || value.contains('\n') {
                lines.push(format!("{key}:"));
                lines.extend(value.split('\n').map(|line| format!("  {}", shorten(line))));
            } else {
                lines.push(format!("{key}: {value}"));
            }
        }
        self.lines(title, &lines);
    }

    /// Ends the reach of tab stops.
    pub(super) fn flush(&mut self) {
        let open = std::mem::take(&mut self.open);
        self.done.push_str(&align(&open, 0, 2));
    }

    pub(super) fn finish(mut self) -> String {
        self.flush();
        self.done
    }
}

fn shorten(line: &str) -> String {
    let max = LONG - 2;
    if line.chars().count() <= max { line.into() } else { format!("{}...", line.chars().take(max).collect::<String>()) }
}

/// A time as mail writes it: `Mon, 02 Jan 2006 15:04:05 +0000`.
pub(super) fn when(text: &str) -> String {
    match time::parse(text) {
        Some(at) => at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string(),
        None => "<unset>".into(),
    }
}

/// `True` or `False`.
pub(super) fn truth(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}
