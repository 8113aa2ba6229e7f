//! What every namespace is given: a ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`
//! (`pkg/controller/serviceaccount`, `pkg/controller/certificates/rootcacertpublisher`).

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use reconcile::controller::keep;
use reconcile::resource::name_of;
use reconcile::{
    Change, Controller, Decider, Effect, Key, Object, ObjectName, Outcome, Timestamp, Watch, World, merge,
};
use serde_json::json;

const DEFAULT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints \
                    such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
                    distributions of Kubernetes clusters.";

/// The key of the namespace that a change is about: itself, or the one that holds an object of a name.
fn touched(change: &Change, name: &str) -> Vec<Key> {
    let own = change.key_of::<Namespace>();
    let holder = change.object().map(|o| name_of(o.metadata())).filter(|n| own.is_none() && n.name == name);
    let holder = holder.map(|n| Key::of::<Namespace>(ObjectName { namespace: String::new(), name: n.namespace }));
    own.into_iter().chain(holder).collect()
}

/// The name inside a namespace, if that is there and not being deleted.
fn inside(world: &World, key: &Key, name: &str) -> Option<ObjectName> {
    let namespace = world.get::<Namespace>(&key.object)?;
    let alive = namespace.metadata.deletion_timestamp.is_none();
    alive.then(|| ObjectName { namespace: key.object.name.clone(), name: name.into() })
}

/// Makes the ServiceAccount `default`.
pub struct ServiceAccounts;

impl Controller for ServiceAccounts {
    fn name(&self) -> &'static str {
        "serviceaccount-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Namespace>(), Watch::metadata::<ServiceAccount>()]
    }

    fn touches(&self, change: &Change, _: &World) -> Vec<Key> {
        touched(change, DEFAULT)
    }
}

impl Decider for ServiceAccounts {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, _: Timestamp) -> Outcome<Effect> {
        let Some(name) = inside(world, key, DEFAULT) else {
            return Outcome::nothing("NoNamespace", "the namespace is not there or being deleted");
        };
        if world.object(&reconcile::Resource::of::<ServiceAccount>(), &name).is_some() {
            return Outcome::nothing("Exists", "the ServiceAccount is there");
        }
        let object = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": name.name, "namespace": name.namespace},
        });
        let mut outcome = Outcome::nothing("Missing", "the ServiceAccount is missing");
        outcome.effect(Effect::create::<ServiceAccount>(&name.namespace, object));
        outcome
    }
}

/// Publishes the cluster's CA.
pub struct RootCa {
    /// The certificates, PEM.
    pub certificates: String,
}

/// Of ConfigMaps only the data of those this controller writes is kept.
fn parse(bytes: &[u8]) -> Result<Arc<dyn Object>, serde_json::Error> {
    let mut map: ConfigMap = serde_json::from_slice(bytes)?;
    if map.metadata.name.as_deref() != Some(ROOT_CA) {
        map.data = None;
        map.binary_data = None;
    }
    keep(map)
}

impl Controller for RootCa {
    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<Namespace>(), Watch::parsed::<ConfigMap>(parse)]
    }

    fn touches(&self, change: &Change, _: &World) -> Vec<Key> {
        touched(change, ROOT_CA)
    }
}

impl Decider for RootCa {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, _: Timestamp) -> Outcome<Effect> {
        let Some(name) = inside(world, key, ROOT_CA) else {
            return Outcome::nothing("NoNamespace", "the namespace is not there or being deleted");
        };
        let meta = json!({"annotations": {DESCRIPTION: TEXT}});
        let data = json!({"ca.crt": self.certificates});
        let Some(map) = world.get::<ConfigMap>(&name) else {
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "data": data,
                "metadata": {"name": name.name, "namespace": name.namespace, "annotations": {DESCRIPTION: TEXT}},
            });
            let mut outcome = Outcome::nothing("Missing", "the ConfigMap is missing");
            outcome.effect(Effect::create::<ConfigMap>(&name.namespace, object));
            return outcome;
        };
        let annotation = map.metadata.annotations.as_ref().and_then(|a| a.get(DESCRIPTION));
        let was = json!({"metadata": {"annotations": {DESCRIPTION: annotation}}, "data": map.data});
        let Some(patch) = merge::diff(&was, &json!({"metadata": meta, "data": data})) else {
            return Outcome::nothing("Exists", "the ConfigMap is as it should be");
        };
        let mut outcome = Outcome::nothing("Differs", "the ConfigMap was changed");
        outcome.effect(Effect::patch(map, patch));
        outcome
    }
}
