//! The rules of an `openAPIV3Schema`
//! (`k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go`).

use serde_json::{Value, json};

use super::structural::structural;
use crate::cel::{Type, type_of};
use crate::field::{Error, Errors, Path};
use crate::schema::{Rule, Schema, compile_own};
use crate::tree::{flag, get, list, text, texts};

/// The most that one rule, and all of them together, may be estimated to cost.
const RULE_LIMIT: u64 = 10_000_000;
const TOTAL_LIMIT: u64 = 100_000_000;
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
const PARTS: [&str; 3] = ["allOf", "oneOf", "anyOf"];

/// What the path of a schema says about those below it.
#[derive(Clone)]
struct Context {
    root: bool,
    /// Inside the schema of metadata.
    metadata: bool,
    /// Why defaults are not allowed here.
    no_defaults: Option<String>,
    /// Below this path, old values cannot be told apart.
    uncorrelated: Option<Path>,
    /// How often a value may stand here; `None` without bound.
    times: Option<u64>,
    /// Under `not`, `allOf` and so on rules are not compiled.
    rules: bool,
}

#[derive(Default)]
struct Found {
    errors: Errors,
    rules: Errors,
    total: u64,
    costly: Vec<(u64, Path)>,
}

/// All that is wrong with the schema of one version.
pub(super) fn validate(schema: &Value, with_status: bool, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let place = path.child("openAPIV3Schema");
    if with_status {
        errors.extend(allowed_at_root(schema, &place));
    }
    if flag(schema, "nullable") {
        errors.push(Error::forbidden(place.child("nullable"), "nullable cannot be true at the root"));
    }
    let faults = structural(schema, &place);
    let faults = if faults.is_empty() { defaults(schema, &place) } else { faults };
    let context = Context {
        root: true,
        metadata: false,
        no_defaults: None,
        uncorrelated: None,
        times: Some(1),
        rules: faults.is_empty(),
    };
    errors.extend(faults);
    let mut found = Found::default();
    node(schema, &place, &context, &mut found);
    errors.extend(found.errors);
    errors.extend(found.rules);
    if found.total > TOTAL_LIMIT {
        found.costly.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        for (_, path) in found.costly.into_iter().take(4) {
            let detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            errors.push(Error::forbidden(path, detail));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.push(Error::forbidden(place, over(what, found.total, TOTAL_LIMIT)));
    }
    errors
}

/// With the status subresource, only what also holds for `properties["status"]` alone.
fn allowed_at_root(schema: &Value, path: &Path) -> Errors {
    const ALLOWED: &str = "description type format title maximum exclusiveMaximum minimum exclusiveMinimum maxLength \
                           minLength pattern maxItems minItems uniqueItems multipleOf required items properties externalDocs \
                           example x-kubernetes-preserve-unknown-fields x-kubernetes-validations";
    let kind = text(schema, "type");
    if !kind.is_empty() && kind != "object" {
        let detail =
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        return vec![Error::invalid(path.child("type"), kind, detail)];
    }
    let known = |key: &String| ALLOWED.split(' ').any(|allowed| allowed == key);
    match schema.as_object().is_some_and(|map| map.keys().all(known)) {
        true => Errors::new(),
        false => {
            let detail = "only [Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength \
                          MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs \
                          Example XPreserveUnknownFields XValidations] fields are allowed at the root of the schema if the \
                          status subresource is enabled";
            vec![Error::invalid(path.clone(), schema.clone(), detail)]
        }
    }
}

/// Defaults must be valid themselves and hold nothing that would be pruned.
fn defaults(schema: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    for (property, place) in below(schema, path) {
        if let Some(default) = get(property, "default") {
            let place = place.child("default");
            let mut kept = default.clone();
            Schema::prune_value(property, &mut kept);
            if kept != *default {
                errors.push(Error::invalid(place.clone(), default.clone(), "must not have unknown fields"));
            }
            errors.extend(Schema::check_value(property, default).into_iter().map(|error| {
                let inner = error.path.to_string().replace("<nil>", "");
                let path = if inner.is_empty() { place.clone() } else { place.child(&inner) };
                let detail = error.detail.replacen(&format!("{inner} in body"), &format!("{path} in body"), 1);
                Error { path, detail, ..error }
            }));
        }
        errors.extend(defaults(property, &place));
    }
    errors
}

/// Properties, items and additional properties with their paths.
fn below<'a>(schema: &'a Value, path: &Path) -> Vec<(&'a Value, Path)> {
    let properties = get(schema, "properties").and_then(Value::as_object).into_iter().flatten();
    let mut found: Vec<(&Value, Path)> =
        properties.map(|(name, property)| (property, path.child("properties").key(name))).collect();
    for key in ["items", "additionalProperties"] {
        found.extend(get(schema, key).filter(|s| s.is_object()).map(|schema| (schema, path.child(key))));
    }
    found
}

