//! `trimtab wait`, and waiting for one object's sake.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use futures::{AsyncBufReadExt as _, StreamExt as _};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::files::Files;
use super::resources::{Aim, Resources, aims};
use super::session::{Connection, JSON, Session, query};
use super::value::{list, number_at, text, text_at};
use crate::print::jsonpath::{Template, show};

/// Waits until objects have a condition, a value, are there, or are gone.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  trimtab wait --for=condition=Ready pod/web\n  \
    trimtab wait --for=condition=Available deployment --all --timeout=60s\n  trimtab wait --for=delete pod -l app=web\n  \
    trimtab wait --for=jsonpath='{.status.phase}'=Running pod/web")]
pub(crate) struct Wait {
    /// TYPE NAME..., TYPE/NAME..., or TYPE with -l or --all.
    #[arg(value_name = "TYPE[/NAME]")]
    what: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    at: Connection,
    /// condition=NAME[=VALUE], jsonpath=PATH[=VALUE], create, delete.
    #[arg(long = "for", value_name = "WHAT")]
    until: String,
    /// Only objects with these labels.
    #[arg(long, short = 'l', default_value = "")]
    selector: String,
    /// All objects of the type.
    #[arg(long)]
    all: bool,
    /// All namespaces.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// How long each object may take; 0s looks once.
    #[arg(long, default_value = "30s", value_parser = duration)]
    timeout: Duration,
}

/// What is waited for.
#[derive(Debug)]
pub(crate) enum Until {
    /// A condition of this type with this status (any case).
    Condition(String, String),
    /// A JSONPath with this value, or any.
    Path(Template, Option<String>),
    /// It is there.
    There,
    /// The object with this uid (or any, where that is empty) is gone.
    Gone(String),
}

impl Until {
    fn parse(text: &str) -> Result<Self> {
        let (word, rest) = text.split_once('=').unwrap_or((text, ""));
        Ok(match word.to_lowercase().as_str() {
            "delete" => Self::Gone(String::new()),
            "create" => Self::There,
            "condition" => {
                let (name, value) = rest.split_once('=').unwrap_or((rest, "true"));
                Self::Condition(name.to_lowercase(), value.to_lowercase())
            }
            "jsonpath" => {
                let end = if rest.starts_with('{') {
                    rest.find('}').map_or(rest.len(), |at| at + 1)
                } else {
                    rest.find('=').unwrap_or(rest.len())
                };
                let (path, value) = rest.split_at(end);
                Self::Path(Template::parse(path)?, value.strip_prefix('=').map(str::to_owned))
            }
            _ => bail!("unrecognized condition: {text:?}"),
        })
    }

    /// Whether an object (none: it is not there) is as waited for.
    fn holds(&self, object: Option<&Value>) -> bool {
        match (self, object) {
            (Self::Gone(uid), Some(object)) => !uid.is_empty() && text_at(object, "/metadata/uid") != uid,
            (Self::Gone(_), None) => true,
            (_, None) => false,
            (Self::There, Some(_)) => true,
            (Self::Condition(kind, value), Some(object)) => condition(object, kind, value),
            (Self::Path(template, value), Some(object)) => {
                let found = template.values(object);
                match value {
                    Some(value) => found.iter().any(|v| show(v) == *value),
                    None => !found.is_empty(),
                }
            }
        }
    }
}

/// A condition counts only when it was written for the object's current generation.
fn condition(object: &Value, kind: &str, value: &str) -> bool {
    let conditions = object.get("status").map_or(&[] as &[Value], |status| list(status, "conditions"));
    let found = conditions.iter().find(|c| text(c, "type").to_lowercase() == kind);
    let observed = object.pointer("/status/observedGeneration").and_then(Value::as_i64);
    let current = observed.is_none_or(|n| n >= number_at(object, "/metadata/generation"));
    found.is_some_and(|c| text(c, "status").to_lowercase() == value && current)
}

/// Reads `30s`, `1m30s`, `2h`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no duration: 30s, 5m, 1h");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(bad()),
        };
        total += number.parse::<f64>().map_err(|_| bad())? * seconds;
        rest = tail;
    }
    Duration::try_from_secs_f64(total).map_err(|_| bad())
}

/// Waits for each object.
pub(crate) async fn run(wait: Wait) -> Result<ExitCode> {
    let goal = Until::parse(&wait.until)?;
    let session = wait.at.open()?;
    let resources = Resources::discover(&session).await?;
    let aims =
        if wait.files.filename.is_empty() { aims(&wait.what, &resources)? } else { of_files(&wait, &resources)? };
    let mut any = false;
    for aim in aims {
        for (namespace, name) in names(&wait, &session, &aim).await? {
            any = true;
            let path = aim.resource.object(&namespace, &name);
            let label = format!("{}/{name}", aim.resource.name());
            if matches!(goal, Until::Condition(..) | Until::Path(..)) {
                // What is not there is an error, not something to wait for.
                session.get(&path).await?;
            }
            if matches!(goal, Until::Gone(_)) && session.find(&path).await?.is_none() {
                continue;
            }
            if until(&session, &path, &goal, wait.timeout).await.is_err() {
                let plural = aim.resource.plural_name();
                bail!("timed out waiting for the condition on {plural}/{name}");
            }
            println!("{label} {}", if matches!(goal, Until::Gone(_)) { "deleted" } else { "condition met" });
        }
    }
    if !any && !matches!(goal, Until::Gone(_)) {
        bail!("no matching resources found");
    }
    Ok(ExitCode::SUCCESS)
}

