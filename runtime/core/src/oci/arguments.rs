//! Words of a command line: options first, `--name value` or `--name=value`, then the rest.

use std::collections::VecDeque;

use crate::{Error, Result};

/// The words not yet read.
#[derive(Debug)]
pub(super) struct Arguments {
    words: VecDeque<String>,
}

impl Arguments {
    pub(super) fn new(words: Vec<String>) -> Self {
        Self { words: words.into() }
    }

    /// The next option's name, if the next word is one. A value after `=` becomes the next word.
    pub(super) fn option(&mut self) -> Option<String> {
        let word = self.words.front()?;
        if word == "--" {
            self.words.pop_front();
            return None;
        }
        if !word.starts_with('-') || word == "-" {
            return None;
        }
        let word = self.words.pop_front()?;
        match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => {
                self.words.push_front(value.to_owned());
                Some(name.to_owned())
            }
            _ => Some(word),
        }
    }

    /// The value of an option that has just been read.
    pub(super) fn value(&mut self, option: &str) -> Result<String> {
        self.next().ok_or_else(|| Error::Invalid(format!("{option} needs a value")))
    }

    /// The next word that must be there.
    pub(super) fn positional(&mut self, what: &str) -> Result<String> {
        self.next().ok_or_else(|| Error::Invalid(format!("{what} is missing")))
    }

    pub(super) fn next(&mut self) -> Option<String> {
        self.words.pop_front()
    }

    /// Everything that is left.
    pub(super) fn rest(&mut self) -> Vec<String> {
        self.words.drain(..).collect()
    }

    /// Whether a flag stands among what is left; it is taken out.
    pub(super) fn take_flag(&mut self, flag: &str) -> bool {
        let at = self.words.iter().position(|word| word == flag);
        at.is_some_and(|at| self.words.remove(at).is_some())
    }

    /// Forgets the rest for one word.
    pub(super) fn restart_with(&mut self, word: &str) {
        self.words = [word.to_owned()].into();
    }
}
