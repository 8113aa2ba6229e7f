//! `trimtab logs`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::io::AsyncReadExt as _;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::pods::{containers, default_container, no_container, pods_of};
use super::resources::Resources;
use super::session::{Connection, Session, query};
use super::value::text_at;

/// Shows what containers wrote.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  trimtab logs web-5d9\n  trimtab logs -f deploy/web\n  trimtab logs web-5d9 -c sidecar --tail=20\n  \
    trimtab logs -l app=web --prefix\n  trimtab logs web-5d9 --previous"
)]
pub(crate) struct Logs {
    /// A pod, or TYPE/NAME of what has pods.
    #[arg(value_name = "POD|TYPE/NAME")]
    what: Option<String>,
    /// The container.
    #[arg(value_name = "CONTAINER")]
    second: Option<String>,
    #[command(flatten)]
    at: Connection,
    /// The container.
    #[arg(long, short)]
    container: Option<String>,
    /// All containers.
    #[arg(long)]
    all_containers: bool,
    /// Go on as more is written.
    #[arg(long, short)]
    follow: bool,
    /// Of the container before the last restart.
    #[arg(long, short)]
    previous: bool,
    /// Only so many lines from the end; -1 is all.
    #[arg(long, allow_negative_numbers = true)]
    tail: Option<i64>,
    /// Only what is younger than this.
    #[arg(long, value_parser = super::wait::duration)]
    since: Option<Duration>,
    /// Only what is younger than this time (RFC 3339).
    #[arg(long, default_value = "")]
    since_time: String,
    /// Times before lines.
    #[arg(long)]
    timestamps: bool,
    /// At most so many bytes.
    #[arg(long)]
    limit_bytes: Option<u64>,
    /// Pod and container before each line.
    #[arg(long)]
    prefix: bool,
    /// Pods with these labels.
    #[arg(long, short = 'l', default_value = "")]
    selector: String,
}

/// How many logs may be followed at once.
const MOST: usize = 5;

/// Shows them, one after the other; those that are followed all at once.
pub(crate) async fn run(logs: Logs) -> Result<ExitCode> {
    let session = logs.at.open()?;
    let pods = match &logs.what {
        Some(what) => {
            let resources = Resources::discover(&session).await?;
            let mut pods = pods_of(&session, &resources, what).await?;
            // Of several pods of one owner the first is shown, as kubectl does.
            if pods.len() > 1 {
                eprintln!(
                    "Found {} pods, using pod/{}",
                    pods.len(),
                    text_at(pods.first().unwrap_or(&Value::Null), "/metadata/name")
                );
                pods.truncate(1);
            }
            pods
        }
        None if logs.selector.is_empty() => bail!("expected 'logs (POD | TYPE/NAME) [CONTAINER_NAME]'"),
        None => selected(&session, &logs.selector).await?,
    };
    let mut sources = Vec::new();
    for pod in &pods {
        for container in chosen(&logs, pod)? {
            sources.push((text_at(pod, "/metadata/name").to_owned(), container));
        }
    }
    if logs.follow && sources.len() > MOST {
        bail!("you are attempting to follow {} log streams, but at most {MOST} can be followed", sources.len());
    }
    let many = sources.len() > 1 && logs.follow;
    let streams = sources.iter().map(|(pod, container)| one(&logs, &session, pod, container));
    if many {
        futures::future::try_join_all(streams).await?;
    } else {
        for stream in streams {
            stream.await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn selected(session: &Session, selector: &str) -> Result<Vec<Value>> {
    let path = format!("/api/v1/namespaces/{}/pods{}", session.namespace, query(&[("labelSelector", selector)]));
    let found = session.get(&path).await?;
    let pods = super::value::list(&found, "items").to_vec();
    if pods.is_empty() {
        eprintln!("No resources found in {} namespace.", session.namespace);
    }
    Ok(pods)
}

fn chosen(logs: &Logs, pod: &Value) -> Result<Vec<String>> {
    if logs.all_containers {
        return Ok(containers(pod));
    }
    match logs.container.as_ref().or(logs.second.as_ref()) {
        Some(name) if containers(pod).contains(name) => Ok(vec![name.clone()]),
        Some(name) => bail!("{}", no_container(pod, name)),
        None => Ok(vec![default_container(pod).context("the pod has no containers")?]),
    }
}

async fn one(logs: &Logs, session: &Session, pod: &str, container: &str) -> Result<()> {
    let tail = match logs.tail {
        Some(n) if n >= 0 => n.to_string(),
        // With a selector kubectl shows ten lines of each.
        None if !logs.selector.is_empty() => "10".into(),
        _ => String::new(),
    };
    let flag = |set: bool| if set { "true" } else { "" };
    let since = logs.since.map(|d| d.as_secs().max(1).to_string()).unwrap_or_default();
    let limit = logs.limit_bytes.map(|n| n.to_string()).unwrap_or_default();
    let pairs = [
        ("container", container),
        ("follow", flag(logs.follow)),
        ("previous", flag(logs.previous)),
        ("tailLines", tail.as_str()),
        ("sinceSeconds", since.as_str()),
        ("sinceTime", logs.since_time.as_str()),
        ("timestamps", flag(logs.timestamps)),
        ("limitBytes", limit.as_str()),
    ];
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/log{}", session.namespace, query(&pairs));
    let stream = session.stream(&path, "*/*").await?;
    let prefix = if logs.prefix { format!("[pod/{pod}/{container}] ") } else { String::new() };
    copy(stream, prefix.as_bytes()).await
}

/// Copies to standard output, as it comes; with a prefix line by line.
async fn copy(stream: impl futures::AsyncBufRead, prefix: &[u8]) -> Result<()> {
    let mut stream = std::pin::pin!(stream);
    let mut out = tokio::io::stdout();
    let mut buffer = vec![0; 32 * 1024];
    let mut at_start = true;
    loop {
        let count = stream.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..count).filter(|b| !b.is_empty()) else { break };
        if prefix.is_empty() {
            out.write_all(bytes).await?;
        } else {
            for line in bytes.split_inclusive(|b| *b == b'\n') {
                if at_start {
                    out.write_all(prefix).await?;
                }
                out.write_all(line).await?;
                at_start = line.ends_with(b"\n");
            }
        }
        out.flush().await?;
    }
    Ok(())
}
