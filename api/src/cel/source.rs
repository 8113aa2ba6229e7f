//! Where an error stands in an expression, and how cel-go shows it (`common/error.go`).

/// Faults of one expression, by character offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub at: usize,
    pub message: String,
}

impl Fault {
    pub(super) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }

    pub(super) fn syntax(at: usize, message: impl AsRef<str>) -> Self {
        Self::new(at, format!("Syntax error: {}", message.as_ref()))
    }
}

/// All faults as one text, in the order of their places.
pub(super) fn render(source: &str, faults: &[Fault]) -> String {
    let mut sorted: Vec<&Fault> = faults.iter().collect();
    sorted.sort_by_key(|fault| fault.at);
    sorted.into_iter().map(|fault| show(source, fault)).collect::<Vec<_>>().join("\n")
}

fn show(source: &str, fault: &Fault) -> String {
    let before: String = source.chars().take(fault.at).collect();
    let line = before.matches('\n').count();
    let column = before.chars().rev().take_while(|c| *c != '\n').count();
    let mut text = format!("ERROR: <input>:{}:{}: {}", line + 1, column + 1, fault.message);
    if let Some(snippet) = source.split('\n').nth(line) {
        let snippet = snippet.replace('\t', " ");
        let mut marks: String =
            snippet.chars().take(column).map(|c| if c.is_ascii() { '.' } else { '\u{ff0e}' }).collect();
        let marked = snippet.chars().nth(column);
        marks.push(if marked.is_none_or(|c| c.is_ascii()) { '^' } else { '\u{ff3e}' });
        text.push_str(&format!("\n | {snippet}\n | {marks}"));
    }
    text
}
