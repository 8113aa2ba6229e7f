//! `trimtab describe`.

use std::io::{Write as _, stdout};
use std::process::ExitCode;

use anyhow::{Result, bail};
use api::{LabelSelector, Timestamp};
use clap::Args;
use serde_json::Value;

use super::files::Files;
use super::resources::{Aim, Resource, Resources, aims};
use super::session::{Connection, Session, query};
use super::value::{list, text, text_at};
use crate::print::describe::{self, Related};

/// Shows all there is to know of objects, and what happened to them.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  trimtab describe pod web-5d9\n  trimtab describe node\n  trimtab describe deploy/web svc/web\n  \
    trimtab describe pods -l app=web"
)]
pub(crate) struct Describe {
    /// TYPE, TYPE NAME..., or TYPE/NAME... A name may be the beginning of one.
    #[arg(value_name = "TYPE[/NAME]")]
    what: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    at: Connection,
    /// Only objects with these labels.
    #[arg(long, short = 'l', default_value = "")]
    selector: String,
    /// All namespaces.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Their events too.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    show_events: bool,
}

/// Shows it.
pub(crate) async fn run(arguments: Describe) -> Result<ExitCode> {
    let session = arguments.at.open()?;
    let resources = Resources::discover(&session).await?;
    let aims = if arguments.files.filename.is_empty() {
        aims(&arguments.what, &resources)?
    } else {
        let objects = arguments.files.objects()?;
        let aim = |object: &Value| -> Result<Aim> {
            let resource = resources.of_object(text(object, "apiVersion"), text(object, "kind"))?.clone();
            Ok(Aim { resource, names: vec![text_at(object, "/metadata/name").into()] })
        };
        objects.iter().map(|(_, object)| aim(object)).collect::<Result<_>>()?
    };
    let mut first = true;
    for aim in aims {
        for object in found(&arguments, &session, &aim).await? {
            let related = related(&arguments, &session, &aim.resource, &object).await;
            let text = describe::describe(&aim.resource.group, &aim.resource.kind, &object, &related, Timestamp::now());
            write!(stdout(), "{}{text}", if first { "" } else { "\n\n" })?;
            first = false;
        }
    }
    if first {
        eprintln!("No resources found in {} namespace.", session.namespace);
    }
    Ok(ExitCode::SUCCESS)
}

async fn found(arguments: &Describe, session: &Session, aim: &Aim) -> Result<Vec<Value>> {
    let namespace = if arguments.all_namespaces { "" } else { session.namespace.as_str() };
    if aim.names.is_empty() {
        let path = format!("{}{}", aim.resource.path(namespace), query(&[("labelSelector", &arguments.selector)]));
        return Ok(list(&session.get(&path).await?, "items").to_vec());
    }
    let mut objects = Vec::new();
    for name in &aim.names {
        match session.find(&aim.resource.object(namespace, name)).await? {
            Some(object) => objects.push(object),
            None => objects.extend(beginning(session, aim, namespace, name).await?),
        }
    }
    Ok(objects)
}

/// Where no object has the name, those whose names begin with it.
async fn beginning(session: &Session, aim: &Aim, namespace: &str, prefix: &str) -> Result<Vec<Value>> {
    let all = session.get(&aim.resource.path(namespace)).await?;
    let fits = |item: &&Value| text_at(item, "/metadata/name").starts_with(prefix);
    let found: Vec<Value> = list(&all, "items").iter().filter(fits).cloned().collect();
    if found.is_empty() {
        bail!("Error from server (NotFound): {} {prefix:?} not found", aim.resource.plural_name());
    }
    Ok(found)
}

/// What a description needs besides; what cannot be had is left out.
async fn related(arguments: &Describe, session: &Session, resource: &Resource, object: &Value) -> Related {
    let namespace = text_at(object, "/metadata/namespace");
    let name = text_at(object, "/metadata/name");
    let items = async |path: String| session.get(&path).await.map(|l| list(&l, "items").to_vec()).unwrap_or_default();
    let mut related = Related::default();
    if arguments.show_events {
        related.events = Some(events(session, resource, object).await);
    }
    let selected =
        || LabelSelector::from_object(object.pointer("/spec/selector")).map(|s| s.to_string()).unwrap_or_default();
    match resource.kind.as_str() {
        "Deployment" => {
            let path =
                format!("/apis/apps/v1/namespaces/{namespace}/replicasets{}", query(&[("labelSelector", &selected())]));
            related.replica_sets = items(path).await.into_iter().filter(|set| owned(set, object)).collect();
        }
        "ReplicaSet" | "StatefulSet" | "DaemonSet" => {
            let path = format!("/api/v1/namespaces/{namespace}/pods{}", query(&[("labelSelector", &selected())]));
            related.pods = items(path).await.into_iter().filter(|pod| owned(pod, object)).collect();
        }
        "Service" => {
            let label = format!("kubernetes.io/service-name={name}");
            let path = format!(
                "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices{}",
                query(&[("labelSelector", &label)])
            );
            related.endpoint_slices = items(path).await;
        }
        "Node" => {
            related.pods =
                items(format!("/api/v1/pods{}", query(&[("fieldSelector", &format!("spec.nodeName={name}"))]))).await;
            let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}");
            related.lease = session.get(&path).await.ok();
        }
        _ => {}
    }
    related
}

fn owned(object: &Value, owner: &Value) -> bool {
    let uid = text_at(owner, "/metadata/uid");
    object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|o| text(o, "uid") == uid)
}

async fn events(session: &Session, resource: &Resource, object: &Value) -> Vec<Value> {
    let (namespace, name, uid) =
        (text_at(object, "/metadata/namespace"), text_at(object, "/metadata/name"), text_at(object, "/metadata/uid"));
    let mut fields = vec![format!("involvedObject.name={name}"), format!("involvedObject.kind={}", resource.kind)];
    // Events about nodes carry the node's name as its uid.
    if resource.kind != "Node" {
        fields.push(format!("involvedObject.uid={uid}"));
        fields.push(format!("involvedObject.namespace={namespace}"));
    }
    let base =
        if namespace.is_empty() { "/api/v1/events".into() } else { format!("/api/v1/namespaces/{namespace}/events") };
    let found = session.get(&format!("{base}{}", query(&[("fieldSelector", &fields.join(","))]))).await;
    found.map(|l| list(&l, "items").to_vec()).unwrap_or_default()
}
