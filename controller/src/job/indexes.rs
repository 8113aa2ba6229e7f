//! Sets of completion indexes as text: `0,2-4`.

use std::collections::BTreeSet;

/// Reads such a text; what cannot be read, or is `completions` or more, is left out.
pub(super) fn parse(text: &str, completions: usize) -> BTreeSet<usize> {
    let mut set = BTreeSet::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            set.extend(first..=last.min(completions.saturating_sub(1)));
        }
    }
    set.retain(|i| *i < completions);
    set
}

/// Writes it, with runs of three and more shortened, and of two written out.
pub(super) fn write(set: &BTreeSet<usize>) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = set.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while let Some(next) = rest.next_if(|n| *n == last + 1) {
            last = next;
        }
        match last - first {
            0 => parts.push(first.to_string()),
            1 => parts.extend([first.to_string(), last.to_string()]),
            _ => parts.push(format!("{first}-{last}")),
        }
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::{parse, write};

    #[test]
    fn texts_come_back_as_upstream_writes_them() {
        for text in ["", "0", "0,1", "0-2", "1,3-5,7", "0,1,3,4,6-9"] {
            assert_eq!(write(&parse(text, 10)), text);
        }
        assert_eq!(write(&parse("0-99999999999,x,3", 4)), "0-3");
    }
}
