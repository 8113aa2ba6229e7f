//! One rule of a role: what it allows, and whether others cover it (`k8s.io/component-helpers/auth/rbac/validation`).

use api::Document;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::attributes::Attributes;

/// A `PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rule {
    #[serde(deserialize_with = "list")]
    pub(crate) verbs: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub(crate) api_groups: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub(crate) resources: Vec<String>,
    #[serde(deserialize_with = "list")]
    pub(crate) resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", deserialize_with = "list")]
    pub(crate) non_resource_urls: Vec<String>,
}

fn list<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(from)?.unwrap_or_default())
}

/// The rules of a role; those that cannot be read allow nothing.
pub(crate) fn rules(role: &Document) -> Vec<Rule> {
    role.list_at("/rules").iter().filter_map(|rule| Rule::deserialize(rule).ok()).collect()
}

fn any(set: &[String], wanted: &str) -> bool {
    set.iter().any(|word| word == "*" || word == wanted)
}

fn has(set: &[String], wanted: &str) -> bool {
    set.iter().any(|word| word == wanted)
}

fn has_all(set: &[String], wanted: &[String]) -> bool {
    wanted.iter().all(|word| has(set, word))
}

impl Rule {
    /// Whether the rule allows a request.
    pub(crate) fn allows(&self, attributes: &Attributes) -> bool {
        if !any(&self.verbs, &attributes.verb) {
            return false;
        }
        let Some(target) = &attributes.resource else {
            return self.non_resource_urls.iter().any(|url| covers_url(url, &attributes.path));
        };
        any(&self.api_groups, &target.group_version.group)
            && self.has_resource(&target.resource, &target.subresource)
            && (self.resource_names.is_empty() || has(&self.resource_names, &target.object.name))
    }

    fn has_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|word| match (word.as_str(), subresource) {
            ("*", _) => true,
            (word, "") => word == resource,
            (word, sub) => match word.split_once('/') {
                Some((r, s)) => s == sub && (r == "*" || r == resource),
                None => false,
            },
        })
    }

    /// The rule in parts of one verb, group, resource and name each, or one verb and path.
    pub(crate) fn parts(&self) -> Vec<Rule> {
        let one = |text: &String| vec![text.clone()];
        let names: Vec<Vec<String>> = match self.resource_names.as_slice() {
            [] => vec![vec![]],
            names => names.iter().map(one).collect(),
        };
        let mut parts = Vec::new();
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    parts.extend(names.iter().map(|names| Rule {
                        verbs: one(verb),
                        api_groups: one(group),
                        resources: one(resource),
                        resource_names: names.clone(),
                        non_resource_urls: Vec::new(),
                    }));
                }
            }
        }
        for url in &self.non_resource_urls {
            let part = |verb| Rule { verbs: one(verb), non_resource_urls: one(url), ..Rule::default() };
            parts.extend(self.verbs.iter().map(part));
        }
        parts
    }

    /// Whether everything that the part allows is allowed by this rule.
    fn covers(&self, part: &Rule) -> bool {
        let all = |set: &[String], wanted: &[String]| has(set, "*") || has_all(set, wanted);
        let names = match part.resource_names.is_empty() {
            true => self.resource_names.is_empty(),
            false => self.resource_names.is_empty() || has_all(&self.resource_names, &part.resource_names),
        };
        all(&self.verbs, &part.verbs)
            && all(&self.api_groups, &part.api_groups)
            && part.resources.iter().all(|resource| self.covers_resource(resource))
            && names
            && part.non_resource_urls.iter().all(|url| self.non_resource_urls.iter().any(|own| covers_url(own, url)))
    }

    fn covers_resource(&self, resource: &str) -> bool {
        let by_star = || resource.split_once('/').is_some_and(|(_, sub)| has(&self.resources, &format!("*/{sub}")));
        any(&self.resources, resource) || by_star()
    }

    /// As `SelfSubjectRulesReview` shows the resource part.
    pub(crate) fn resource_info(&self) -> Value {
        let mut info = Map::new();
        info.insert("verbs".into(), self.verbs.clone().into());
        for (key, list) in
            [("apiGroups", &self.api_groups), ("resources", &self.resources), ("resourceNames", &self.resource_names)]
        {
            if !list.is_empty() {
                info.insert(key.into(), list.clone().into());
            }
        }
        info.into()
    }

    /// As `SelfSubjectRulesReview` shows the part about paths.
    pub(crate) fn path_info(&self) -> Value {
        serde_json::json!({"verbs": self.verbs, "nonResourceURLs": self.non_resource_urls})
    }

    /// As the refusal to grant it shows it.
    pub(crate) fn compact(&self) -> String {
        let lists = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let quoted = |list: &[String]| list.iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(" ");
        let shown = lists.iter().filter(|(_, list)| !list.is_empty());
        let shown: Vec<String> = shown.map(|(name, list)| format!("{name}:[{}]", quoted(list))).collect();
        format!("{{{}}}", shown.join(", "))
    }
}