fn node(schema: &Value, path: &Path, context: &Context, found: &mut Found) {
    standard(schema, path, context, &mut found.errors);
    let times = |max: &str| context.times.and_then(|times| Some(times.saturating_mul(get(schema, max)?.as_u64()?)));
    let has_values = get(schema, "additionalProperties").is_some();
    let property_times = if has_values { times("maxProperties") } else { context.times };
    if has_values
        && get(schema, "properties").and_then(Value::as_object).is_some_and(|p| !p.is_empty())
        && get(schema, "additionalProperties") != Some(&json!(true))
    {
        let detail = "additionalProperties and properties are mutual exclusive";
        found.errors.push(Error::forbidden(path.child("additionalProperties"), detail));
    }
    if let Some(values) = get(schema, "additionalProperties").filter(|a| a.is_object()) {
        let mut inner = Context { root: false, times: property_times, ..context.clone() };
        if context.metadata {
            inner.no_defaults = Some("inside additionalProperties applying to object metadata".into());
        }
        node(values, &path.child("additionalProperties"), &inner, found);
    }
    for (name, property) in get(schema, "properties").and_then(Value::as_object).into_iter().flatten() {
        let mut inner = Context { root: false, times: property_times, ..context.clone() };
        let map_type = text(schema, "x-kubernetes-map-type");
        if !matches!(map_type, "" | "granular" | "atomic") {
            inner.uncorrelated = inner.uncorrelated.or_else(|| Some(path.clone()));
        }
        let own = context.root || flag(schema, "x-kubernetes-embedded-resource");
        if own && matches!(name.as_str(), "metadata" | "kind" | "apiVersion") {
            inner.metadata = true;
            if context.root {
                inner.no_defaults = Some(format!("in top-level {name}"));
            }
        }
        node(property, &path.child("properties").key(name), &inner, found);
    }
    let part = Context { root: false, rules: false, ..context.clone() };
    if let Some(not) = get(schema, "not").filter(|n| n.is_object()) {
        node(not, &path.child("not"), &part, found);
    }
    for key in PARTS {
        for (at, schema) in list(schema, key).iter().enumerate() {
            node(schema, &path.child(key).index(at), &part, found);
        }
    }
    if let Some(items) = get(schema, "items").filter(|i| i.is_object()) {
        let mut inner = Context { root: false, times: times("maxItems"), ..context.clone() };
        if text(schema, "x-kubernetes-list-type") != "map" {
            inner.uncorrelated = inner.uncorrelated.or_else(|| Some(path.clone()));
        }
        node(items, &path.child("items"), &inner, found);
    }
    extensions(schema, path, &mut found.errors);
    rules(schema, path, context, found);
}

/// What OpenAPI has and definitions may not.
fn standard(schema: &Value, path: &Path, context: &Context, errors: &mut Errors) {
    let kind = text(schema, "type");
    if kind == "null" {
        let detail = "type cannot be set to null, use nullable as an alternative";
        errors.push(Error::forbidden(path.child("type"), detail));
    }
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.push(Error::not_supported(path.child("type"), kind, &TYPES));
    }
    if let (Some(reason), true) = (&context.no_defaults, get(schema, "default").is_some()) {
        errors.push(Error::forbidden(path.child("default"), format!("must not be set {reason}")));
    }
    for field in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if get(schema, field).is_some() {
            errors.push(Error::forbidden(path.child(field), format!("{field} is not supported")));
        }
    }
    if get(schema, "items").is_some_and(Value::is_array) {
        errors.push(Error::forbidden(path.child("items"), "items must be a schema object and not an array"));
    }
    if context.metadata && flag(schema, "x-kubernetes-embedded-resource") {
        let place = path.child("x-kubernetes-embedded-resource");
        errors.push(Error::forbidden(place, "must not be used inside of resource meta"));
    }
    if flag(schema, "uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(Error::forbidden(path.child("uniqueItems"), detail));
    }
}

