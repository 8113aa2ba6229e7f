//! `x-kubernetes-validations` of a structural schema: compiled once, evaluated on every write
//! (`k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::cel::{Environment, Failure, Program, Type, Val, compile, type_of};
use crate::field::{Error, Errors, Path};

/// The most that all rules of one object may cost (`celconfig.RuntimeCELCostBudget`).
const BUDGET: u64 = 10_000_000;
/// The longest message an expression may make, in bytes.
const MAX_MESSAGE: usize = 5 * 1024;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// The rules of one node of a schema and of those below it.
#[derive(Debug)]
pub struct Rules {
    of: Type,
    /// `type` of the schema, which errors show where they show no value.
    kind: String,
    own: Vec<Rule>,
    items: Option<Box<Rules>>,
    keys: Option<Vec<String>>,
    values: Option<Box<Rules>>,
    properties: BTreeMap<String, Rules>,
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// The rule as written.
    pub text: String,
    message: String,
    reason: String,
    field_path: String,
    optional: bool,
    /// Whether it compares with the old value.
    pub uses_old: bool,
    /// The error is upstream's detail.
    pub program: Result<Program, String>,
    /// Its own message; `None` where there is none.
    pub message_expression: Option<Result<Program, String>>,
}

/// Compiles the rules of one node alone; empty where it has none.
pub fn compile_own(schema: &Value, of: &Type) -> Vec<Rule> {
    let listed = schema.get("x-kubernetes-validations").and_then(Value::as_array);
    listed.into_iter().flatten().map(|rule| rule_of(rule, of)).collect()
}

fn rule_of(rule: &Value, of: &Type) -> Rule {
    let text = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let optional = rule.get("optionalOldSelf").and_then(Value::as_bool).unwrap_or_default();
    let old = if optional { Type::optional(of.clone()) } else { of.clone() };
    let environment = Environment::default().with("self", of.clone()).with("oldSelf", old);
    let program = typed(
        &text("rule"),
        &environment,
        &Type::Bool,
        "compilation failed: ",
        "cel expression must evaluate to a bool",
    );
    let message = text("messageExpression");
    let message_expression = (!message.is_empty()).then(|| {
        let failed = "messageExpression compilation failed: ";
        typed(&message, &environment, &Type::TEXT, failed, "messageExpression must evaluate to a string")
    });
    Rule {
        uses_old: program.as_ref().is_ok_and(|program| program.mentions("oldSelf")),
        text: text("rule"),
        message: text("message"),
        reason: text("reason"),
        field_path: text("fieldPath"),
        optional,
        program,
        message_expression,
    }
}

fn typed(text: &str, environment: &Environment, wanted: &Type, failed: &str, other: &str) -> Result<Program, String> {
    let program = compile(text, environment).map_err(|error| format!("{failed}{error}"))?;
    if program.result() == wanted { Ok(program) } else { Err(other.to_owned()) }
}

impl Rules {
    /// Compiles all rules of a schema; `None` where it has none.
    pub fn compile(schema: &Value) -> Option<Self> {
        Self::node(schema, true)
    }

    fn node(schema: &Value, root: bool) -> Option<Self> {
        let of = type_of(schema, root)?;
        let below = |schema: Option<&Value>| {
            let schema = schema.filter(|schema| schema.is_object())?;
            let embedded = schema.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true));
            Self::node(schema, embedded).map(Box::new)
        };
        let own = compile_own(schema, &of);
        let items = below(schema.get("items"));
        let values = below(schema.get("additionalProperties"));
        let empty = Map::new();
        let declared = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let found = declared.iter().filter_map(|(name, property)| Some((name.clone(), *below(Some(property))?)));
        let properties: BTreeMap<String, Self> = found.collect();
        if own.is_empty() && items.is_none() && values.is_none() && properties.is_empty() {
            return None;
        }
        let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or_default();
        let keys = (text("x-kubernetes-list-type") == "map").then(|| {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
            keys.filter_map(Value::as_str).map(str::to_owned).collect()
        });
        Some(Self { of, kind: text("type").to_owned(), own, items, keys, values, properties })
    }

    /// Checks an object against its rules. What an unchanged part fails is a warning (ratcheting).
    pub fn check(&self, new: &Value, old: Option<&Value>) -> (Errors, Vec<String>) {
        let mut run = Run { left: BUDGET, errors: Errors::new(), warnings: Vec::new() };
        let _ = run.node(self, new, Place { path: Path::default(), old, near: old.map(|old| old == new) });
        (run.errors, run.warnings)
    }
}

/// Where in the object a rule is evaluated.
struct Place<'a> {
    path: Path,
    /// The value there before, where it can be told which one that is.
    old: Option<&'a Value>,
    /// Whether this value, or the nearest around it with a counterpart, is as it was; `None` without any.
    near: Option<bool>,
}

