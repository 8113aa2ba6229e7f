//! Nobody grants what they do not hold (`pkg/registry/rbac/{role,rolebinding,clusterrole,clusterrolebinding}`).
//!
//! Upstream has this in the storage of the four kinds; here it is one more plugin, after all that change the object.

use api::{Document, GroupVersion, ObjectName, Status, StatusResult};

use super::{Context, Plugin};
use crate::attributes::{Attributes, ResourceAttributes};
use crate::authz::rule::{Rule, compacted, rules, uncovered};
use crate::authz::{self, Index};
use crate::write::equal_but_for;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) struct RoleEscalation;

impl Plugin for RoleEscalation {
    fn name(&self) -> &'static str {
        "RoleEscalation"
    }

    fn validate(&self, object: &Document, context: &Context<'_>) -> StatusResult<()> {
        let rbac = context.resource().group == GROUP && context.subresource().is_empty();
        let written = matches!(context.verb(), "create" | "update");
        let untouched = || context.old.is_some_and(|old| only_for_deletion(old, object));
        if !rbac || !written || authz::is_master(&context.attributes.user) || untouched() {
            return Ok(());
        }
        match context.resource().resource.as_str() {
            "roles" | "clusterroles" => role(object, context),
            "rolebindings" | "clusterrolebindings" => binding(object, context),
            _ => Ok(()),
        }
    }
}

/// The garbage collector's changes need no rights of the role.
fn only_for_deletion(old: &Document, new: &Document) -> bool {
    equal_but_for(&["finalizers", "ownerReferences", "managedFields", "resourceVersion"], new, old)
}

fn may(context: &Context<'_>, verb: &str, resource: &str, object: ObjectName) -> bool {
    let target = ResourceAttributes {
        group_version: GroupVersion { group: GROUP.into(), version: "*".into() },
        resource: resource.into(),
        subresource: String::new(),
        object,
        fields: Vec::new(),
    };
    let user = context.attributes.user.clone();
    let asked = Attributes { user, verb: verb.into(), resource: Some(target), path: String::new() };
    authz::decide(&authz::authorizers(), &asked, context.view).allowed()
}

fn role(object: &Document, context: &Context<'_>) -> StatusResult<()> {
    let name = ObjectName { namespace: context.namespace().into(), name: context.name().into() };
    if may(context, "escalate", &context.resource().resource, name) {
        return Ok(());
    }
    holds(object, context, &rules(object))?;
    let aggregates = |role: &Document| !role.list_at("/aggregationRule/clusterRoleSelectors").is_empty();
    if aggregates(object) || context.old.is_some_and(aggregates) {
        let all = || vec!["*".to_owned()];
        let everything = [
            Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
            Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
        ];
        let why = "must have cluster-admin privileges to use the aggregationRule";
        holds(object, context, &everything).map_err(|_| context.forbidden(object, why))?;
    }
    Ok(())
}

fn binding(object: &Document, context: &Context<'_>) -> StatusResult<()> {
    let (kind, name) = (object.str_at("/roleRef/kind"), object.str_at("/roleRef/name"));
    let resource = if kind == "ClusterRole" { "clusterroles" } else { "roles" };
    let namespace = context.namespace();
    if may(context, "bind", resource, ObjectName { namespace: namespace.into(), name: name.into() }) {
        return Ok(());
    }
    let found = Index::of(context.view).role(kind, name, namespace);
    let wanted =
        found.map_err(|_| Status::not_found(&api::GroupResource::new(GROUP, resource.trim_end_matches('s')), name))?;
    holds(object, context, &wanted)
}

/// Whether the user holds all of the rules; else what is missing, in upstream's words.
fn holds(object: &Document, context: &Context<'_>, wanted: &[Rule]) -> StatusResult<()> {
    let user = &context.attributes.user;
    let held = Index::of(context.view).held(user, context.namespace());
    let missing = uncovered(&held.rules, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let mut lines: Vec<String> = compacted(missing).iter().map(Rule::compact).collect();
    lines.sort();
    lines.dedup();
    let groups: Vec<String> = user.groups.iter().map(|group| format!("{group:?}")).collect();
    let mut why = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        groups.join(" "),
        lines.join("\n")
    );
    if !held.errors.is_empty() {
        why.push_str(&format!("; resolution errors: [{}]", authz::aggregate(&held.errors)));
    }
    Err(context.forbidden(object, why))
}
