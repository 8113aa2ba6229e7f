//! How far a pull or push has come, layer by layer: a bar each on a terminal, a line each when it is done in a pipe.

use std::collections::BTreeMap;
use std::io::{IsTerminal, stderr};
use std::sync::Mutex;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use runtime_image::Progress;

use super::show::size;

/// Layers under way.
pub(super) struct Layers {
    bars: Option<MultiProgress>,
    known: Mutex<BTreeMap<String, Layer>>,
}

struct Layer {
    bar: Option<ProgressBar>,
    total_bytes: u64,
    /// The last thing that was said of it.
    said: &'static str,
}

impl Layers {
    pub(super) fn new() -> Self {
        Self { bars: stderr().is_terminal().then(MultiProgress::new), known: Mutex::default() }
    }

    /// Shows a step.
    pub(super) fn step(&self, step: Progress) {
        match step {
            Progress::Resolved { layers, total_bytes } => self.say(&format!("{layers} layers, {}", size(total_bytes))),
            Progress::Attached { documents } => self.say(&format!("referrers: {documents}")),
            Progress::Present { digest } => self.layer(&digest, 0, 0, "already there"),
            Progress::Unpacked { digest } => self.layer(&digest, 0, 0, "unpacked"),
            Progress::Fetched { digest, done_bytes, total_bytes } => {
                self.layer(&digest, done_bytes, total_bytes, if done_bytes < total_bytes { "" } else { "fetched" });
            }
            Progress::Sent { digest, done_bytes, total_bytes } => {
                self.layer(&digest, done_bytes, total_bytes, if done_bytes < total_bytes { "" } else { "sent" });
            }
        }
    }

    /// Nothing more comes: bars go, lines stay.
    pub(super) fn finish(&self) {
        if let Some(bars) = &self.bars {
            let _ = bars.clear();
        }
    }

    fn layer(&self, digest: &str, done_bytes: u64, total_bytes: u64, words: &'static str) {
        let Ok(mut known) = self.known.lock() else { return };
        let layer = known.entry(digest.to_owned()).or_insert_with(|| Layer {
            bar: self.bars.as_ref().map(|bars| bars.add(bar(digest, total_bytes))),
            total_bytes,
            said: "",
        });
        layer.total_bytes = layer.total_bytes.max(total_bytes);
        match &layer.bar {
            Some(bar) => {
                bar.set_length(layer.total_bytes);
                bar.set_position(if words.is_empty() { done_bytes } else { layer.total_bytes });
                bar.set_message(words);
            }
            None if !words.is_empty() && layer.said != words => {
                let bytes =
                    if layer.total_bytes > 0 { format!(", {}", size(layer.total_bytes)) } else { String::new() };
                eprintln!("{}: {words}{bytes}", short(digest));
            }
            None => {}
        }
        layer.said = words;
    }

    fn say(&self, line: &str) {
        match &self.bars {
            Some(bars) => drop(bars.println(line)),
            None => eprintln!("{line}"),
        }
    }
}

fn bar(digest: &str, total_bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} {bar:30} {bytes:>10} / {total_bytes:10} {msg}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total_bytes).with_style(style).with_prefix(short(digest).to_owned())
}

fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}
