//! `trimtab exec`.

use std::io::{IsTerminal, stdin, stdout};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use api::k8s_openapi::api::core::v1::Pod;
use api::k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use clap::Args;
use client::kube::Api;
use client::kube::api::{AttachParams, AttachedProcess, TerminalSize};
use futures::SinkExt as _;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};

use super::pods::{containers, default_container, no_container, pods_of};
use super::resources::Resources;
use super::session::Connection;
use super::value::text_at;

/// Runs a program in a container.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  trimtab exec web-5d9 -- ls /\n  trimtab exec -it deploy/web -- sh\n  \
    tar c . | trimtab exec -i web-5d9 -c app -- tar x -C /tmp")]
pub(crate) struct Exec {
    /// A pod, or TYPE/NAME of what has pods.
    #[arg(value_name = "POD|TYPE/NAME")]
    what: String,
    /// The program and its arguments, after `--`.
    #[arg(last = true, required = true)]
    command: Vec<String>,
    #[command(flatten)]
    at: Connection,
    /// The container.
    #[arg(long, short)]
    container: Option<String>,
    /// Pass standard input on.
    #[arg(long, short = 'i')]
    stdin: bool,
    /// With a terminal.
    #[arg(long, short = 't')]
    tty: bool,
    /// Only the program's output.
    #[arg(long, short)]
    quiet: bool,
}

/// Runs it; the exit code is the program's.
pub(crate) async fn run(exec: Exec) -> Result<ExitCode> {
    let session = exec.at.open()?;
    let pods = if exec.what.contains('/') && !exec.what.starts_with("pod/") {
        let resources = Resources::discover(&session).await?;
        pods_of(&session, &resources, &exec.what).await?
    } else {
        let name = exec.what.strip_prefix("pod/").unwrap_or(&exec.what);
        vec![session.get(&format!("/api/v1/namespaces/{}/pods/{name}", session.namespace)).await?]
    };
    let pod = pods.first().context("there is no such pod")?;
    let name = text_at(pod, "/metadata/name");
    if matches!(text_at(pod, "/status/phase"), "Succeeded" | "Failed") {
        bail!("cannot exec into a container in a completed pod; current phase is {}", text_at(pod, "/status/phase"));
    }
    let container = container(&exec, pod)?;
    let tty = exec.tty && stdin().is_terminal();
    if exec.tty && !tty {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    let params = AttachParams {
        container: Some(container),
        stdin: exec.stdin,
        stdout: true,
        // A terminal has one stream for both.
        stderr: !tty,
        tty,
        ..AttachParams::default()
    };
    let api: Api<Pod> = Api::namespaced(session.client.clone(), &session.namespace);
    let process = api.exec(name, &exec.command, &params).await.map_err(refused)?;
    let raw = tty.then(Raw::enter).transpose()?;
    let status = attend(process, exec.stdin, tty).await;
    drop(raw);
    outcome(status?)
}

fn container(exec: &Exec, pod: &Value) -> Result<String> {
    match &exec.container {
        Some(name) if containers(pod).contains(name) => Ok(name.clone()),
        Some(name) => bail!("{}", no_container(pod, name)),
        None => default_container(pod).context("the pod has no containers"),
    }
}

/// Why the session did not begin.
fn refused(error: client::kube::Error) -> anyhow::Error {
    match error {
        client::kube::Error::Api(status) => anyhow!("unable to upgrade connection: {}", status.message),
        other => anyhow::Error::from(other).context("unable to upgrade connection"),
    }
}

/// Moves bytes until the program has ended; returns how.
async fn attend(mut process: AttachedProcess, with_input: bool, tty: bool) -> Result<Option<Status>> {
    let status = process.take_status().context("the connection carries no status")?;
    if let Some(input) = process.stdin().filter(|_| with_input) {
        // Ends with the process: nobody waits for a key that is never pressed.
        tokio::spawn(copy(tokio::io::stdin(), input));
    }
    if let Some(mut sizes) = process.terminal_size().filter(|_| tty) {
        tokio::spawn(async move {
            let mut changes = signal(SignalKind::window_change()).ok();
            while let Ok(size) = tcgetwinsize(stdout()) {
                let size = TerminalSize { width: size.ws_col, height: size.ws_row };
                let Some(changes) = &mut changes else { break };
                if sizes.send(size).await.is_err() || changes.recv().await.is_none() {
                    break;
                }
            }
        });
    }
    let out = process.stdout().map(|stream| copy(stream, tokio::io::stdout()));
    let errors = process.stderr().map(|stream| copy(stream, tokio::io::stderr()));
    let output = async move {
        if let Some(out) = out {
            out.await
        }
    };
    let errors = async move {
        if let Some(errors) = errors {
            errors.await
        }
    };
    let ((), (), status) = tokio::join!(output, errors, status);
    Ok(status)
}

/// Copies until either side ends; that is no error here.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}

fn outcome(status: Option<Status>) -> Result<ExitCode> {
    let Some(status) = status else { bail!("the connection was lost before the program ended") };
    if status.status.as_deref() == Some("Success") {
        return Ok(ExitCode::SUCCESS);
    }
    let causes = status.details.and_then(|d| d.causes).unwrap_or_default();
    let code = causes
        .iter()
        .find(|c| c.reason.as_deref() == Some("ExitCode"))
        .and_then(|c| c.message.as_deref()?.parse::<u8>().ok());
    match code {
        Some(code) => {
            eprintln!("command terminated with exit code {code}");
            Ok(ExitCode::from(code))
        }
        None => Err(anyhow!("{}", status.message.unwrap_or_default())),
    }
}

/// The terminal without its own editing and signals, until dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0);
    }
}
