//! The built-in rows, from the schema table.

use std::sync::Arc;

use api::schema::{self, Resource as Facts};
use api::{GroupVersion, Schema, kinds};

use super::alias;
use super::behaviour::behaviour;
use crate::row::{Resource, Storage, Strategy, Subresource, Version};

/// A row for every built-in resource, in the order of discovery.
pub(crate) fn built_in() -> Vec<Arc<Resource>> {
    let mut rows: Vec<Resource> = Vec::new();
    for facts in schema::resources() {
        let Some(version) = version(facts) else { continue };
        match rows.iter_mut().find(|row| row.group == facts.group && row.plural == facts.plural) {
            Some(row) => row.versions.push(version),
            None => rows.push(row(facts, version)),
        }
    }
    rows.into_iter().map(Arc::new).collect()
}

fn version(facts: &Facts) -> Option<Version> {
    let alias = alias::of(facts);
    Some(Version {
        name: facts.version.clone(),
        served: true,
        storage: alias.is_none(),
        schema: Schema::of_kind(&facts.group, &facts.version, &facts.kind)?,
        columns: facts.columns.clone(),
        subresources: facts.subresources.iter().map(|s| subresource(facts, s)).collect(),
        convert: alias.map(|alias| alias.convert),
        deprecation: deprecation(facts),
    })
}

fn row(facts: &Facts, version: Version) -> Resource {
    let own = GroupVersion { group: facts.group.clone(), version: facts.version.clone() }.to_string();
    let api_version = alias::of(facts).map_or(own, |alias| alias.api_version.to_owned());
    Resource {
        group: facts.group.clone(),
        plural: facts.plural.clone(),
        singular: facts.singular.clone(),
        kind: facts.kind.clone(),
        list_kind: format!("{}List", facts.kind),
        short: facts.short.clone(),
        categories: facts.categories.clone(),
        scope: facts.scope,
        verbs: facts.verbs.clone(),
        versions: vec![version],
        converter: None,
        strategy: Strategy::BuiltIn(kinds::rules(&facts.group, &facts.kind)),
        storage: (!facts.key.is_empty()).then(|| Storage { prefix: facts.key.clone(), api_version }),
        behaviour: behaviour(&facts.group, &facts.plural),
        custom: false,
        ending: false,
    }
}

/// An empty group and version in the table means the resource's own.
fn subresource(facts: &Facts, sub: &schema::Subresource) -> Subresource {
    let (group, version) = match sub.version.as_str() {
        "" => (&facts.group, &facts.version),
        version => (&sub.group, &version.to_owned()),
    };
    let kind = GroupVersion { group: group.clone(), version: version.clone() }.kind(&sub.kind);
    Subresource { name: sub.name.clone(), kind, verbs: sub.verbs.clone(), scale: None }
}

/// Upstream's `APILifecycleDeprecated` of versions that are still served.
fn deprecation(facts: &Facts) -> Option<String> {
    match (facts.group.as_str(), facts.kind.as_str()) {
        ("", "ComponentStatus") => Some("v1 ComponentStatus is deprecated in v1.19+".into()),
        ("", "Endpoints") => Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".into()),
        _ => None,
    }
}