/// A path, or one that ends in `*`.
fn covers_url(own: &str, path: &str) -> bool {
    own == path || own.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

/// The parts of `wanted` that no rule of `owned` covers.
pub(crate) fn uncovered(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let parts = wanted.iter().flat_map(Rule::parts);
    parts.filter(|part| !owned.iter().any(|rule| rule.covers(part))).collect()
}

/// Joins parts that differ only in their verb, as upstream does before it shows them.
pub(crate) fn compacted(parts: Vec<Rule>) -> Vec<Rule> {
    let mut joined: Vec<Rule> = Vec::new();
    for part in parts {
        let same = |rule: &&mut Rule| {
            !part.resources.is_empty()
                && part.resource_names.is_empty()
                && rule.resource_names.is_empty()
                && (&rule.api_groups, &rule.resources) == (&part.api_groups, &part.resources)
        };
        match joined.iter_mut().find(same) {
            Some(rule) => rule.verbs.extend(part.verbs),
            None => joined.push(part),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::{Rule, compacted, uncovered};
    use expect_test::expect;
    use serde_json::{Value, json};

    fn rule(value: Value) -> Rule {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn resources_and_subresources_match_as_upstream_matches_them() {
        for (resources, resource, sub, allowed) in [
            (&["*"][..], "pods", "log", true),
            (&["pods"], "pods", "", true),
            (&["pods"], "pods", "log", false),
            (&["pods/log"], "pods", "log", true),
            (&["*/scale"], "deployments", "scale", true),
            (&["pods/*"], "pods", "log", false),
        ] {
            let rule = rule(json!({"resources": resources, "apiGroups": null}));
            assert_eq!(rule.has_resource(resource, sub), allowed, "{resources:?} {resource}/{sub}");
        }
    }

    #[test]
    fn only_what_is_held_may_be_granted() {
        let owned = [
            rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/scale"]})),
            rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz/*"]})),
        ];
        let wanted = [
            rule(json!({"verbs": ["get", "list", "watch", "delete"], "apiGroups": [""], "resources": ["pods"]})),
            rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["rs/scale"], "resourceNames": ["a"]})),
            rule(json!({"verbs": ["get"], "apiGroups": ["apps"], "resources": ["pods"], "resourceNames": ["a"]})),
            rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz/x", "/metrics"]})),
        ];
        let left = compacted(uncovered(&owned, &wanted));
        let text: Vec<String> = left.iter().map(Rule::compact).collect();
        expect![[r#"
            {APIGroups:[""], Resources:["pods"], Verbs:["watch" "delete"]}
            {APIGroups:["apps"], Resources:["pods"], ResourceNames:["a"], Verbs:["get"]}
            {NonResourceURLs:["/metrics"], Verbs:["get"]}"#]]
        .assert_eq(&text.join("\n"));
    }
}
