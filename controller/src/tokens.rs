//! Deletes bootstrap tokens that have expired (`pkg/controller/bootstrap`, the token cleaner).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use reconcile::controller::keep;
use reconcile::{Change, Controller, Decider, Effect, Key, Object, Outcome, Timestamp, Watch, World};

const TYPE: &str = "bootstrap.kubernetes.io/token";
const EXPIRATION: &str = "expiration";

/// The token cleaner.
pub struct TokenCleaner;

/// Of Secrets nothing but a token's expiration is kept.
fn parse(bytes: &[u8]) -> Result<Arc<dyn Object>, serde_json::Error> {
    let mut secret: Secret = serde_json::from_slice(bytes)?;
    let token = secret.type_.as_deref() == Some(TYPE);
    let expiration = secret.data.take().and_then(|mut d| d.remove(EXPIRATION)).filter(|_| token);
    secret.data = expiration.map(|e| BTreeMap::from([(EXPIRATION.to_owned(), e)]));
    secret.metadata.annotations = None;
    keep(secret)
}

impl Controller for TokenCleaner {
    fn name(&self) -> &'static str {
        "token-cleaner-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::parsed::<Secret>(parse)]
    }

    fn touches(&self, change: &Change, _: &World) -> Vec<Key> {
        let token = change.now::<Secret>().is_some_and(|s| s.type_.as_deref() == Some(TYPE));
        change.key().filter(|k| token && k.object.namespace == "kube-system").into_iter().collect()
    }
}

fn expiration(secret: &Secret) -> Option<Timestamp> {
    let ByteString(bytes) = secret.data.as_ref()?.get(EXPIRATION)?;
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

impl Decider for TokenCleaner {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Outcome<Effect> {
        let Some(secret) = world.get::<Secret>(&key.object) else {
            return Outcome::nothing("Gone", "the token does not exist");
        };
        let Some(due) = expiration(secret) else {
            return Outcome::nothing("Unlimited", "the token does not expire");
        };
        let mut outcome = Outcome::nothing("Valid", "the token has not expired");
        if due > now {
            outcome.wake(due);
            return outcome;
        }
        outcome.because("Expired", "the token has expired");
        outcome.effect(Effect::delete(secret));
        outcome
    }
}
