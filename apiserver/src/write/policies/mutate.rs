//! Policies that change objects (`plugin/policy/mutating/dispatcher.go`).

use api::cel::policy::Evaluation;
use api::{Document, Status};
use serde_json::Value;

use super::{Denial, Subject, bound, concerned, known, refusal, subject};
use crate::policies::{Binding, Mutation, Policy};
use crate::write::Policies;
use crate::write::admit::Admission;
use crate::write::machine::{Machine, Stepped};
use crate::write::round::Round;

/// Lets mutating policies change the object, one after the other.
pub(crate) fn mutate(
    machine: &mut Machine<'_>,
    admission: &Admission,
    object: &mut Document,
    old: Option<&Document>,
    round: &mut Round<Invoked>,
) -> Stepped<()> {
    let Some(known) = known(machine, admission).filter(|_| matches!(admission.verb, "create" | "update")) else {
        return Ok(());
    };
    for policy in &known.policies.mutating {
        let denied = mutate_by(machine, admission, known, policy, object, old, round)?;
        if let Some(denial) = denied.filter(|_| !policy.ignore) {
            return Err(refusal("MutatingAdmissionPolicy", &policy.name, denial, admission, object).into());
        }
    }
    // Upstream takes the object for changed as soon as any mutation was evaluated.
    if std::mem::take(&mut round.asked_any) {
        round.note_change();
    }
    round.end(object);
    Ok(())
}

/// A policy with one of its bindings and the parameters it was evaluated with.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Invoked {
    policy: String,
    binding: String,
    params: Option<(String, String)>,
}

impl Invoked {
    fn of(policy: &Policy, binding: &Binding, params: Option<&Document>) -> Self {
        let params = params.map(|params| (params.namespace().to_owned(), params.name().to_owned()));
        Self { policy: policy.name.clone(), binding: binding.name.clone(), params }
    }
}

fn mutate_by(
    machine: &Machine<'_>,
    admission: &Admission,
    known: Policies<'_>,
    policy: &Policy,
    object: &mut Document,
    old: Option<&Document>,
    round: &mut Round<Invoked>,
) -> Stepped<Option<Denial>> {
    let objects = [Some(&*object), old];
    let invocation = match concerned(machine, admission, &policy.matching, objects) {
        Ok(Some(invocation)) => invocation,
        Ok(None) => return Ok(None),
        Err(why) => return Ok(Some(Denial::broken(None, &why))),
    };
    for binding in &policy.bindings {
        let found = match bound(machine, admission, policy, binding, [Some(&*object), old])? {
            Ok(found) => found,
            Err(why) => return Ok(Some(Denial::broken(Some(binding), &why))),
        };
        let denial = |message: String| Denial { binding: Some(binding.name.clone()), reason: String::new(), message };
        for params in &found {
            let objects = [Some(&*object), old];
            let subject = match subject(machine, admission, known, invocation.clone(), objects)? {
                Ok(subject) => subject,
                Err(why) => return Ok(Some(Denial::broken(None, &why))),
            };
            match policy.conditions.matches(&subject.input(params.as_ref())) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(errors) => return Ok(Some(denial(crate::authz::aggregate(&errors)))),
            }
            let invoked = Invoked::of(policy, binding, params.as_ref());
            if round.skips(&invoked) {
                continue;
            }
            let mut changed = subject;
            let before = changed.object.clone();
            for mutation in &policy.mutations {
                if let Err(why) = one(admission, policy, mutation, &mut changed, params.as_ref()) {
                    return Ok(Some(denial(why)));
                }
            }
            round.note(invoked, changed.object != before, policy.again);
            if let Some(shown) = changed.object {
                let taken = machine.taken_from(admission, &changed.invocation, shown)?;
                *object = taken.map_err(Status::internal)?;
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
