//! Roles and bindings by subject, derived from what the caches hold.

use std::collections::HashMap;
use std::sync::Arc;

use api::{Document, GroupResource};

use super::rule::{Rule, rules};
use crate::attributes::User;
use crate::view::View;

const GROUP: &str = "rbac.authorization.k8s.io";

/// The resources an index is made of.
pub(crate) fn resources() -> [GroupResource; 4] {
    ["clusterroles", "roles", "clusterrolebindings", "rolebindings"].map(|r| GroupResource::new(GROUP, r))
}

/// A user or a group; service accounts are users.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// What one binding gives to one subject.
struct Grant {
    /// Empty for the whole cluster.
    namespace: String,
    /// How reasons name it.
    source: String,
    rules: Result<Arc<Vec<Rule>>, String>,
}

/// All grants.
#[derive(Default)]
pub(crate) struct Index {
    grants: HashMap<Subject, Vec<Arc<Grant>>>,
    roles: Roles,
}

type Roles = HashMap<(String, String), Arc<Vec<Rule>>>;

/// The rules a user has, and what could not be resolved on the way.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) rules: Vec<Rule>,
    pub(crate) errors: Vec<String>,
}

impl Index {
    /// Reads all roles and bindings.
    pub(crate) fn of(view: &dyn View) -> Self {
        let [cluster_roles, roles, cluster_bindings, bindings] = resources().map(|resource| view.list(&resource, None));
        let mut index = Self::default();
        for role in cluster_roles.iter().chain(&roles) {
            let key = (role.namespace().to_owned(), role.name().to_owned());
            index.roles.insert(key, Arc::new(rules(role)));
        }
        for binding in cluster_bindings.iter().chain(&bindings) {
            index.bind(binding);
        }
        index
    }

    fn bind(&mut self, binding: &Document) {
        let namespace = binding.namespace();
        let rules = self.role(binding.str_at("/roleRef/kind"), binding.str_at("/roleRef/name"), namespace);
        for given in binding.list_at("/subjects") {
            let text = |key: &str| given.get(key).and_then(|v| v.as_str()).unwrap_or_default();
            let (kind, name) = (text("kind"), text("name"));
            let own = Some(text("namespace")).filter(|n| !n.is_empty()).unwrap_or(namespace);
            let (subject, shown) = match kind {
                "User" => (Subject::User(name.into()), name.to_owned()),
                "Group" => (Subject::Group(name.into()), name.to_owned()),
                "ServiceAccount" if !own.is_empty() => {
                    (Subject::User(format!("system:serviceaccount:{own}:{name}")), format!("{name}/{own}"))
                }
                _ => continue,
            };
            let source = describe(binding, &format!("{kind} {shown:?}"));
            let grant = Grant { namespace: namespace.into(), source, rules: rules.clone() };
            self.grants.entry(subject).or_default().push(Arc::new(grant));
        }
    }

    /// The rules of a role that a binding in a namespace (or none) names; an error in upstream's words.
    pub(crate) fn role(&self, kind: &str, name: &str, namespace: &str) -> Result<Arc<Vec<Rule>>, String> {
        let (namespace, resource) = match kind {
            "ClusterRole" => ("", "clusterrole"),
            "Role" => (namespace, "role"),
            other => return Err(format!("unsupported role reference kind: {other:?}")),
        };
        let found = self.roles.get(&(namespace.to_owned(), name.to_owned()));
        found.cloned().ok_or_else(|| format!("{resource}.{GROUP} {name:?} not found"))
    }

    /// The grants of a user in a namespace: those of the whole cluster first.
    fn grants(&self, user: &User, namespace: &str) -> Vec<&Grant> {
        let groups = user.groups.iter().cloned().map(Subject::Group);
        let subjects = std::iter::once(Subject::User(user.name.clone())).chain(groups);
        let found = subjects.filter_map(|subject| self.grants.get(&subject)).flatten();
        let mut found: Vec<&Grant> = found.map(Arc::as_ref).collect();
        found.retain(|grant| grant.namespace.is_empty() || grant.namespace == namespace);
        found.sort_by_key(|grant| !grant.namespace.is_empty());
        found
    }

    /// Who grants it: the first source whose rules allow. Else what could not be resolved.
    pub(crate) fn find(
        &self,
        user: &User,
        namespace: &str,
        wanted: impl Fn(&Rule) -> bool,
    ) -> Result<&str, Vec<String>> {
        let mut errors = Vec::new();
        for grant in self.grants(user, namespace) {
            match &grant.rules {
                Ok(rules) if rules.iter().any(&wanted) => return Ok(&grant.source),
                Ok(_) => {}
                Err(error) => errors.push(error.clone()),
            }
        }
        Err(errors)
    }

    /// All rules of a user in a namespace.
    pub(crate) fn held(&self, user: &User, namespace: &str) -> Held {
        let mut held = Held::default();
        for grant in self.grants(user, namespace) {
            match &grant.rules {
                Ok(rules) => held.rules.extend(rules.iter().cloned()),
                Err(error) => held.errors.push(error.clone()),
            }
        }
        held
    }
}

fn describe(binding: &Document, subject: &str) -> String {
    let (kind, name) = match binding.namespace() {
        "" => ("ClusterRoleBinding", binding.name().to_owned()),
        namespace => ("RoleBinding", format!("{}/{namespace}", binding.name())),
    };
    let (role_kind, role) = (binding.str_at("/roleRef/kind"), binding.str_at("/roleRef/name"));
    format!("{kind} {name:?} of {role_kind} {role:?} to {subject}")
}

/// Several errors as Go's aggregate shows them: once each, in brackets where there are more than one.
pub(crate) fn aggregate(errors: &[String]) -> String {
    let mut once: Vec<&str> = Vec::new();
    for error in errors {
        if !once.contains(&error.as_str()) {
            once.push(error);
        }
    }
    match once.as_slice() {
        [one] => (*one).to_owned(),
        many => format!("[{}]", many.join(", ")),
    }
}
