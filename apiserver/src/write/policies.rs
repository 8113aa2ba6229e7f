//! Admission policies as a part of the write machine
//! (`k8s.io/apiserver/pkg/admission/plugin/policy/{validating,mutating}/dispatcher.go`).

use std::collections::BTreeMap;

use api::cel::admission::Input;
use api::cel::policy::{Evaluation, OUT_OF_BUDGET};
use api::status::Cause;
use api::{Document, GroupResource, ObjectName, Status};
use serde_json::{Value, json};

use super::admit::Admission;
use super::machine::{Machine, Stepped};
use crate::hooks::{self, Authority, Invocation, Objects};
use crate::policies::{Binding, Mutation, Policy, Validation, params};

/// The longest message that an expression may make, and the longest annotation, in bytes.
const MAX_MESSAGE: usize = 5 * 1024;
const MAX_ANNOTATION: usize = 10 * 1024;
/// So many failures are noted for audit.
const MAX_FAILURES: usize = 50;

/// What a policy decided against.
struct Denial {
    binding: Option<String>,
    reason: String,
    message: String,
}

impl Denial {
    fn broken(binding: Option<&Binding>, why: &str) -> Self {
        let what = if binding.is_some() { "binding" } else { "policy" };
        let message = format!("failed to configure {what}: {why}");
        Self { binding: binding.map(|b| b.name.clone()), reason: String::new(), message }
    }
}

/// What one policy is evaluated on.
struct Subject<'m> {
    invocation: Invocation,
    request: Value,
    object: Option<Document>,
    old: Option<Document>,
    namespace: Option<std::sync::Arc<Document>>,
    authority: Authority<'m>,
}

impl Subject<'_> {
    fn input<'b>(&'b self, params: Option<&'b Document>) -> Input<'b> {
        Input {
            object: self.object.as_ref().map(Document::value),
            old_object: self.old.as_ref().map(Document::value),
            request: &self.request,
            namespace_object: self.namespace.as_ref().map(|namespace| namespace.value()),
            params: params.map(Document::value),
            authorizer: Some(&self.authority),
        }
    }
}

/// The policies there are, unless the request is none of their business.
fn known<'a>(machine: &Machine<'a>, admission: &Admission) -> Option<super::Policies<'a>> {
    let known = machine.snapshot.policies()?;
    let none = known.policies.mutating.is_empty() && known.policies.validating.is_empty();
    let free = none || machine.request.internal || hooks::is_exempt(&admission.subject.resource());
    (!free).then_some(known)
}

fn subject<'a>(
    machine: &Machine<'a>,
    admission: &Admission,
    known: super::Policies<'a>,
    invocation: Invocation,
    objects: [Option<&Document>; 2],
) -> Subject<'a> {
    let Admission { subject, options, .. } = admission;
    let (user, view) = (machine.request.user(), machine.snapshot.view());
    let dry = machine.request.dry_run();
    let review = hooks::review("v1", subject, &invocation, Objects::default(), user, options, dry);
    let [object, old] = objects.map(|object| object.map(|object| invocation.shown(object)));
    let is_namespace = subject.row.group.is_empty() && subject.row.plural == "namespaces";
    let in_one = !subject.namespace.is_empty() && !is_namespace;
    let name = ObjectName { namespace: String::new(), name: subject.namespace.clone() };
    let namespace = in_one.then(|| view.get(&GroupResource::new("", "namespaces"), &name)).flatten();
    let authority = Authority { user, authorizers: known.authorizers, view };
    let request = review.get("request").cloned().unwrap_or_default();
    Subject { invocation, request, object, old, namespace, authority }
}

/// Whether a policy or a binding concerns the request. The error is a fault of its configuration.
fn concerned(
    machine: &Machine<'_>,
    admission: &Admission,
    matching: &hooks::Matching,
    objects: [Option<&Document>; 2],
) -> Result<Option<Invocation>, String> {
    let (rows, view) = (machine.snapshot.webhooks().rows, machine.snapshot.view());
    hooks::invocation(matching, &admission.subject, rows, objects, view).map_err(|status| status.message.clone())
}

