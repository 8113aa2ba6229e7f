//! The user's verbs: `trimtab get`, `apply` and the like, with kubectl's flags for the common cases.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// One verb.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {}

/// Does it.
pub(crate) async fn run(verb: Verb) -> Result<ExitCode> {
    match verb {}
}
