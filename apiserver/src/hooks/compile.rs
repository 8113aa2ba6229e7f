//! From configuration objects to webhooks; done again only when one of them changed.

use std::sync::Arc;

use api::cel::admission::{Conditions, Options};
use api::{Document, GroupResource, LabelSelector};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::Value;

use super::{Hook, Hooks, Matching, Place, Rule, Target};
use crate::view::View;

const GROUP: &str = "admissionregistration.k8s.io";
/// `timeoutSeconds` where it is not said.
const DEFAULT_TIMEOUT_SECONDS: u64 = 10;
/// Versions of AdmissionReview that are known, both of one form.
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

/// The webhooks of the newest configurations.
#[derive(Default)]
pub(crate) struct Compiled(Mutex<Option<([u64; 2], Arc<Hooks>)>>);

impl Compiled {
    /// As of now.
    pub(crate) fn current(&self, view: &dyn View) -> Arc<Hooks> {
        let [mutating, validating] = kinds();
        let revisions = [view.revision(&mutating), view.revision(&validating)];
        let mut compiled = self.0.lock();
        if let Some((_, hooks)) = compiled.as_ref().filter(|(known, _)| *known == revisions) {
            return Arc::clone(hooks);
        }
        let all = |resource| webhooks(view.list(&resource, None));
        let hooks = Arc::new(Hooks { mutating: all(mutating), validating: all(validating) });
        *compiled = Some((revisions, Arc::clone(&hooks)));
        hooks
    }
}

fn kinds() -> [GroupResource; 2] {
    ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"].map(|plural| GroupResource::new(GROUP, plural))
}

fn webhooks(mut configurations: Vec<Document>) -> Vec<Arc<Hook>> {
    configurations.sort_by(|a, b| a.name().cmp(b.name()));
    let of = |configuration: &Document| -> Vec<Arc<Hook>> {
        configuration.list_at("/webhooks").iter().map(|hook| Arc::new(compile(configuration.name(), hook))).collect()
    };
    configurations.iter().flat_map(of).collect()
}

pub(crate) fn compile(configuration: &str, hook: &Value) -> Hook {
    let text = |key: &str| hook.get(key).and_then(Value::as_str).unwrap_or_default();
    let list = |key: &str| hook.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let known = |version: &Value| REVIEWS.into_iter().find(|known| version == known);
    Hook {
        configuration: configuration.to_owned(),
        name: text("name").to_owned(),
        matching: matching(hook, "rules"),
        conditions: Conditions::compile(list("matchConditions"), Options { params: false, authorizer: true }),
        ignore: text("failurePolicy") == "Ignore",
        dry_run: matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
        again: text("reinvocationPolicy") == "IfNeeded",
        timeout_seconds: hook.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(DEFAULT_TIMEOUT_SECONDS),
        review: list("admissionReviewVersions").iter().find_map(known),
        target: target(hook.get("clientConfig").unwrap_or(&Value::Null)),
    }
}

/// What an object's rules and selectors mean; `rules` is the field they stand in.
pub(crate) fn matching(of: &Value, rules: &str) -> Matching {
    let list = |key: &str| of.get(key).and_then(Value::as_array).into_iter().flatten().map(rule).collect();
    let selector = |key: &str| match of.get(key).filter(|s| !s.is_null()) {
        None => Ok(LabelSelector::everything()),
        some => LabelSelector::from_object(some),
    };
    Matching {
        rules: list(rules),
        excluded: list("excludeResourceRules"),
        exact: of.get("matchPolicy").and_then(Value::as_str) == Some("Exact"),
        namespaces: selector("namespaceSelector"),
        objects: selector("objectSelector"),
    }
}

fn strings(value: &Value, key: &str) -> Vec<String> {
    let list = value.get(key).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn rule(rule: &Value) -> Rule {
    Rule {
        operations: strings(rule, "operations"),
        groups: strings(rule, "apiGroups"),
        versions: strings(rule, "apiVersions"),
        resources: strings(rule, "resources"),
        scope: rule.get("scope").and_then(Value::as_str).unwrap_or("*").to_owned(),
        names: strings(rule, "resourceNames"),
    }
}

/// What a `clientConfig` says.
pub(crate) fn target(config: &Value) -> Target {
    let text = |pointer: &str| config.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let port = config.pointer("/service/port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    let place = match (config.get("service").is_some_and(Value::is_object), text("/url")) {
        (true, _) => Place::Service {
            namespace: text("/service/namespace").to_owned(),
            name: text("/service/name").to_owned(),
            path: text("/service/path").to_owned(),
            port: port.unwrap_or(443),
        },
        (false, "") => Place::Nowhere,
        (false, url) => Place::Url(url.to_owned()),
    };
    Target { place, ca_bundle: STANDARD.decode(text("/caBundle")).unwrap_or_default() }
}