/// Lets validating policies deny, warn and note.
pub(super) fn validate(
    machine: &mut Machine<'_>,
    admission: &Admission,
    object: &Document,
    old: Option<&Document>,
) -> Stepped<()> {
    let Some(known) = known(machine, admission) else { return Ok(()) };
    let objects = [admission.object(object), old];
    let mut denied: Option<(String, Denial)> = None;
    let mut failures = Vec::new();
    for policy in &known.policies.validating {
        let invocation = match concerned(machine, admission, &policy.matching, objects) {
            Ok(Some(invocation)) => invocation,
            Ok(None) => continue,
            Err(why) => {
                note(&mut denied, policy, (!policy.ignore).then(|| Denial::broken(None, &why)));
                continue;
            }
        };
        let subject = subject(machine, admission, known, invocation, objects);
        let mut notes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for binding in &policy.bindings {
            let found = match bound(machine, admission, policy, binding, objects) {
                Ok(found) => found,
                Err(why) => {
                    note(&mut denied, policy, (!policy.ignore).then(|| Denial::broken(Some(binding), &why)));
                    continue;
                }
            };
            for params in &found {
                let decided = decide(policy, &subject.input(params.as_ref()));
                for (at, (reason, message)) in decided.denied {
                    for action in &binding.actions {
                        match action.as_str() {
                            "Deny" => {
                                let (reason, message) = (reason.clone(), message.clone());
                                let denial = Denial { binding: Some(binding.name.clone()), reason, message };
                                note(&mut denied, policy, Some(denial));
                            }
                            "Warn" => machine.warnings.push(format!(
                                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {message}",
                                policy.name, binding.name
                            )),
                            _ => failures.push(json!({
                                "message": message, "policy": policy.name, "binding": binding.name,
                                "expressionIndex": at, "validationActions": binding.actions,
                            })),
                        }
                    }
                }
                for (key, value) in decided.notes {
                    let known = notes.entry(key).or_default();
                    if !known.contains(&value) {
                        known.push(value);
                    }
                }
                let failed = decided.failed.map(|message| Denial {
                    binding: Some(binding.name.clone()),
                    reason: String::new(),
                    message,
                });
                note(&mut denied, policy, failed);
            }
        }
        for (key, values) in notes {
            machine.annotate(format!("{}/{key}", policy.name), values.join(", "));
        }
    }
    if !failures.is_empty() {
        failures.truncate(MAX_FAILURES);
        let key = "validation.policy.admission.k8s.io/validation_failure".to_owned();
        machine.annotate(key, Value::Array(failures).to_string());
    }
    match denied {
        None => Ok(()),
        Some((policy, denial)) => Err(refusal("ValidatingAdmissionPolicy", &policy, denial, admission, object).into()),
    }
}

/// The first denial counts.
fn note(denied: &mut Option<(String, Denial)>, policy: &Policy, denial: Option<Denial>) {
    if let (None, Some(denial)) = (&denied, denial) {
        *denied = Some((policy.name.clone(), denial));
    }
}

/// The parameters that a binding is evaluated with; none where it does not concern the request.
fn bound(
    machine: &Machine<'_>,
    admission: &Admission,
    policy: &Policy,
    binding: &Binding,
    objects: [Option<&Document>; 2],
) -> Result<Vec<Option<Document>>, String> {
    if let Some(matching) = &binding.matching {
        // A binding without rules narrows by its selectors alone.
        let meant = match matching.rules.is_empty() {
            true => hooks::selected(matching, &admission.subject, objects, machine.snapshot.view())
                .map_err(|status| status.message.clone())?,
            false => concerned(machine, admission, matching, objects)?.is_some(),
        };
        if !meant {
            return Ok(Vec::new());
        }
    }
    let (rows, view) = (machine.snapshot.webhooks().rows, machine.snapshot.view());
    params(policy, binding, &admission.subject.namespace, rows, view)
}

/// What came of one evaluation of a validating policy.
#[derive(Default)]
struct Decided {
    /// By the validation's place: reason and message.
    denied: Vec<(usize, (String, String))>,
    notes: Vec<(String, String)>,
    /// An annotation that could not be made.
    failed: Option<String>,
}

fn decide(policy: &Policy, input: &Input<'_>) -> Decided {
    let mut decided = Decided::default();
    match policy.conditions.matches(input) {
        Ok(true) => {}
        Ok(false) => return decided,
        Err(errors) => {
            if !policy.ignore {
                decided.denied.push((0, (String::new(), crate::authz::aggregate(&errors))));
            }
            return decided;
        }
    }
    let evaluation = Evaluation::new(*input, &policy.variables);
    for (at, validation) in policy.validations.iter().enumerate() {
        match evaluation.evaluate(&validation.expression) {
            Ok(value) if value.is_true() => {}
            Ok(_) => {
                let reason = if validation.reason.is_empty() { "Invalid" } else { &validation.reason };
                decided.denied.push((at, (reason.to_owned(), message(validation, &evaluation))));
            }
            Err(error) => {
                let spent = error == OUT_OF_BUDGET;
                if !policy.ignore {
                    decided.denied.push((at, (String::new(), error)));
                }
                if spent {
                    return decided;
                }
            }
        }
    }
    for (key, expression) in &policy.annotations {
        match evaluation.evaluate(expression).map(|value| value.as_text().map(|text| text.trim().to_owned())) {
            Ok(Some(text)) if !text.is_empty() => decided.notes.push((key.clone(), cut(text, MAX_ANNOTATION))),
            Ok(_) => {}
            Err(_) if policy.ignore => {}
            Err(error) => decided.failed = decided.failed.or(Some(error)),
        }
    }
    decided
}

fn cut(mut text: String, most: usize) -> String {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    text.truncate(end);
    text
}

