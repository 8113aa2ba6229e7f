//! Admission policies as a part of the write machine
//! (`k8s.io/apiserver/pkg/admission/plugin/policy/{generic,validating}`).

use std::collections::BTreeMap;

use api::cel::admission::Input;
use api::cel::policy::{Evaluation, OUT_OF_BUDGET};
use api::status::Cause;
use api::{Document, GroupResource, ObjectName, Status};
use serde_json::{Value, json};

mod mutate;

use super::admit::Admission;
use super::machine::{Machine, Stepped};
use crate::hooks::{self, Authority, Invocation, Objects};
use crate::policies::{Binding, Policy, Validation, params};
pub(super) use mutate::mutate;

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
    namespace: Option<Document>,
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
    (!none && machine.may_be_refused(admission)).then_some(known)
}

fn subject<'a>(
    machine: &Machine<'a>,
    admission: &Admission,
    known: super::Policies<'a>,
    invocation: Invocation,
    objects: [Option<&Document>; 2],
) -> Stepped<Result<Subject<'a>, String>> {
    let Admission { subject, options, .. } = admission;
    let [object, old] = match machine.shown_to(&invocation, objects)? {
        Ok(shown) => shown,
        Err(why) => return Ok(Err(format!("failed to convert object version: {why}"))),
    };
    let (user, view) = (machine.request.user(), machine.snapshot.view());
    let dry = machine.request.dry_run();
    let review = hooks::review("v1", subject, &invocation, Objects::default(), user, options, dry);
    let is_namespace = subject.row.group.is_empty() && subject.row.plural == "namespaces";
    let in_one = !subject.namespace.is_empty() && !is_namespace;
    let name = ObjectName { namespace: String::new(), name: subject.namespace.clone() };
    let namespace = in_one.then(|| view.get(&GroupResource::new("", "namespaces"), &name)).flatten();
    let authority = Authority { user, authorizers: known.authorizers, view };
    let request = review.get("request").cloned().unwrap_or_default();
    Ok(Ok(Subject { invocation, request, object, old, namespace, authority }))
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
        let mut subject: Option<Subject<'_>> = None;
        let mut notes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for binding in &policy.bindings {
            let mut found = bound(machine, admission, policy, binding, objects)?;
            if let (None, Ok([_, ..])) = (&subject, found.as_deref()) {
                match self::subject(machine, admission, known, invocation.clone(), objects)? {
                    Ok(made) => subject = Some(made),
                    Err(why) => found = Err(why),
                }
            }
            let found = match found {
                Ok(found) => found,
                Err(why) => {
                    note(&mut denied, policy, (!policy.ignore).then(|| Denial::broken(Some(binding), &why)));
                    continue;
                }
            };
            for (params, subject) in found.iter().zip(subject.iter().cycle()) {
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
) -> Stepped<Result<Vec<Option<Document>>, String>> {
    let (rows, view) = (machine.snapshot.webhooks().rows, machine.snapshot.view());
    let found = match is_bound(machine, admission, binding, objects) {
        Ok(true) => params(policy, binding, &admission.subject.namespace, rows, view),
        Ok(false) => return Ok(Ok(Vec::new())),
        Err(why) => Err(why),
    };
    let params = match found {
        Ok(Some(params)) => params,
        Ok(None) => return Ok(Ok(vec![None])),
        Err(why) => return Ok(Err(why)),
    };
    let shown = |stored: &Document| machine.converted(params.row, params.version, stored.clone());
    let shown: Vec<Result<Document, String>> = params.stored.iter().map(shown).collect::<Stepped<_>>()?;
    Ok(shown.into_iter().map(|document| document.map(Some)).collect())
}

/// Whether a binding concerns the request. One without rules narrows by its selectors alone.
fn is_bound(
    machine: &Machine<'_>,
    admission: &Admission,
    binding: &Binding,
    objects: [Option<&Document>; 2],
) -> Result<bool, String> {
    match &binding.matching {
        None => Ok(true),
        Some(matching) if matching.rules.is_empty() => {
            let selected = hooks::selected(matching, &admission.subject, objects, machine.snapshot.view());
            selected.map_err(|status| status.message.clone())
        }
        Some(matching) => Ok(concerned(machine, admission, matching, objects)?.is_some()),
    }
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
