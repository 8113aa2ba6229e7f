//! Stories: shell lines and what they print, checked in.
//!
//! A line `$ command` runs it; `~ command` repeats it until it prints what is expected (at most a minute). The lines
//! that follow are its output, both streams; `[..]` in one stands for any text, a line `...` for any lines, and
//! `exit N` is added when it fails. `UPDATE_STORIES=1` writes what was printed into the file instead.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks of a `~` line.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Where a story's lines run: with kubectl and trimtab at hand, `$KUBECONFIG` set, and a folder `$WORK`. On clusters of this
/// machine `$PROGRAMS` is the folder of the examples.
pub trait Place {
    /// Runs a shell line.
    fn shell(&self, line: &str) -> Result<Output>;
    /// What those who run there have said last.
    fn logs(&self) -> String;
}

struct Step {
    command: String,
    repeat: bool,
    expected: Vec<String>,
    line: usize,
}

/// Tells one story.
pub fn tell(place: &dyn Place, file: &Path) -> Result<()> {
    let text = fs::read_to_string(file)?;
    let mut told = Vec::new();
    for part in parse(&text) {
        match part {
            Part::Comment(line) => told.push(line),
            Part::Step(step) => {
                let printed = perform(place, &step)?;
                let fits = fits(&step.expected, &printed);
                if !fits && std::env::var_os("UPDATE_STORIES").is_none() {
                    let (wanted, got) = (step.expected.join("\n"), printed.join("\n"));
                    bail!("{}:{}: {}\nexpected:\n{wanted}\nprinted:\n{got}", file.display(), step.line, step.command);
                }
                told.push(format!("{} {}", if step.repeat { '~' } else { '$' }, step.command));
                told.extend(if fits { step.expected } else { printed });
            }
        }
    }
    if std::env::var_os("UPDATE_STORIES").is_some() {
        fs::write(file, told.join("\n") + "\n")?;
    }
    Ok(())
}

enum Part {
    Comment(String),
    Step(Step),
}

fn parse(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let step = |command: &str, repeat| {
            Part::Step(Step { command: command.into(), repeat, expected: Vec::new(), line: at + 1 })
        };
        if let Some(command) = line.strip_prefix("$ ") {
            parts.push(step(command, false));
        } else if let Some(command) = line.strip_prefix("~ ") {
            parts.push(step(command, true));
        } else if line.starts_with('#') || line.is_empty() {
            parts.push(Part::Comment(line.into()));
        } else if let Some(Part::Step(step)) = parts.last_mut() {
            step.expected.push(line.into());
        }
    }
    parts
}

fn perform(place: &dyn Place, step: &Step) -> Result<Vec<String>> {
    let until = Instant::now() + PATIENCE;
    loop {
        let printed = once(place, &step.command)?;
        if !step.repeat || fits(&step.expected, &printed) || Instant::now() > until {
            return Ok(printed);
        }
        // What is awaited is somebody else's state: there is no event to wait for but another look.
        std::thread::park_timeout(LOOK_AGAIN);
    }
}

fn once(place: &dyn Place, command: &str) -> Result<Vec<String>> {
    let output = place.shell(&format!("exec 2>&1; {command}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines: Vec<String> = text.lines().filter(|l| !l.is_empty()).map(|l| l.trim_end().to_owned()).collect();
    if !output.status.success() {
        lines.push(format!("exit {}", output.status.code().unwrap_or(-1)));
    }
    Ok(lines)
}

fn fits(expected: &[String], printed: &[String]) -> bool {
    match expected.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first == "..." => (0..=printed.len()).any(|skip| fits(rest, &printed[skip..])),
        Some((first, rest)) => {
            printed.split_first().is_some_and(|(line, others)| line_fits(first, line) && fits(rest, others))
        }
    }
}

fn line_fits(expected: &str, printed: &str) -> bool {
    match expected.split_once("[..]") {
        None => expected == printed,
        Some((before, after)) => printed.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| line_fits(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{fits, line_fits};

    #[test]
    fn wildcards_stand_for_text_and_lines() {
        assert!(line_fits("a[..]c[..]", "abbcd") && line_fits("x", "x") && !line_fits("a[..]c", "ab"));
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert!(fits(&lines("a\n...\nd"), &lines("a\nb\nc\nd")));
        assert!(!fits(&lines("a\n...\nd"), &lines("a\nb")) && !fits(&[], &lines("a")));
    }
}