/// What a validation that does not hold says.
fn message<'a>(validation: &'a Validation, evaluation: &Evaluation<'a>) -> String {
    let made = validation.message_expression.as_ref().and_then(|expression| evaluation.evaluate(expression).ok());
    let made = made.and_then(|value| value.as_text().map(|text| text.trim().to_owned()));
    let fits = |text: &String| !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n');
    made.filter(fits).unwrap_or_else(|| match validation.message.trim() {
        "" => format!("failed expression: {}", validation.expression.text.trim()),
        message => message.to_owned(),
    })
}

fn refusal(kind: &str, policy: &str, denial: Denial, admission: &Admission, object: &Document) -> Box<Status> {
    let Denial { binding, reason, message } = denial;
    let message = match binding {
        Some(binding) => format!("{kind} '{policy}' with binding '{binding}' denied request: {message}"),
        None => format!("{kind} '{policy}' denied request: {message}"),
    };
    let names = [admission.subject.name.as_str(), object.name(), object.str_at("/metadata/generateName")];
    let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or("Unknown");
    let mut status = Status::forbidden(&admission.subject.resource(), name, &message);
    status.reason = if reason.is_empty() { "Invalid".into() } else { reason };
    status.code = match status.reason.as_str() {
        "Forbidden" => 403,
        "Unauthorized" => 401,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    status.details.get_or_insert_default().causes.push(Cause { message, ..Cause::default() });
    status
}

/// Lets mutating policies change the object, one after the other.
pub(super) fn mutate(
    machine: &mut Machine<'_>,
    admission: &Admission,
    object: &mut Document,
    old: Option<&Document>,
) -> Stepped<()> {
    let Some(known) = known(machine, admission).filter(|_| matches!(admission.verb, "create" | "update")) else {
        return Ok(());
    };
    for policy in &known.policies.mutating {
        let denied = mutate_by(machine, admission, known, policy, object, old)?;
        if let Some(denial) = denied.filter(|_| !policy.ignore) {
            return Err(refusal("MutatingAdmissionPolicy", &policy.name, denial, admission, object).into());
        }
    }
    Ok(())
}

fn mutate_by(
    machine: &Machine<'_>,
    admission: &Admission,
    known: super::Policies<'_>,
    policy: &Policy,
    object: &mut Document,
    old: Option<&Document>,
) -> Stepped<Option<Denial>> {
    let objects = [Some(&*object), old];
    let invocation = match concerned(machine, admission, &policy.matching, objects) {
        Ok(Some(invocation)) => invocation,
        Ok(None) => return Ok(None),
        Err(why) => return Ok(Some(Denial::broken(None, &why))),
    };
    for binding in &policy.bindings {
        let found = match bound(machine, admission, policy, binding, [Some(&*object), old]) {
            Ok(found) => found,
            Err(why) => return Ok(Some(Denial::broken(Some(binding), &why))),
        };
        let denial = |message: String| Denial { binding: Some(binding.name.clone()), reason: String::new(), message };
        for params in &found {
            let objects = [Some(&*object), old];
            let subject = subject(machine, admission, known, invocation.clone(), objects);
            match policy.conditions.matches(&subject.input(params.as_ref())) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(errors) => return Ok(Some(denial(crate::authz::aggregate(&errors)))),
            }
            let mut changed = subject;
            for mutation in &policy.mutations {
                if let Err(why) = one(admission, policy, mutation, &mut changed, params.as_ref()) {
                    return Ok(Some(denial(why)));
                }
            }
            if let Some(shown) = changed.object {
                *object = super::webhooks::stored(admission, &changed.invocation, shown).map_err(Status::internal)?;
            }
        }
    }
    Ok(None)
}

/// One mutation of the object in the form that the policy sees.
fn one(
    admission: &Admission,
    policy: &Policy,
    mutation: &Mutation,
    subject: &mut Subject<'_>,
    params: Option<&Document>,
) -> Result<(), String> {
    let value = {
        let evaluation = Evaluation::new(subject.input(params), &policy.variables);
        evaluation.evaluate(&mutation.expression)?.to_json()?
    };
    let Some(object) = subject.object.as_ref() else { return Ok(()) };
    let patched = if mutation.json_patch {
        let Value::Array(operations) = value else {
            return Err("type mismatch: JSONPatchType.expression should evaluate to array".into());
        };
        api::patch::json(object, &Value::Array(operations))
            .map_err(|status| format!("JSON Patch: {}", status.message))?
    } else {
        let own = subject.invocation.shown_in().map(|(_, version)| &version.schema);
        let Some(schema) = own.or(admission.schema.as_ref()) else { return Err("no schema for the object".into()) };
        let mut config = Document::new(value).ok_or("type mismatch: ApplyConfiguration must be an object")?;
        config.set("/apiVersion", object.api_version());
        config.set("/kind", object.kind());
        api::apply::merge_object(schema, object, &config).map_err(|why| format!("error applying patch: {why}"))?
    };
    subject.object = Some(patched);
    Ok(())
}
