//! ClusterRole aggregation: roles made of others that carry certain labels
//! (`pkg/controller/clusterroleaggregation`).

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use reconcile::resource::name_of;
use reconcile::{Change, Controller, Decider, Effect, Key, Outcome, Timestamp, Watch, World, selector};
use serde_json::json;

/// The ClusterRole aggregation controller.
pub struct ClusterRoles;

impl Controller for ClusterRoles {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<ClusterRole>()]
    }

    /// Any role may be part of any aggregated one, and those are few.
    fn touches(&self, change: &Change, world: &World) -> Vec<Key> {
        if change.key_of::<ClusterRole>().is_none() {
            return Vec::new();
        }
        let aggregated = world.list::<ClusterRole>().filter(|r| r.aggregation_rule.is_some());
        aggregated.map(|r| Key::of::<ClusterRole>(name_of(&r.metadata))).collect()
    }
}

impl Decider for ClusterRoles {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, _: Timestamp) -> Outcome<Effect> {
        let Some(role) = world.get::<ClusterRole>(&key.object) else {
            return Outcome::nothing("Gone", "the role does not exist");
        };
        let Some(aggregation) = &role.aggregation_rule else {
            return Outcome::nothing("Plain", "the role is not made of others");
        };
        let mut rules: Vec<PolicyRule> = Vec::new();
        for wanted in aggregation.cluster_role_selectors.iter().flatten() {
            let matching = world.list::<ClusterRole>().filter(|r| r.metadata.name != role.metadata.name);
            let matching = matching.filter(|r| selector::matches(wanted, r.metadata.labels.as_ref()));
            for rule in matching.flat_map(|r| r.rules.iter().flatten()) {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
        if role.rules.as_deref().unwrap_or_default() == rules {
            return Outcome::nothing("AsDesired", "the role has all their rules");
        }
        let mut outcome = Outcome::nothing("Differs", "the roles it is made of changed");
        let version = json!({"resourceVersion": role.metadata.resource_version});
        outcome.effect(Effect::patch(role, json!({"metadata": version, "rules": rules})));
        outcome
    }
}
