//! Webhooks as a part of the write machine: it asks, reads the answers, and applies patches
//! (`k8s.io/apiserver/pkg/admission/plugin/webhook/{mutating,validating}/dispatcher.go`).

use std::sync::Arc;

use api::cel::admission::Input;
use api::{Document, Status};
use serde_json::{Value, json};

use super::Ask;
use super::admit::Admission;
use super::machine::{Machine, Stepped, Stop};
use super::round::Round;
use crate::authz::aggregate;
use crate::hooks::{self, Authority, Call, Hook, Invocation, Objects, Response};

/// Why a webhook's answer is none that allows.
enum Failure {
    /// It could not be asked, or what it said is no answer: the failure policy decides.
    Calling(String),
    /// It refused, or the request is impossible.
    Refused(Box<Status>),
}

/// A webhook that is concerned, and how.
struct Concerned<'h> {
    hook: &'h Arc<Hook>,
    invocation: Invocation,
}

/// Asks the mutating webhooks one after the other, each about what the ones before it left.
pub(super) fn mutate(
    machine: &mut Machine<'_>,
    admission: &Admission,
    object: &mut Document,
    old: Option<&Document>,
    round: &mut Round<usize>,
) -> Stepped<()> {
    let Some(known) = known(machine, admission) else { return Ok(()) };
    for (index, hook) in known.hooks.mutating.iter().enumerate() {
        let Some(concerned) = concerned(machine, admission, hook, [admission.object(object), old])? else { continue };
        if round.skips(&index) {
            continue;
        }
        let outcome = ask_one(machine, admission, &concerned, object, old)?;
        let outcome = match outcome {
            Ok(response) => patch(machine, admission, &concerned, object, &response)?,
            Err(failure) => Err(failure),
        };
        let number = format!("round_{}_index_{index}", round.number());
        let changed = matches!(outcome, Ok(true));
        let note = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": changed});
        machine.annotate(format!("mutation.webhook.admission.k8s.io/{number}"), note.to_string());
        round.note(index, changed, hook.again);
        if let Err(failure) = outcome {
            let key = format!("failed-open.mutation.webhook.admission.k8s.io/{number}");
            decide(machine, hook, failure, key)?;
        }
    }
    round.end(object);
    Ok(())
}

/// Asks the validating webhooks all at once.
pub(super) fn validate(
    machine: &mut Machine<'_>,
    admission: &Admission,
    object: &Document,
    old: Option<&Document>,
) -> Stepped<()> {
    let Some(known) = known(machine, admission) else { return Ok(()) };
    let mut all = Vec::new();
    for hook in &known.hooks.validating {
        all.extend(concerned(machine, admission, hook, [admission.object(object), old])?);
    }
    let calls = all.iter().map(|concerned| call(machine, admission, concerned, object, old));
    let calls: Vec<Result<Call, Failure>> = calls.collect::<Stepped<_>>()?;
    let unasked = |call: &&Call| machine.snapshot.webhooks().reply(call).is_none();
    let missing: Vec<Call> = calls.iter().filter_map(|call| call.as_ref().ok()).filter(unasked).cloned().collect();
    if !missing.is_empty() {
        return Err(Stop::Ask(Ask::Webhooks(missing)));
    }
    let mut refused = None;
    for (index, (concerned, call)) in all.iter().zip(calls).enumerate() {
        let outcome = call.and_then(|call| answered(machine, &call, false));
        if let Err(failure) = outcome.and_then(|response| allowed(machine, concerned.hook, &response)) {
            let key = format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
            let decided = decide(machine, concerned.hook, failure, key);
            refused = refused.or(decided.err());
        }
    }
    refused.map_or(Ok(()), Err)
}

/// The webhooks there are, unless the request is none of their business.
fn known<'a>(machine: &Machine<'a>, admission: &Admission) -> Option<super::Webhooks<'a>> {
    let known = machine.snapshot.webhooks();
    let none = known.hooks.mutating.is_empty() && known.hooks.validating.is_empty();
    (!none && machine.may_be_refused(admission)).then_some(known)
}

