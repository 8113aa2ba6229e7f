//! The command line: which role this process plays.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::{image, node, part, server, token, up, verbs, web};

/// A Kubernetes control plane and node in one program.
#[derive(Parser, Debug)]
#[command(name = "trimtab", version, propagate_version = true)]
#[command(
    after_help = "Start a whole cluster on this machine:\n  trimtab up\nThen, in another terminal:\n  trimtab get pods"
)]
struct Arguments {
    /// What to log: error, warn, info, debug, trace, or tracing's filter syntax.
    #[arg(long, global = true, env = "TRIMTAB_LOG", default_value = "warn")]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Starts a whole cluster on this machine.
    Up(up::Up),
    /// Stops all pods of an instance and removes everything it made on this machine.
    Down(node::Down),
    /// Starts a control plane alone.
    Server(server::Server),
    /// Joins this machine to a cluster as a node.
    Agent(node::Agent),
    /// Makes, lists and deletes tokens with which agents join.
    Token(token::Token),
    /// Pulls, pushes, imports, exports and removes images of this node.
    Image(image::Image),
    #[command(flatten)]
    Part(part::Part),
    #[command(flatten)]
    Verb(verbs::Verb),
    /// Prints a completion script for a shell.
    #[command(after_help = "Example:\n  trimtab completion bash > /etc/bash_completion.d/trimtab")]
    Completion {
        /// bash, elvish, fish, powershell or zsh.
        shell: clap_complete::Shell,
    },
    /// Serves files over HTTP: the quick start's web server.
    #[command(hide = true)]
    Web(web::Web),
    /// The OCI runtime's command line, usable as runc is.
    #[command(hide = true, disable_help_flag = true)]
    Oci {
        /// As runc's.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// One pod's supervisor; the agent starts it.
    #[command(hide = true)]
    Shim {
        /// The pod's run directory.
        run_dir: OsString,
    },
}

/// Plays the role that the arguments name.
pub(crate) fn run() -> ExitCode {
    // The runtime's roles come first: they must not share a process with threads, nor pay for parsing.
    let mut words = std::env::args_os().skip(1);
    match words.next().as_deref().and_then(|word| word.to_str()) {
        Some("shim") => return runtime_core::shim::main(Path::new(&words.next().unwrap_or_default())),
        Some("oci") => return runtime_core::oci::main(words.collect()),
        _ => {}
    }
    let arguments = Arguments::parse();
    match play(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play(arguments: Arguments) -> Result<ExitCode> {
    log_to_stderr(&arguments.log)?;
    if let Command::Image(image) = &arguments.command {
        image.prepare();
    }
    // Whoever comes second is told so by an error that changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(command(arguments.command));
    runtime.shutdown_background();
    code
}

async fn command(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(arguments) => up::run(arguments).await?,
        Command::Down(arguments) => node::down(arguments).await?,
        Command::Server(arguments) => server::run(arguments).await?,
        Command::Agent(arguments) => node::agent(arguments).await?,
        Command::Token(arguments) => token::run(arguments).await?,
        Command::Image(arguments) => return image::run(arguments).await,
        Command::Part(part) => part::run(part).await?,
        Command::Verb(verb) => return verbs::run(verb).await,
        Command::Web(arguments) => web::run(arguments).await?,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "trimtab", &mut script);
            // A reader such as `head` may have had enough of it.
            let _ = std::io::stdout().write_all(&script);
        }
        Command::Oci { .. } | Command::Shim { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn log_to_stderr(filter: &str) -> Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("--log {filter:?} is not a filter"))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
