//! Priority: from a class's name to a number.

use api::{Document, StatusResult};
use serde_json::Value;

use super::{Context, Plugin};

const GROUP: &str = "scheduling.k8s.io";

/// The classes that are always there.
const SYSTEM: &[&str] = &["system-node-critical", "system-cluster-critical"];

pub(super) struct Priority;

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn mutate(&self, pod: &mut Document, context: &Context<'_>) -> StatusResult<()> {
        match (context.verb(), context.old) {
            _ if !context.is("", "pods") => Ok(()),
            ("create", _) => create(pod, context),
            ("update", Some(old)) => {
                for pointer in ["/spec/priority", "/spec/preemptionPolicy"] {
                    if let Some(value) = old.at(pointer) {
                        pod.set_default(pointer, value.clone());
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn validate(&self, class: &Document, context: &Context<'_>) -> StatusResult<()> {
        let deleted = context.verb() == "delete" && context.is(GROUP, "priorityclasses");
        if deleted && SYSTEM.contains(&context.name()) {
            let resource = api::GroupResource::new(GROUP, "priorityclasses");
            let why = "this is a system priority class and cannot be deleted";
            return Err(api::Status::forbidden(&resource, context.name(), why));
        }
        let written = matches!(context.verb(), "create" | "update") && context.is(GROUP, "priorityclasses");
        if !written || !class.bool_at("/globalDefault") {
            return Ok(());
        }
        match default_class(context) {
            Some((name, _)) if name != class.name() => {
                let why = format!("PriorityClass {name} is already marked as default. Only one default can exist");
                Err(context.forbidden(class, why))
            }
            _ => Ok(()),
        }
    }
}

struct Level {
    value: i64,
    preemption: String,
}

fn level(class: &Document) -> Level {
    let preemption = class.str_at("/preemptionPolicy");
    let preemption = if preemption.is_empty() { "PreemptLowerPriority" } else { preemption };
    Level { value: class.i64_at("/value").unwrap_or_default(), preemption: preemption.into() }
}

/// The default class; the lowest where a race made several.
fn default_class(context: &Context<'_>) -> Option<(String, Level)> {
    let all = context.view.list(&api::GroupResource::new(GROUP, "priorityclasses"), None);
    let default = all.iter().filter(|class| class.bool_at("/globalDefault"));
    let lowest = default.min_by_key(|class| class.i64_at("/value").unwrap_or_default())?;
    Some((lowest.name().to_owned(), level(lowest)))
}

fn create(pod: &mut Document, context: &Context<'_>) -> StatusResult<()> {
    let named = pod.str_at("/spec/priorityClassName").to_owned();
    let (name, level) = if named.is_empty() {
        let none = || (String::new(), Level { value: 0, preemption: "PreemptLowerPriority".into() });
        default_class(context).unwrap_or_else(none)
    } else {
        let class = context.look_up(GROUP, "priorityclasses", "", &named);
        let class =
            class.ok_or_else(|| context.forbidden(pod, format!("no PriorityClass with name {named} was found")))?;
        (named, level(&class))
    };
    let Level { value, preemption } = level;
    if let Some(said) = pod.i64_at("/spec/priority").filter(|said| *said != value) {
        return Err(context.forbidden(pod, format!("the integer value of priority ({said}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name")));
    }
    let said = pod.at("/spec/preemptionPolicy").and_then(Value::as_str).unwrap_or(&preemption);
    if said != preemption {
        return Err(context.forbidden(pod, format!("the string value of PreemptionPolicy ({said}) must not be provided in pod spec; priority admission controller computed {preemption} from the given PriorityClass name")));
    }
    if !name.is_empty() {
        pod.set("/spec/priorityClassName", name);
    }
    pod.set("/spec/priority", value);
    pod.set("/spec/preemptionPolicy", preemption);
    Ok(())
}
