//! Words of a command line: options first, `--name value` or `--name=value`, then the rest.

use std::collections::VecDeque;

use crate::{Error, Result};

/// The words not yet read.
#[derive(Debug)]
pub(super) struct Arguments {
    words: VecDeque<String>,
    /// Words that are no options, found while looking for options.
    passed: VecDeque<String>,
}

fn is_option(word: &str) -> bool {
    word.starts_with('-') && word != "-"
}

impl Arguments {
    pub(super) fn new(words: Vec<String>) -> Self {
        Self { words: words.into(), passed: VecDeque::new() }
    }

    /// The next option's name, wherever it stands among the words. A value after `=` becomes the next word. Once there
    /// is none, the words left are those that are no options, in order.
    pub(super) fn option(&mut self) -> Option<String> {
        while self.words.front().is_some_and(|word| !is_option(word)) {
            self.passed.extend(self.words.pop_front());
        }
        let option = self.leading_option();
        if option.is_none() {
            self.passed.append(&mut self.words);
            self.words = std::mem::take(&mut self.passed);
        }
        option
    }

    /// The next option's name, if the next word is one: for commands with words of somebody else behind their own.
    pub(super) fn leading_option(&mut self) -> Option<String> {
        let word = self.words.pop_front_if(|word| is_option(word))?;
        if word == "--" {
            return None;
        }
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

    /// The only words of a command: a container's id.
    pub(super) fn only_id(&mut self) -> Result<String> {
        if let Some(option) = self.option() {
            return Err(Error::Invalid(format!("unknown option {option}")));
        }
        let id = self.positional("a container id")?;
        self.end().map(|()| id)
    }

    /// Nothing may be left.
    pub(super) fn end(&mut self) -> Result<()> {
        self.next().map_or(Ok(()), |word| Err(Error::Invalid(format!("unexpected argument {word:?}"))))
    }

    /// The next word, which stays.
    pub(super) fn peek(&self) -> Option<&str> {
        self.words.front().map(String::as_str)
    }

    pub(super) fn next(&mut self) -> Option<String> {
        self.words.pop_front()
    }

    /// Everything that is left.
    pub(super) fn rest(&mut self) -> Vec<String> {
        self.words.drain(..).collect()
    }

    /// Forgets the rest for one word.
    pub(super) fn restart_with(&mut self, word: &str) {
        self.words = [word.to_owned()].into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_anywhere_or_lead() {
        let arguments = |line: &str| Arguments::new(line.split(' ').map(str::to_owned).collect());
        let mut anywhere = arguments("id --memory 5 --force=yes 9 -- -x");
        assert_eq!(anywhere.option().as_deref(), Some("--memory"));
        assert_eq!(anywhere.value("--memory").ok().as_deref(), Some("5"));
        assert_eq!(anywhere.option().as_deref(), Some("--force"));
        assert_eq!(anywhere.value("--force").ok().as_deref(), Some("yes"));
        assert_eq!(anywhere.option(), None);
        assert_eq!(anywhere.rest(), ["id", "9", "-x"]);
        let mut leading = arguments("-t id ls -la");
        assert_eq!(leading.leading_option().as_deref(), Some("-t"));
        assert_eq!(leading.leading_option(), None);
        assert_eq!(leading.rest(), ["id", "ls", "-la"]);
    }
}
