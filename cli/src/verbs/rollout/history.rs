//! `trimtab rollout history` and `undo`, from the ReplicaSets of a Deployment or the ControllerRevisions of others.

use anyhow::{Context, Result, bail};
use api::LabelSelector;
use serde_json::{Value, json};

use super::Workload;
use crate::print;
use crate::verbs::session::{Session, patch, query};
use crate::verbs::value::{list, number_at, text, text_at};

/// One earlier template.
struct Revision {
    number: i64,
    cause: String,
    /// As a merge of the workload's spec: `{"template": ...}`.
    spec: Value,
}

const REVISION: &str = "/metadata/annotations/deployment.kubernetes.io~1revision";
const CAUSE: &str = "/metadata/annotations/kubernetes.io~1change-cause";

async fn revisions(session: &Session, workload: &Workload) -> Result<Vec<Revision>> {
    let object = session.get(&workload.path()).await?;
    let selector =
        LabelSelector::from_object(object.pointer("/spec/selector")).map(|s| s.to_string()).unwrap_or_default();
    let deployment = workload.resource.kind == "Deployment";
    let plural = if deployment { "replicasets" } else { "controllerrevisions" };
    let base = format!("/apis/apps/v1/namespaces/{}/{plural}", workload.namespace);
    let found = session.get(&format!("{base}{}", query(&[("labelSelector", &selector)]))).await?;
    let uid = text_at(&object, "/metadata/uid");
    let owned = |item: &&Value| {
        let owners = item.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten();
        owners.into_iter().any(|owner| text(owner, "uid") == uid)
    };
    let mut all: Vec<Revision> = list(&found, "items")
        .iter()
        .filter(owned)
        .map(|item| if deployment { of_set(item) } else { of_revision(item) })
        .collect();
    all.retain(|revision| revision.number > 0);
    all.sort_by_key(|revision| revision.number);
    Ok(all)
}

fn of_set(set: &Value) -> Revision {
    let mut template = set.pointer("/spec/template").cloned().unwrap_or_default();
    // The label tells the pods of one ReplicaSet from those of the next.
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove("pod-template-hash");
    }
    let number = text_at(set, REVISION).parse().unwrap_or_default();
    Revision { number, cause: text_at(set, CAUSE).into(), spec: json!({"template": template}) }
}

fn of_revision(revision: &Value) -> Revision {
    let spec = revision.pointer("/data/spec").cloned().unwrap_or_default();
    Revision { number: number_at(revision, "/revision"), cause: text_at(revision, CAUSE).into(), spec }
}

/// Shows all revisions, or one's template.
pub(super) async fn show(session: &Session, workload: &Workload, revision: i64) -> Result<()> {
    let all = revisions(session, workload).await?;
    if revision > 0 {
        let found = all.iter().find(|r| r.number == revision);
        let found = found.with_context(|| format!("unable to find the specified revision {revision}"))?;
        println!("{} with revision #{revision}", workload.label());
        println!("{}", print::describe::template(found.spec.get("template").unwrap_or(&Value::Null)));
        return Ok(());
    }
    let mut table = String::from("REVISION\tCHANGE-CAUSE\n");
    for revision in &all {
        let cause = if revision.cause.is_empty() { "<none>" } else { &revision.cause };
        table.push_str(&format!("{}\t{cause}\n", revision.number));
    }
    println!("{} \n{}", workload.label(), print::align(&table, 0, 2));
    Ok(())
}

/// Puts an earlier template back; the one before where none is named.
pub(super) async fn undo(session: &Session, workload: &Workload, to: i64) -> Result<()> {
    let all = revisions(session, workload).await?;
    let object = session.get(&workload.path()).await?;
    if object.pointer("/spec/paused") == Some(&Value::Bool(true)) {
        bail!("you cannot rollback a paused deployment; resume it first with 'trimtab rollout resume' and try again");
    }
    let found = match to {
        0 => all.iter().rev().nth(1).context("no rollout history found")?,
        to => all
            .iter()
            .find(|r| r.number == to)
            .with_context(|| format!("unable to find specified revision {to} in history"))?,
    };
    let template = found.spec.get("template").cloned().unwrap_or_default();
    if object.pointer("/spec/template") == Some(&template) {
        println!("{} skipped rollback (current template already matches revision {})", workload.label(), found.number);
        return Ok(());
    }
    let replace = json!([{"op": "replace", "path": "/spec/template", "value": template}]);
    session.patch(&workload.path(), patch::JSON, &replace).await?;
    println!("{} rolled back", workload.label());
    Ok(())
}