struct Run {
    left: u64,
    errors: Errors,
    warnings: Vec<String>,
}

/// No more rules are to be evaluated.
struct Stop;

impl Run {
    fn node(&mut self, rules: &Rules, new: &Value, place: Place<'_>) -> Result<(), Stop> {
        if new.is_null() {
            return Ok(());
        }
        self.own(rules, new, &place)?;
        match new {
            Value::Array(items) => {
                let Some(below) = &rules.items else { return Ok(()) };
                let old_items = place.old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                for (at, item) in items.iter().enumerate() {
                    let same_key = |old: &&Value| {
                        rules.keys.as_ref().is_some_and(|keys| keys.iter().all(|key| old.get(key) == item.get(key)))
                    };
                    let old = old_items.iter().find(same_key);
                    let near = old.map(|old| old == item).or(place.near);
                    self.node(below, item, Place { path: place.path.index(at), old, near })?;
                }
            }
            Value::Object(map) => {
                for (key, value) in map {
                    let (below, path) = match (rules.properties.get(key), &rules.values) {
                        (Some(below), _) => (below, place.path.child(key)),
                        (None, Some(below)) => (&**below, place.path.key(key)),
                        (None, None) => continue,
                    };
                    let old = place.old.and_then(|old| old.get(key));
                    let near = old.map(|old| old == value).or(place.old.map(|_| false)).or(place.near);
                    self.node(below, value, Place { path, old, near })?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn own(&mut self, rules: &Rules, new: &Value, place: &Place<'_>) -> Result<(), Stop> {
        for rule in &rules.own {
            if rule.uses_old && place.old.is_none() && !rule.optional {
                continue;
            }
            let invalid = |detail: String| Error::invalid(place.path.clone(), rules.kind.as_str(), detail);
            let program = match &rule.program {
                Ok(program) => program,
                Err(error) => {
                    self.errors.push(invalid(format!("rule compile error: {error}")));
                    continue;
                }
            };
            let scope = scope(rules, rule, new, place.old);
            let (result, cost) = program.evaluate(scope.as_slice());
            if cost > self.left {
                self.errors.push(invalid(OUT_OF_BUDGET.into()));
                return Err(Stop);
            }
            self.left -= cost;
            match result {
                Ok(value) if value.is_true() => {}
                Ok(_) => {
                    let detail = self.message(rule, &scope).map_err(|detail| {
                        self.errors.push(invalid(detail));
                        Stop
                    })?;
                    self.refused(rules, rule, new, place, detail);
                }
                Err(Failure::Limit) => {
                    let why = "no further validation rules will be run due to call cost exceeds limit for rule";
                    self.errors.push(invalid(format!("'{}': {why}: {}", Failure::Limit, rule.shown())));
                    return Err(Stop);
                }
                Err(Failure::Error(error)) if error.starts_with("no such overload") => {
                    let why = "call arguments did not match a supported operator, function or macro signature for rule";
                    self.errors.push(invalid(format!("'{error}': {why}: {}", rule.shown())));
                }
                Err(Failure::Error(error)) => {
                    self.errors.push(invalid(format!("{error} evaluating rule: {}", rule.shown())));
                }
            }
        }
        Ok(())
    }

    fn refused(&mut self, rules: &Rules, rule: &Rule, new: &Value, place: &Place<'_>, detail: String) {
        let path = match rule.field_path.is_empty() {
            true => place.path.clone(),
            false => Path::new(&format!("{}{}", shown(&place.path), rule.field_path)),
        };
        let value = if matches!(rules.kind.as_str(), "object" | "array") { Value::Null } else { new.clone() };
        let error = match rule.reason.as_str() {
            "FieldValueForbidden" => Error::forbidden(path, detail),
            "FieldValueRequired" => Error::required(path, detail),
            "FieldValueDuplicate" => Error::duplicate(path, value),
            _ if value.is_null() => Error::invalid_omitted(path, detail),
            _ => Error::invalid(path, value, detail),
        };
        match !rule.uses_old && place.near == Some(true) {
            true => self.warnings.push(error.to_string()),
            false => self.errors.push(error),
        }
    }

    /// What a rule that was not met says; the error ends all.
    fn message(&mut self, rule: &Rule, scope: &[(&str, Val<'_>)]) -> Result<String, String> {
        let plain = || match rule.message.trim() {
            "" => format!("failed rule: {}", rule.shown()),
            message => message.to_owned(),
        };
        let Some(Ok(program)) = &rule.message_expression else { return Ok(plain()) };
        let values: Vec<(&str, Val<'_>)> = scope.iter().map(|(name, value)| (*name, value.clone())).collect();
        let (result, cost) = program.evaluate(values.as_slice());
        if cost > self.left {
            return Err(
                "messageExpression evaluation failed due to running out of cost budget, no further validation rules will \
                 be run"
                    .into(),
            );
        }
        self.left -= cost;
        if matches!(result, Err(Failure::Limit)) {
            return Err(
                "no further validation rules will be run due to call cost exceeds limit for messageExpression".into()
            );
        }
        let text = result.ok().and_then(|value| value.as_text().map(|text| text.trim().to_owned()));
        Ok(text.filter(|t| !t.is_empty() && t.len() <= MAX_MESSAGE && !t.contains('\n')).unwrap_or_else(plain))
    }
}

fn shown(path: &Path) -> String {
    match path.to_string() {
        root if root == "<nil>" => String::new(),
        path => path,
    }
}

fn scope<'a>(rules: &'a Rules, rule: &Rule, new: &'a Value, old: Option<&'a Value>) -> Vec<(&'static str, Val<'a>)> {
    let mut scope = vec![("self", Val::of(new, &rules.of))];
    let old = old.map(|old| Val::of(old, &rules.of));
    match (rule.optional, old) {
        (true, old) => scope.push(("oldSelf", Val::Optional(old.map(Into::into)))),
        (false, Some(old)) => scope.push(("oldSelf", old)),
        (false, None) => {}
    }
    scope
}

impl Rule {
    /// How errors of its evaluation name it.
    fn shown(&self) -> &str {
        match self.message.trim() {
            "" => self.text.trim(),
            message => message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rules;
    use serde_json::{Value, json};

    fn check(new: Value, old: Option<Value>) -> (Vec<String>, Vec<String>) {
        let schema = json!({
            "type": "object",
            "x-kubernetes-validations": [{"rule": "self.metadata.name != 'bad'", "message": "bad name"}],
            "properties": {"spec": {
                "type": "object",
                "x-kubernetes-validations": [
                    {"rule": "self.min <= self.max", "messageExpression": "'%d > %d'.format([self.min, self.max])"},
                    {"rule": "!has(self.zone) || self.zone == oldSelf.zone", "fieldPath": ".zone", "reason": "FieldValueForbidden",
                        "message": "immutable"},
                    {"rule": "oldSelf.hasValue() || self.max < 100", "optionalOldSelf": true},
                ],
                "properties": {
                    "min": {"type": "integer"}, "max": {"type": "integer"}, "zone": {"type": "string"},
                    "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"], "items": {
                        "type": "object",
                        "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v", "message": "only up"}],
                        "properties": {"n": {"type": "string"}, "v": {"type": "integer"}}}},
                    "note": {"type": "string", "x-kubernetes-validations": [{"rule": "self.size() < 3"}]},
                },
            }},
        });
        let rules = Rules::compile(&schema).expect("it has rules");
        let (errors, warnings) = rules.check(&new, old.as_ref());
        (errors.iter().map(ToString::to_string).collect(), warnings)
    }

    #[test]
    fn rules_refuse_in_upstreams_words() {
        let none: Vec<String> = Vec::new();
        let good = json!({"metadata": {"name": "a"}, "spec": {"min": 1, "max": 2, "zone": "a"}});
        assert_eq!(check(good.clone(), None), (none.clone(), none.clone()));
        let bad = json!({"metadata": {"name": "bad"}, "spec": {"min": 3, "max": 2, "note": "long"}});
        let want = [
            "<nil>: Invalid value: bad name",
            "spec: Invalid value: 3 > 2",
            "spec.note: Invalid value: \"long\": failed rule: self.size() < 3",
        ];
        assert_eq!(check(bad.clone(), None).0, want);
        let moved = json!({"metadata": {"name": "a"}, "spec": {"min": 1, "max": 2, "zone": "b"}});
        assert_eq!(check(moved, Some(good)).0, ["spec.zone: Forbidden: immutable"]);
        // What is as it was may stay so.
        let (errors, warnings) = check(bad.clone(), Some(bad));
        assert_eq!((errors, warnings.len()), (none.clone(), 3));
        let port =
            |v: i64| json!({"metadata": {"name": "a"}, "spec": {"min": 1, "max": 2, "ports": [{"n": "x", "v": v}]}});
        assert_eq!(check(port(1), Some(port(2))).0, ["spec.ports[0]: Invalid value: only up"]);
        assert_eq!(check(port(3), Some(port(2))).0, none);
        let large = json!({"metadata": {"name": "a"}, "spec": {"min": 1, "max": 200}});
        assert_eq!(check(large, None).0, ["spec: Invalid value: failed rule: oldSelf.hasValue() || self.max < 100"]);
        let missing = json!({"metadata": {"name": "a"}, "spec": {"min": 1}});
        assert_eq!(check(missing, None).0.len(), 2);
    }
}