/// Kubernetes' own fields.
fn extensions(schema: &Value, path: &Path, errors: &mut Errors) {
    const OPEN: &str = "x-kubernetes-preserve-unknown-fields";
    if get(schema, OPEN) == Some(&Value::Bool(false)) {
        errors.push(Error::invalid(path.child(OPEN), false, "must be true or undefined"));
    }
    for (field, wanted, known) in [
        ("x-kubernetes-map-type", "object", &["atomic", "granular"][..]),
        ("x-kubernetes-list-type", "array", &["atomic", "set", "map"][..]),
    ] {
        let (kind, value) = (text(schema, "type"), text(schema, field));
        if value.is_empty() {
            continue;
        }
        let detail = format!("must be {wanted} if {field} is specified");
        match kind {
            "" => errors.push(Error::required(path.child("type"), detail)),
            kind if kind != wanted => errors.push(Error::invalid(path.child("type"), kind, detail)),
            _ => {}
        }
        if !known.contains(&value) {
            errors.push(Error::not_supported(path.child(field), value, known));
        }
    }
    list_keys(schema, path, errors);
}

fn list_keys(schema: &Value, path: &Path, errors: &mut Errors) {
    const KEYS: &str = "x-kubernetes-list-map-keys";
    let (kind, keys) = (text(schema, "x-kubernetes-list-type"), texts(schema, KEYS));
    let place = path.child("x-kubernetes-list-type");
    let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
    match kind {
        "" if !keys.is_empty() => errors.push(Error::required(place, detail)),
        kind if kind != "map" && !keys.is_empty() => errors.push(Error::invalid(place, kind, detail)),
        _ => {}
    }
    let items = path.child("items");
    let Some(of) = get(schema, "items").filter(|i| i.is_object()) else { return };
    if matches!(kind, "set" | "map") && flag(of, "nullable") {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {kind}");
        errors.push(Error::forbidden(items.child("nullable"), detail));
    }
    if kind == "set" {
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        for (wanted, field) in [("array", "x-kubernetes-list-type"), ("object", "x-kubernetes-map-type")] {
            let value = text(of, field);
            let atomic = value == "atomic" || (wanted == "array" && value.is_empty());
            if text(of, "type") == wanted && !atomic {
                let shown = get(of, "x-kubernetes-list-type").cloned().unwrap_or_default();
                errors.push(Error::invalid(items.child(field), shown, detail));
            }
        }
    }
    if kind != "map" {
        return;
    }
    if keys.is_empty() {
        let detail = "must not be empty if x-kubernetes-list-type is map";
        errors.push(Error::required(path.child(KEYS), detail));
    }
    if text(of, "type") != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(Error::invalid(items.child("type"), text(of, "type"), detail));
        return;
    }
    let required = texts(of, "required");
    for (at, key) in keys.iter().enumerate() {
        let place = items.child("properties").key(key);
        let Some(property) = get(of, "properties").and_then(|p| p.get(*key)) else {
            let detail = "entries must all be names of item properties";
            errors.push(Error::invalid(path.child(KEYS), json!(keys), detail));
            continue;
        };
        if matches!(text(property, "type"), "array" | "object") {
            let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.push(Error::invalid(place.child("type"), text(of, "type"), detail));
        }
        if keys.iter().take(at).any(|other| other == key) {
            errors.push(Error::invalid(path.child(KEYS), json!(keys), "must not contain duplicate entries"));
        }
        let detail = "this property is in x-kubernetes-list-map-keys, so it";
        if !required.contains(key) && get(property, "default").is_none() {
            let detail = format!("{detail} must have a default or be a required property");
            errors.push(Error::required(place.child("default"), detail));
        }
        if flag(property, "nullable") {
            errors.push(Error::forbidden(place.child("nullable"), format!("{detail} cannot be nullable")));
        }
    }
}

fn rules(schema: &Value, path: &Path, context: &Context, found: &mut Found) {
    let listed = list(schema, "x-kubernetes-validations");
    let path = path.child("x-kubernetes-validations");
    for (at, rule) in listed.iter().enumerate() {
        written(schema, rule, &path.index(at), &mut found.errors);
    }
    if listed.is_empty() || !context.rules || !found.errors.is_empty() {
        return;
    }
    let embedded = context.root || flag(schema, "x-kubernetes-embedded-resource");
    let Some(of) = type_of(schema, embedded) else { return };
    let times = context.times.unwrap_or_else(|| cardinality(&of));
    for (at, (rule, listed)) in compile_own(schema, &of).into_iter().zip(listed).enumerate() {
        compiled(&rule, listed, times, &path.index(at), context, found);
    }
}

/// How often a value may stand in the largest request.
fn cardinality(of: &Type) -> u64 {
    3 * 1024 * 1024 / (of.min_size() + 1)
}

