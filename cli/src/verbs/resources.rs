//! What the server has, and how users name it: `pods`, `po`, `deploy.apps`, `pod/web`, `all`.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::session::Session;
use super::value::{list, text};

/// One resource in one version.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) short: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) verbs: Vec<String>,
}

impl Resource {
    /// `deployment.apps`, as messages name it.
    pub(crate) fn name(&self) -> String {
        match self.group.as_str() {
            "" => self.singular.clone(),
            group => format!("{}.{group}", self.singular),
        }
    }

    /// `deployments.apps`, as messages about many name it.
    pub(crate) fn plural_name(&self) -> String {
        match self.group.as_str() {
            "" => self.plural.clone(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// The path of the collection; an empty namespace means all.
    pub(crate) fn path(&self, namespace: &str) -> String {
        let base = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        match (self.namespaced, namespace) {
            (true, namespace) if !namespace.is_empty() => format!("{base}/namespaces/{namespace}/{}", self.plural),
            _ => format!("{base}/{}", self.plural),
        }
    }

    /// The path of one object.
    pub(crate) fn object(&self, namespace: &str, name: &str) -> String {
        format!("{}/{name}", self.path(namespace))
    }

    fn answers_to(&self, word: &str) -> bool {
        self.plural == word
            || self.singular == word
            || self.kind.to_lowercase() == word
            || self.short.iter().any(|s| s == word)
    }
}

/// Everything the server has, preferred versions first.
pub(crate) struct Resources(Vec<Resource>);

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

impl Resources {
    /// Asks the server.
    pub(crate) async fn discover(session: &Session) -> Result<Self> {
        let mut all = Vec::new();
        for path in ["/api", "/apis"] {
            let groups = session.accepting(path, AGGREGATED).await.context("cannot tell what the server has")?;
            all.extend(read(&groups));
        }
        Ok(Self(all))
    }

    /// The resource that a word means.
    pub(crate) fn named(&self, word: &str) -> Result<&Resource> {
        let lower = word.to_lowercase();
        let (name, rest) = lower.split_once('.').unwrap_or((&lower, ""));
        let fits = |r: &&Resource| {
            r.answers_to(name) && (rest.is_empty() || r.group == rest || rest == format!("{}.{}", r.version, r.group))
        };
        let found = self.0.iter().find(fits);
        found.with_context(|| format!("the server doesn't have a resource type {word:?}"))
    }

    /// The resource of an object's apiVersion and kind.
    pub(crate) fn of_object(&self, api_version: &str, kind: &str) -> Result<&Resource> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let found = self.0.iter().find(|r| r.group == group && r.version == version && r.kind == kind);
        found.with_context(|| {
            format!("no matches for kind {kind:?} in version {api_version:?}\nensure CRDs are installed first")
        })
    }

    /// The resources of a category such as `all`, or the one that the word means.
    pub(crate) fn any(&self, word: &str) -> Result<Vec<&Resource>> {
        let of_category: Vec<&Resource> = self.0.iter().filter(|r| r.categories.iter().any(|c| c == word)).collect();
        let mut distinct: Vec<&Resource> = Vec::new();
        for resource in of_category {
            if !distinct.iter().any(|r| r.group == resource.group && r.plural == resource.plural) {
                distinct.push(resource);
            }
        }
        if distinct.is_empty() { Ok(vec![self.named(word)?]) } else { Ok(distinct) }
    }
}

fn read(groups: &Value) -> Vec<Resource> {
    let mut all = Vec::new();
    for group in list(groups, "items") {
        let name = group.get("metadata").map_or("", |m| text(m, "name"));
        for version in list(group, "versions") {
            all.extend(list(version, "resources").iter().map(|r| resource(name, text(version, "version"), r)));
        }
    }
    all
}

fn resource(group: &str, version: &str, value: &Value) -> Resource {
    let strings = |field: &str| list(value, field).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    let kind = value.get("responseKind").map_or("", |k| text(k, "kind")).to_owned();
    let singular = match text(value, "singularResource") {
        "" => kind.to_lowercase(),
        singular => singular.to_owned(),
    };
    Resource {
        group: group.into(),
        version: version.into(),
        plural: text(value, "resource").into(),
        singular,
        kind,
        short: strings("shortNames"),
        categories: strings("categories"),
        namespaced: text(value, "scope") == "Namespaced",
        verbs: strings("verbs"),
    }
}

/// What a verb is about: a resource, and the objects named; none means those that selectors find.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Aim {
    pub(crate) resource: Resource,
    pub(crate) names: Vec<String>,
}

/// Reads `pods`, `pods,svc`, `pod web db`, `pod/web svc/db`.
pub(crate) fn aims(arguments: &[String], resources: &Resources) -> Result<Vec<Aim>> {
    let Some((first, names)) = arguments.split_first() else {
        bail!("You must specify the type of resource to get. Name one, for example: pods, deployments, pod/NAME");
    };
    if first.contains('/') {
        return arguments.iter().map(|argument| slash(argument, resources)).collect();
    }
    if let Some(odd) = names.iter().find(|name| name.contains('/')) {
        bail!(
            "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. '{odd}')"
        );
    }
    let mut aims = Vec::new();
    for word in first.split(',').filter(|word| !word.is_empty()) {
        for resource in resources.any(word)? {
            aims.push(Aim { resource: resource.clone(), names: names.to_vec() });
        }
    }
    Ok(aims)
}

fn slash(argument: &str, resources: &Resources) -> Result<Aim> {
    let Some((word, name)) = argument.split_once('/').filter(|(word, name)| !word.is_empty() && !name.is_empty())
    else {
        bail!("there is no resource type in {argument:?}; use TYPE/NAME");
    };
    Ok(Aim { resource: resources.named(word)?.clone(), names: vec![name.into()] })
}

#[cfg(test)]
mod tests {
    use super::{Resources, aims, read};
    use serde_json::json;

    fn resources() -> Resources {
        let of = |plural: &str, singular: &str, kind: &str, short: &str| {
            json!({"resource": plural, "singularResource": singular, "scope": "Namespaced", "shortNames": [short],
                "categories": ["all"], "responseKind": {"kind": kind}})
        };
        let groups = json!({"items": [
            {"metadata": {"name": ""}, "versions": [{"version": "v1", "resources": [of("pods", "pod", "Pod", "po")]}]},
            {"metadata": {"name": "apps"}, "versions": [{"version": "v1",
                "resources": [of("deployments", "deployment", "Deployment", "deploy")]}]},
        ]});
        Resources(read(&groups))
    }

    #[test]
    fn words_name_resources_and_objects() {
        let resources = resources();
        let shown = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
            let aims = aims(&arguments, &resources).unwrap_or_default();
            aims.iter().map(|a| format!("{}:{}", a.resource.plural, a.names.join("+"))).collect::<Vec<_>>().join(" ")
        };
        let cases: [(&[&str], &str); 7] = [
            (&["po"], "pods:"),
            (&["Pod", "a", "b"], "pods:a+b"),
            (&["deployment.apps/web", "po/x"], "deployments:web pods:x"),
            (&["deploy.v1.apps"], "deployments:"),
            (&["all"], "pods: deployments:"),
            (&["nope"], ""),
            (&["pods", "po/x"], ""),
        ];
        for (arguments, want) in cases {
            assert_eq!(shown(arguments), want, "{arguments:?}");
        }
    }
}
