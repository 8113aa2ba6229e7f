//! The user's verbs: `trimtab get`, `apply` and the like, with kubectl's flags for the common cases.

mod apply;
mod delete;
mod describe;
mod exec;
mod files;
mod get;
mod logs;
mod pods;
mod resources;
mod rollout;
mod scale;
mod session;
pub(crate) mod value;
mod wait;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// One verb.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    Apply(apply::Apply),
    Get(get::Get),
    Describe(describe::Describe),
    Delete(delete::Delete),
    Logs(logs::Logs),
    Exec(exec::Exec),
    Scale(scale::Scale),
    Rollout(rollout::Rollout),
    Wait(wait::Wait),
}

/// Does it. What goes wrong is told on standard error in kubectl's words; the exit code is then 1, or that of the
/// program that `exec` ran.
pub(crate) async fn run(verb: Verb) -> Result<ExitCode> {
    let done = match verb {
        Verb::Apply(arguments) => apply::run(arguments).await,
        Verb::Get(arguments) => get::run(arguments).await,
        Verb::Describe(arguments) => describe::run(arguments).await,
        Verb::Delete(arguments) => delete::run(arguments).await,
        Verb::Logs(arguments) => logs::run(arguments).await,
        Verb::Exec(arguments) => exec::run(arguments).await,
        Verb::Scale(arguments) => scale::run(arguments).await,
        Verb::Rollout(arguments) => rollout::run(arguments).await,
        Verb::Wait(arguments) => wait::run(arguments).await,
    };
    Ok(done.unwrap_or_else(|error| {
        eprintln!("{}", worded(&error));
        ExitCode::FAILURE
    }))
}

/// An error with its causes; the server's own words stand alone.
fn worded(error: &anyhow::Error) -> String {
    match error.downcast_ref::<session::Refusal>() {
        Some(refusal) => {
            let around: Vec<String> =
                error.chain().map(ToString::to_string).take_while(|t| *t != refusal.to_string()).collect();
            if around.is_empty() { refusal.to_string() } else { format!("{}: {refusal}", around.join(": ")) }
        }
        // Made here in the server's words.
        None if error.to_string().starts_with("Error from server") => error.to_string(),
        None => format!("error: {error:#}"),
    }
}
