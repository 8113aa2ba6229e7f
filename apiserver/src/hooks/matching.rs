//! Which webhooks a request concerns (`k8s.io/apiserver/pkg/admission/plugin/webhook/{predicates,generic}`).

use std::cell::OnceCell;
use std::sync::Arc;

use api::{Document, GroupResource, GroupVersionKind, LabelSelector, ObjectName, Status, StatusResult};

use super::{Matching, Rule};
use crate::row::{Resource, Version};
use crate::rows::Rows;
use crate::view::View;

/// A resource in one of its versions, and the kind of the objects that are admitted there.
#[derive(Clone)]
#[allow(missing_docs)]
pub(crate) struct Invocation {
    pub resource: GroupResource,
    pub version: String,
    pub kind: GroupVersionKind,
    /// The row and its version that the object is shown in. `None`: the object never has another form.
    pub form: Option<(Arc<Resource>, usize)>,
}

impl Invocation {
    /// The version's facts.
    pub(crate) fn shown_in(&self) -> Option<(&Resource, &Version)> {
        let (row, at) = self.form.as_ref()?;
        Some((row, row.versions.get(*at)?))
    }
}

/// What is admitted, besides the objects themselves.
pub(crate) struct Subject {
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: &'static str,
    /// As the path names it: the row, the version and the subresource.
    pub row: Arc<Resource>,
    /// Which of the row's versions.
    pub version: usize,
    /// Empty for the object itself.
    pub subresource: String,
    /// The kind of the admitted object.
    pub kind: GroupVersionKind,
    /// Whether the admitted object is the row's own kind, in the form that the machine works on.
    pub own: bool,
    /// The name in the request; empty where the server gives one.
    pub name: String,
    /// The namespace; that of a Namespace is itself.
    pub namespace: String,
    /// The same objects under other groups and versions, found when first wanted.
    pub others: OnceCell<Vec<Invocation>>,
}

impl Subject {
    /// Group and plural.
    pub(crate) fn resource(&self) -> GroupResource {
        self.row.group_resource()
    }

    fn is_namespace(&self) -> bool {
        self.row.group.is_empty() && self.row.plural == "namespaces"
    }

    fn asked(&self) -> Option<&Version> {
        self.row.versions.get(self.version)
    }

    /// The request's own resource and kind.
    pub(crate) fn requested(&self) -> Invocation {
        Invocation {
            resource: self.resource(),
            version: self.asked().map(|v| v.name.clone()).unwrap_or_default(),
            kind: self.kind.clone(),
            form: self.own.then(|| (Arc::clone(&self.row), self.version)),
        }
    }
}

/// Configurations of admission itself are never given to webhooks, nor are the questions of authentication and
/// authorization: a broken webhook could not be repaired otherwise.
pub(crate) fn is_exempt(resource: &GroupResource) -> bool {
    match resource.group.as_str() {
        "admissionregistration.k8s.io" => true,
        "authentication.k8s.io" => matches!(resource.resource.as_str(), "tokenreviews" | "selfsubjectreviews"),
        "authorization.k8s.io" => true,
        _ => false,
    }
}

impl Rule {
    fn matches(&self, subject: &Subject, resource: &GroupResource, version: &str) -> bool {
        let any = |items: &[String], wanted: &str| items.iter().any(|item| item == "*" || item == wanted);
        let scope = match self.scope.as_str() {
            "Namespaced" => !subject.is_namespace() && !subject.namespace.is_empty(),
            "Cluster" => subject.is_namespace() || subject.namespace.is_empty(),
            scope => scope == "*",
        };
        let named = |item: &String| {
            let (plural, sub) = item.split_once('/').unwrap_or((item, ""));
            (plural == "*" || plural == resource.resource) && (sub == "*" || sub == subject.subresource)
        };
        let by_name = self.names.is_empty() || self.names.contains(&subject.name);
        scope
            && by_name
            && any(&self.operations, subject.operation)
            && any(&self.groups, &resource.group)
            && any(&self.versions, version)
            && self.resources.iter().any(named)
    }
}

