//! NamespaceLifecycle: nothing new in a namespace that is missing or going; the system's own namespaces stay.

use api::status::Cause;
use api::{Document, GroupResource, Status, StatusResult};

use super::{Context, Plugin};

const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

pub(super) struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn mutate(&self, object: &mut Document, context: &Context<'_>) -> StatusResult<()> {
        check(object, context)
    }

    fn validate(&self, object: &Document, context: &Context<'_>) -> StatusResult<()> {
        if context.verb() == "delete" && context.is("", "namespaces") && IMMORTAL.contains(&context.name()) {
            return Err(context.forbidden(object, "this namespace may not be deleted"));
        }
        check(object, context)
    }
}

fn check(object: &Document, context: &Context<'_>) -> StatusResult<()> {
    let namespace = context.namespace();
    let free = matches!(context.verb(), "update" | "delete")
        || namespace.is_empty()
        || context.resource().resource == "namespaces"
        || context.resource() == GroupResource::new("authorization.k8s.io", "localsubjectaccessreviews");
    if free {
        return Ok(());
    }
    let Some(found) = context.look_up("", "namespaces", "", namespace) else {
        return Err(Status::not_found(&GroupResource::new("", "namespaces"), namespace));
    };
    match context.verb() == "create" && found.str_at("/status/phase") == "Terminating" {
        true => Err(terminating(object, context, namespace)),
        false => Ok(()),
    }
}

fn terminating(object: &Document, context: &Context<'_>, namespace: &str) -> Box<Status> {
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut status = context.forbidden(object, why);
    if let Some(details) = &mut status.details {
        details.causes.push(Cause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".into(),
        });
    }
    status
}