fn concerned<'h>(
    machine: &Machine<'_>,
    admission: &Admission,
    hook: &'h Arc<Hook>,
    objects: [Option<&Document>; 2],
) -> Stepped<Option<Concerned<'h>>> {
    let rows = machine.snapshot.webhooks().rows;
    let view = machine.snapshot.view();
    let found = hooks::invocation(&hook.matching, &admission.subject, rows, objects, view)?;
    let Some(invocation) = found else { return Ok(None) };
    let concerned = Concerned { hook, invocation };
    let met = hook.conditions.is_empty() || conditions(machine, admission, &concerned, objects)?;
    Ok(met.then_some(concerned))
}

/// Whether the webhook's conditions are met; what cannot be evaluated is for the failure policy.
fn conditions(
    machine: &Machine<'_>,
    admission: &Admission,
    concerned: &Concerned<'_>,
    objects: [Option<&Document>; 2],
) -> Stepped<bool> {
    let Concerned { hook, invocation } = concerned;
    let [object, old] = machine.shown_to(invocation, objects)?.map_err(Status::internal)?;
    let review = review(machine, admission, concerned, "v1", Objects { object: object.as_ref(), old: old.as_ref() });
    let request = review.get("request").unwrap_or(&Value::Null);
    let known = machine.snapshot.webhooks();
    let view = machine.snapshot.view();
    let authority = Authority { user: machine.request.user(), authorizers: known.authorizers, view };
    let input = Input {
        object: object.as_ref().map(Document::value),
        old_object: old.as_ref().map(Document::value),
        request,
        namespace_object: None,
        params: None,
        authorizer: Some(&authority),
    };
    match hook.conditions.matches(&input) {
        Ok(met) => Ok(met),
        Err(_) if hook.ignore => Ok(false),
        Err(errors) => {
            let subject = &admission.subject;
            Err(Status::forbidden(&subject.resource(), &subject.name, &aggregate(&errors)).into())
        }
    }
}

fn review(
    machine: &Machine<'_>,
    admission: &Admission,
    concerned: &Concerned<'_>,
    version: &str,
    objects: Objects<'_>,
) -> Value {
    let Admission { subject, options, .. } = admission;
    let (user, dry) = (machine.request.user(), machine.request.dry_run());
    hooks::review(version, subject, &concerned.invocation, objects, user, options, dry)
}

/// The question, if it may be asked.
fn call(
    machine: &Machine<'_>,
    admission: &Admission,
    concerned: &Concerned<'_>,
    object: &Document,
    old: Option<&Document>,
) -> Stepped<Result<Call, Failure>> {
    let hook = concerned.hook;
    if machine.request.dry_run() && !hook.dry_run {
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        return Ok(Err(Failure::Refused(Status::bad_request(why))));
    }
    let why =
        "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)";
    let Some(version) = hook.review else { return Ok(Err(Failure::Calling(why.into()))) };
    let shown = machine.shown_to(&concerned.invocation, [admission.object(object), old])?;
    Ok(shown.map_err(|why| Failure::Refused(Status::internal(why))).map(|[object, old]| {
        let objects = Objects { object: object.as_ref(), old: old.as_ref() };
        Call { hook: Arc::clone(hook), review: review(machine, admission, concerned, version, objects) }
    }))
}

fn ask_one(
    machine: &mut Machine<'_>,
    admission: &Admission,
    concerned: &Concerned<'_>,
    object: &Document,
    old: Option<&Document>,
) -> Stepped<Result<Response, Failure>> {
    let call = match call(machine, admission, concerned, object, old)? {
        Ok(call) => call,
        Err(failure) => return Ok(Err(failure)),
    };
    if machine.snapshot.webhooks().reply(&call).is_none() {
        return Err(Stop::Ask(Ask::Webhooks(vec![call])));
    }
    let outcome = answered(machine, &call, true);
    Ok(outcome.and_then(|response| allowed(machine, concerned.hook, &response).map(|()| response)))
}