fn of_files(wait: &Wait, resources: &Resources) -> Result<Vec<Aim>> {
    let objects = wait.files.objects()?;
    let aim = |object: &Value| -> Result<Aim> {
        let resource = resources.of_object(text(object, "apiVersion"), text(object, "kind"))?.clone();
        Ok(Aim { resource, names: vec![text_at(object, "/metadata/name").into()] })
    };
    objects.iter().map(|(_, object)| aim(object)).collect()
}

async fn names(wait: &Wait, session: &Session, aim: &Aim) -> Result<Vec<(String, String)>> {
    if !aim.names.is_empty() {
        return Ok(aim.names.iter().map(|name| (session.namespace.clone(), name.clone())).collect());
    }
    if wait.selector.is_empty() && !wait.all {
        bail!("resource name may not be empty: name objects, or use -l or --all");
    }
    let namespace = if wait.all_namespaces { "" } else { session.namespace.as_str() };
    let path = format!("{}{}", aim.resource.path(namespace), query(&[("labelSelector", &wait.selector)]));
    let found = session.get(&path).await?;
    let name =
        |item: &Value| (text_at(item, "/metadata/namespace").to_owned(), text_at(item, "/metadata/name").to_owned());
    Ok(list(&found, "items").iter().map(name).collect())
}

/// Watches one object until it is as wanted; an error when that takes longer. No time at all means for ever here, since
/// a look comes first.
pub(crate) async fn until(session: &Session, path: &str, goal: &Until, time: Duration) -> Result<()> {
    let deadline = Instant::now() + if time.is_zero() { FOREVER } else { time };
    let (collection, name) = path.rsplit_once('/').unwrap_or((path, ""));
    let fields = format!("metadata.name={name}");
    loop {
        let found = session.get(&format!("{collection}{}", query(&[("fieldSelector", &fields)]))).await?;
        if goal.holds(list(&found, "items").first()) {
            return Ok(());
        }
        let version = text_at(&found, "/metadata/resourceVersion");
        let pairs = [("fieldSelector", fields.as_str()), ("watch", "true"), ("resourceVersion", version)];
        let watching = changes(session, format!("{collection}{}", query(&pairs)), goal);
        match timeout_at(deadline, watching).await {
            Ok(Ok(true)) => return Ok(()),
            // The watch ended: look again.
            Ok(Ok(false)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => bail!("timed out"),
        }
    }
}

/// As long as anyone waits.
const FOREVER: Duration = Duration::from_secs(30 * 24 * 3600);

async fn changes(session: &Session, path: String, goal: &Until) -> Result<bool> {
    let mut lines = session.stream(&path, JSON).await?.lines();
    while let Some(line) = lines.next().await {
        let event: Value = serde_json::from_str(&line?)?;
        let object = event.get("object");
        let there = match text(&event, "type") {
            "DELETED" => None,
            "ERROR" => return Ok(false),
            _ => object,
        };
        if goal.holds(there) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::{Until, duration};
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn durations_are_go_s() {
        for (text, seconds) in [("30s", 30), ("1m30s", 90), ("2h", 7200), ("5", 5), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        ["", "s", "5x", "-1s"].iter().skip(1).for_each(|bad| assert!(duration(bad).is_err(), "{bad}"));
    }

    #[test]
    fn goals_are_met_by_objects_of_the_current_generation() {
        let object = |observed: i64, ready: &str| {
            json!({"metadata": {"generation": 2, "uid": "1"}, "status": {"phase": "Running", "observedGeneration": observed,
                "conditions": [{"type": "Ready", "status": ready}]}})
        };
        let cases = [
            ("condition=Ready", object(2, "True"), true),
            ("condition=ready=false", object(2, "False"), true),
            ("condition=Ready", object(1, "True"), false),
            ("jsonpath={.status.phase}=Running", object(1, ""), true),
            ("jsonpath=.status.phase=Pending", object(1, ""), false),
            ("jsonpath={.status.nope}", object(1, ""), false),
            ("create", object(1, ""), true),
            ("delete", object(1, ""), false),
        ];
        for (text, object, want) in cases {
            let held = Until::parse(text).map(|goal| goal.holds(Some(&object)));
            assert_eq!(held.ok(), Some(want), "{text}");
        }
        assert!(Until::Gone("2".into()).holds(Some(&object(1, ""))));
    }
}