/// The texts of a rule.
fn written(schema: &Value, rule: &Value, path: &Path, errors: &mut Errors) {
    let breaks = |text: &str| text.contains(['\n', '\r']);
    let (source, message) = (text(rule, "rule"), text(rule, "message"));
    let place = path.child("message");
    if source.trim().is_empty() {
        errors.push(Error::required(path.child("rule"), "rule is not specified"));
    } else if !message.is_empty() && message.trim().is_empty() {
        errors.push(Error::invalid(place, message, "must be non-empty if specified"));
    } else if breaks(message.trim()) {
        errors.push(Error::invalid(place, message, "must not contain line breaks"));
    } else if breaks(source.trim()) && message.trim().is_empty() {
        errors.push(Error::required(place, "message must be specified if rule contains line breaks"));
    }
    let expression = text(rule, "messageExpression");
    if !expression.is_empty() && expression.trim().is_empty() {
        let detail = "messageExpression must be non-empty if specified";
        errors.push(Error::required(path.child("messageExpression"), detail));
    }
    let reason = text(rule, "reason");
    if !reason.is_empty() && !REASONS.contains(&reason) {
        errors.push(Error::not_supported(path.child("reason"), reason, &REASONS));
    }
    let (field, place) = (text(rule, "fieldPath"), path.child("fieldPath"));
    if field.is_empty() {
        return;
    }
    if field.trim().is_empty() {
        errors.push(Error::invalid(place.clone(), field, "must be non-empty if specified"));
    }
    if breaks(field) {
        errors.push(Error::invalid(place.clone(), field, "must not contain line breaks"));
    }
    if !leads_somewhere(schema, field) {
        errors.push(Error::invalid(place, field, "must be a valid path"));
    }
}

/// Whether a path of `.name` and `['name']` names a field of the schema.
fn leads_somewhere(schema: &Value, path: &str) -> bool {
    let (mut at, mut rest) = (schema, path);
    while !rest.is_empty() {
        let (name, after) = if let Some(inside) = rest.strip_prefix("['") {
            match inside.split_once("']") {
                Some(parts) => parts,
                None => return false,
            }
        } else if let Some(inside) = rest.strip_prefix('.') {
            inside.split_at(inside.find(['.', '[']).unwrap_or(inside.len()))
        } else {
            return false;
        };
        let property = get(at, "properties").map(|properties| properties.get(name));
        let Some(next) = property.unwrap_or_else(|| get(at, "additionalProperties")) else { return false };
        (at, rest) = (next, after);
    }
    true
}

fn compiled(rule: &Rule, listed: &Value, times: u64, path: &Path, context: &Context, found: &mut Found) {
    let mut costs = |cost: u64, field: &str, what: &str| {
        if cost > RULE_LIMIT {
            found.rules.push(Error::forbidden(path.child(field), over(what, cost, RULE_LIMIT)));
        }
        found.total = found.total.saturating_add(cost);
        if cost >= TOTAL_LIMIT / 100 {
            found.costly.push((cost, path.child(field)));
        }
    };
    match &rule.program {
        Ok(program) => costs(program.estimate().saturating_mul(times), "rule", "estimated rule cost"),
        Err(error) => found.rules.push(Error::invalid(path.child("rule"), listed.clone(), error.as_str())),
    }
    match &rule.message_expression {
        Some(Ok(program)) => {
            let mut costs = |cost: u64, field: &str, what: &str| {
                if cost > RULE_LIMIT {
                    found.rules.push(Error::forbidden(path.child(field), over(what, cost, RULE_LIMIT)));
                }
                found.total = found.total.saturating_add(cost);
            };
            costs(program.estimate(), "messageExpression", "estimated messageExpression cost");
        }
        Some(Err(error)) if rule.program.is_ok() => {
            found.rules.push(Error::invalid(path.child("messageExpression"), listed.clone(), error.as_str()));
        }
        _ => {}
    }
    if rule.uses_old {
        if let Some(near) = &context.uncorrelated {
            let detail = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {near}");
            found.rules.push(Error::invalid(path.child("rule"), rule.text.as_str(), detail));
        }
    } else if let (Some(value), Ok(_)) = (get(listed, "optionalOldSelf"), &rule.program) {
        let detail = "may not be set if oldSelf is not used in rule";
        found.rules.push(Error::invalid(path.child("optionalOldSelf"), value.clone(), detail));
    }
}

fn over(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        f if f > 100.0 => "more than 100x".to_owned(),
        f if f < 1.5 => format!("{f:.6}x"),
        f => format!("{f:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}