fn answered(machine: &Machine<'_>, call: &Call, mutating: bool) -> Result<Response, Failure> {
    let known = machine.snapshot.webhooks();
    let reply = known.reply(call).ok_or_else(|| Failure::Calling("it was not asked".into()))?;
    hooks::verify(reply, call.hook.review.unwrap_or_default(), mutating).map_err(Failure::Calling)
}

/// Takes over warnings and annotations; refuses where the webhook did.
fn allowed(machine: &mut Machine<'_>, hook: &Hook, response: &Response) -> Result<(), Failure> {
    for (key, value) in &response.annotations {
        machine.annotate(format!("{}/{key}", hook.name), value.clone());
    }
    machine.warnings.extend(response.warnings.iter().cloned());
    match response.allowed {
        true => Ok(()),
        false => Err(Failure::Refused(refusal(&hook.name, &response.result))),
    }
}

/// The Status that goes with a refusal (`ToStatusErr`).
fn refusal(name: &str, result: &Value) -> Box<Status> {
    let text = |key: &str| result.get(key).and_then(Value::as_str).unwrap_or_default();
    let begin = format!("admission webhook {name:?} denied the request");
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{begin} without explanation"),
        ("", reason) => format!("{begin}: {reason}"),
        (message, _) => format!("{begin}: {message}"),
    };
    let code = result.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    let code = code.filter(|code| (400..600).contains(code)).unwrap_or(400);
    let mut status = Status::failure(code, text("reason"), message);
    status.details = result.get("details").and_then(|details| serde_json::from_value(details.clone()).ok());
    status
}

/// What becomes of a failure: nothing where the policy is to ignore it.
fn decide(machine: &mut Machine<'_>, hook: &Hook, failure: Failure, key: String) -> Stepped<()> {
    match failure {
        Failure::Refused(status) => Err(status.into()),
        Failure::Calling(_) if hook.ignore => {
            machine.annotate(key, hook.name.clone());
            Ok(())
        }
        Failure::Calling(why) => Err(Status::internal(format!("failed calling webhook {:?}: {why}", hook.name)).into()),
    }
}

/// Applies a webhook's patch in the form it was shown, then prunes and defaults; whether anything changed.
fn patch(
    machine: &Machine<'_>,
    admission: &Admission,
    concerned: &Concerned<'_>,
    object: &mut Document,
    response: &Response,
) -> Stepped<Result<bool, Failure>> {
    if response.patch.is_empty() {
        return Ok(Ok(false));
    }
    let Concerned { hook, invocation } = concerned;
    let internal = |why: String| Failure::Refused(Status::internal(why));
    if !admission.has_object() {
        let name = &hook.name;
        let why = "attempted to modify the object, which is not supported for this operation";
        return Ok(Err(internal(format!("admission webhook {name:?} {why}"))));
    }
    let patched = machine.shown_to(invocation, [Some(&*object), None])?.and_then(|[shown, _]| {
        response.patch.iter().try_fold(shown.unwrap_or_default(), |patched, operation| {
            api::patch::json(&patched, &json!([operation])).map_err(|_| inapplicable(operation))
        })
    });
    let read = match patched {
        Ok(patched) => machine.taken_from(admission, invocation, patched)?,
        Err(why) => Err(why),
    };
    Ok(read.map_err(internal).map(|read| {
        let changed = read != *object;
        *object = read;
        changed
    }))
}

/// Why an operation does not apply, in the words of Go's library.
fn inapplicable(operation: &Value) -> String {
    let text = |key: &str| operation.get(key).and_then(Value::as_str).unwrap_or_default();
    let (op, path) = (text("op"), text("path"));
    match op {
        "test" => format!("testing value {path} failed: test failed"),
        "add" | "copy" | "move" => {
            format!("{op} operation does not apply: doc is missing path: {path:?}: missing value")
        }
        "remove" => format!("remove operation does not apply: doc is missing path: {path:?}: missing value"),
        "replace" => format!("replace operation does not apply: doc is missing path: {path}: missing value"),
        other => format!("Unexpected kind: {other}"),
    }
}
