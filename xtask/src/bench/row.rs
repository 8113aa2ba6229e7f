//! A row of figures: its contenders take turns, and what the turns brought becomes a table.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result};

use super::host::Host;

/// What a driver printed: values by the word before them.
pub(crate) type Samples = BTreeMap<String, Vec<f64>>;

/// A row of the table of targets.
pub(crate) struct Row {
    /// Its name there.
    pub(crate) id: &'static str,
    /// What is measured.
    pub(crate) what: &'static str,
    /// Whether a turn takes so long that each contender gets but one.
    pub(crate) once: bool,
    /// Whose turns they are: ours, the peers that were found, and what bounds them.
    pub(crate) contenders: for<'a> fn(&'a Host) -> Result<Vec<Contender<'a>>>,
}

/// Somebody who takes turns.
pub(crate) struct Contender<'a> {
    name: String,
    turn: Box<dyn FnMut() -> Result<Vec<Figure>> + 'a>,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(name: impl Into<String>, turn: impl FnMut() -> Result<Vec<Figure>> + 'a) -> Self {
        Self { name: name.into(), turn: Box::new(turn) }
    }
}

/// One figure of one turn, in the unit that its name says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: f64,
}

impl Figure {
    pub(crate) fn new(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), value }
    }
}

/// Median and 99th percentile of times in nanoseconds, in milliseconds.
pub(crate) fn percentiles(what: &str, nanoseconds: &[f64]) -> Vec<Figure> {
    let figure = |part: f64, name: &str| {
        let name = if what.is_empty() { format!("{name} ms") } else { format!("{what} {name} ms") };
        Figure::new(name, at(nanoseconds, part) / 1e6)
    };
    vec![figure(0.50, "p50"), figure(0.99, "p99")]
}

/// The value below which this part of all values lies; 0 where there are none.
fn at(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len().saturating_sub(1) as f64 * part).round();
    sorted.get(index as usize).copied().unwrap_or_default()
}

/// A contender's figures over its turns, in the order in which they first came.
#[derive(Default)]
struct Turns(Vec<(String, Vec<f64>)>);

impl Turns {
    fn add(&mut self, figures: Vec<Figure>) {
        for figure in figures {
            match self.0.iter_mut().find(|(name, _)| *name == figure.name) {
                Some((_, values)) => values.push(figure.value),
                None => self.0.push((figure.name, vec![figure.value])),
            }
        }
    }
}

impl Row {
    /// Measures and returns the table.
    pub(crate) fn measure(&self, host: &Host, rounds: usize) -> Result<String> {
        let mut contenders = (self.contenders)(host)?;
        let mut turns: Vec<Turns> = contenders.iter().map(|_| Turns::default()).collect();
        for index in order(contenders.len(), rounds, self.once) {
            let Some((contender, turns)) = contenders.get_mut(index).zip(turns.get_mut(index)) else { continue };
            turns.add((contender.turn)().with_context(|| contender.name.clone())?);
        }
        let named = contenders.iter().map(|c| c.name.as_str()).zip(&turns).collect::<Vec<_>>();
        Ok(format!("\n{}: {}\n{}", self.id, self.what, table(&named)))
    }
}

/// Whose turn it is: A B B A, so that what drifts meets everybody alike.
fn order(contenders: usize, rounds: usize, once: bool) -> Vec<usize> {
    let there = 0..contenders;
    if once {
        return there.collect();
    }
    let round: Vec<usize> = there.clone().chain(there.rev()).collect();
    round.repeat(rounds)
}

fn table(rows: &[(&str, &Turns)]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in rows.iter().flat_map(|(_, turns)| turns.0.iter().map(|(name, _)| name.as_str())) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let cell = |turns: &Turns, name: &str| {
        let found = turns.0.iter().find(|(known, _)| known == name);
        found.map_or_else(|| "-".to_owned(), |(_, values)| spread(values))
    };
    let mut lines =
        vec![std::iter::once(String::new()).chain(names.iter().map(ToString::to_string)).collect::<Vec<_>>()];
    for (name, turns) in rows {
        lines.push(std::iter::once((*name).to_owned()).chain(names.iter().map(|n| cell(turns, n))).collect());
    }
    align(&lines)
}

/// The median, and between which values the turns lay.
fn spread(values: &[f64]) -> String {
    match values {
        [one] => short(*one),
        _ => format!("{} ({}..{})", short(at(values, 0.5)), short(at(values, 0.0)), short(at(values, 1.0))),
    }
}

/// Three digits that mean something.
fn short(value: f64) -> String {
    let decimals = match value.abs() {
        x if x >= 100.0 => 0,
        x if x >= 10.0 => 1,
        x if x >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |at: usize| lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let padded: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "  {}", padded.join("   ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Figure, Turns, at, order, percentiles, table};

    #[test]
    fn turns_go_there_and_back() {
        assert_eq!(order(3, 2, false), [0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0]);
        assert_eq!(order(2, 5, true), [0, 1]);
    }

    #[test]
    fn percentiles_are_of_sorted_values() {
        let times: Vec<f64> = (1..=100).rev().map(|ms| f64::from(ms) * 1e6).collect();
        let want = [Figure::new("p50 ms", 51.0), Figure::new("p99 ms", 99.0)];
        assert_eq!(percentiles("", &times), want);
        assert_eq!(at(&[], 0.5), 0.0);
    }

    #[test]
    fn a_table_has_a_column_for_each_figure_and_a_dash_where_there_is_none() {
        let (mut one, mut two) = (Turns::default(), Turns::default());
        for value in [3.0, 1.0, 200.0] {
            one.add(vec![Figure::new("p50 ms", value)]);
        }
        two.add(vec![Figure::new("p50 ms", 0.5), Figure::new("MiB", 12.34)]);
        let text = table(&[("ours", &one), ("theirs", &two)]);
        assert!(text.contains("3.00 (1.00..200)"), "{text}");
        assert!(text.lines().nth(1).is_some_and(|line| line.ends_with('-')), "{text}");
        assert!(text.lines().nth(2).is_some_and(|line| line.contains("0.500") && line.ends_with("12.3")), "{text}");
    }
}