/// In which form a webhook wants this request; `None`: not at all. Labels are of the objects as they are now.
pub(crate) fn invocation(
    matching: &Matching,
    subject: &Subject,
    rows: &Rows,
    objects: [Option<&Document>; 2],
    view: &dyn View,
) -> StatusResult<Option<Invocation>> {
    let Some(invocation) = by_rules(matching, subject, rows) else { return Ok(None) };
    Ok(selected(matching, subject, objects, view)?.then_some(invocation))
}

/// Whether its selectors mean the objects and their namespace.
pub(crate) fn selected(
    matching: &Matching,
    subject: &Subject,
    objects: [Option<&Document>; 2],
    view: &dyn View,
) -> StatusResult<bool> {
    Ok(in_namespace(matching, subject, objects[0], view)? && by_labels(matching, objects)?)
}

fn by_rules(matching: &Matching, subject: &Subject, rows: &Rows) -> Option<Invocation> {
    let requested = subject.requested();
    if matching.excluded.iter().any(|rule| rule.matches(subject, &requested.resource, &requested.version)) {
        return None;
    }
    let exactly = matching.rules.iter().any(|rule| rule.matches(subject, &requested.resource, &requested.version));
    if exactly {
        return Some(requested);
    }
    if matching.exact || matching.rules.is_empty() {
        return None;
    }
    let others = subject.others.get_or_init(|| equivalents(subject, rows));
    let is_excluded = |o: &Invocation| matching.excluded.iter().any(|r| r.matches(subject, &o.resource, &o.version));
    if others.iter().any(is_excluded) {
        return None;
    }
    matching
        .rules
        .iter()
        .find_map(|rule| others.iter().find(|o| rule.matches(subject, &o.resource, &o.version)).cloned())
}

/// The same objects under other groups and versions: rows that share the storage, in each version they serve.
fn equivalents(subject: &Subject, rows: &Rows) -> Vec<Invocation> {
    let Some(storage) = &subject.row.storage else { return Vec::new() };
    let requested = subject.requested();
    let mut all = Vec::new();
    for row in rows.iter() {
        if row.storage.as_ref().is_none_or(|other| other.prefix != storage.prefix) {
            continue;
        }
        for (index, version) in row.versions.iter().enumerate().filter(|(_, version)| version.served) {
            let (resource, name) = (row.group_resource(), version.name.clone());
            let own = (&resource, &name) == (&requested.resource, &requested.version);
            let kind = match subject.own {
                true => row.kind_in(version),
                false => subject.kind.clone(),
            };
            let there = subject.subresource.is_empty() || version.subresource(&subject.subresource).is_some();
            if !own && there {
                all.push(Invocation {
                    resource,
                    version: name,
                    kind,
                    form: subject.own.then(|| (Arc::clone(row), index)),
                });
            }
        }
    }
    all
}

fn in_namespace(
    matching: &Matching,
    subject: &Subject,
    object: Option<&Document>,
    view: &dyn View,
) -> StatusResult<bool> {
    if subject.namespace.is_empty() && subject.row.plural != "namespaces" {
        return Ok(true);
    }
    let selector = usable(&matching.namespaces)?;
    if selector.is_empty() {
        return Ok(true);
    }
    let itself =
        subject.is_namespace() && subject.subresource.is_empty() && matches!(subject.operation, "CREATE" | "UPDATE");
    if let Some(namespace) = object.filter(|_| itself) {
        return Ok(selector.selects(namespace));
    }
    let namespaces = GroupResource::new("", "namespaces");
    let name = ObjectName { namespace: String::new(), name: subject.namespace.clone() };
    let found = view.get(&namespaces, &name).ok_or_else(|| Status::not_found(&namespaces, &subject.namespace))?;
    Ok(selector.selects(&found))
}

fn by_labels(matching: &Matching, objects: [Option<&Document>; 2]) -> StatusResult<bool> {
    let selector = usable(&matching.objects)?;
    Ok(selector.is_empty() || objects.into_iter().flatten().any(|object| selector.selects(object)))
}

fn usable(selector: &Result<LabelSelector, String>) -> StatusResult<&LabelSelector> {
    selector.as_ref().map_err(Status::internal)
}
