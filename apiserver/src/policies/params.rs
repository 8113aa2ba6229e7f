//! The parameters of a binding (`generic/policy_dispatcher.go`, `CollectParams`).

use std::sync::Arc;

use api::{Document, GroupVersion, LabelSelector, ObjectName};
use serde_json::Value;

use super::{Binding, Policy};
use crate::row::{Resource, Version};
use crate::rows::Rows;
use crate::view::View;

/// The objects that a binding's policy is evaluated with, one evaluation each.
pub(crate) struct Params<'r> {
    /// Their row.
    pub row: &'r Resource,
    /// The version that the policy wants them in.
    pub version: &'r Version,
    /// As they are stored.
    pub stored: Vec<Document>,
}

/// Finds them; `None` where the policy has no parameters. The error is upstream's text.
pub(crate) fn params<'r>(
    policy: &Policy,
    binding: &Binding,
    namespace: &str,
    rows: &'r Rows,
    view: &dyn View,
) -> Result<Option<Params<'r>>, String> {
    let (Some((api_version, kind)), Some(reference)) = (&policy.param_kind, &binding.param_ref) else {
        return Ok(None);
    };
    let text = |key: &str| reference.get(key).and_then(Value::as_str).unwrap_or_default();
    let group_version = GroupVersion::parse(api_version);
    let found = group_version.as_ref().and_then(|wanted| {
        let named = |row: &&Arc<Resource>| row.group == wanted.group && row.kind == *kind;
        rows.iter().filter(named).find_map(|row| Some((row, row.version(&wanted.version)?)))
    });
    let Some((row, version)) = found else {
        return Err(format!("failed to find resource referenced by paramKind: '{api_version}, Kind={kind}'"));
    };
    let namespace = match (row.namespaced(), text("namespace")) {
        (false, "") => "",
        (false, _) => return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into()),
        (true, "") if namespace.is_empty() => {
            let why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(why.into());
        }
        (true, "") => namespace,
        (true, given) => given,
    };
    let resource = row.group_resource();
    let stored: Vec<Document> = match text("name") {
        "" => {
            let selector = LabelSelector::from_object(reference.get("selector"))?;
            let listed = view.list(&resource, row.namespaced().then_some(namespace));
            listed.into_iter().filter(|object| selector.selects(object)).collect()
        }
        name => {
            let object = ObjectName { namespace: namespace.to_owned(), name: name.to_owned() };
            view.get(&resource, &object).into_iter().collect()
        }
    };
    if stored.is_empty() && text("parameterNotFoundAction") == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    Ok(Some(Params { row, version, stored }))
}
