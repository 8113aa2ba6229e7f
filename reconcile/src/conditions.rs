//! Lists of conditions: one entry a type, the transition time moves only with the status.

use api::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// A condition of some kind's status.
pub trait Condition: Clone {
    /// Its type.
    fn type_(&self) -> &str;
    /// `True`, `False` or `Unknown`.
    fn status(&self) -> &str;
    /// Its reason, empty where there is none.
    fn reason(&self) -> &str;
    /// When the status last changed.
    fn since(&self) -> Option<&Time>;
    /// Sets when the status last changed.
    fn set_since(&mut self, since: Option<Time>);
}

/// A string that some kinds require and others do not.
trait Text {
    fn text(&self) -> &str;
}

impl Text for String {
    fn text(&self) -> &str {
        self
    }
}

impl Text for Option<String> {
    fn text(&self) -> &str {
        self.as_deref().unwrap_or_default()
    }
}

macro_rules! conditions {
    ($($t:ty),* $(,)?) => {$(
        impl Condition for $t {
            fn type_(&self) -> &str { self.type_.text() }
            fn status(&self) -> &str { self.status.text() }
            fn reason(&self) -> &str { self.reason.text() }
            fn since(&self) -> Option<&Time> { self.last_transition_time.as_ref() }
            fn set_since(&mut self, since: Option<Time>) { self.last_transition_time = since; }
        }
    )*};
}

conditions!(
    k8s_openapi::api::apps::v1::DeploymentCondition,
    k8s_openapi::api::apps::v1::ReplicaSetCondition,
    k8s_openapi::api::apps::v1::StatefulSetCondition,
    k8s_openapi::api::apps::v1::DaemonSetCondition,
    k8s_openapi::api::batch::v1::JobCondition,
    k8s_openapi::api::core::v1::NamespaceCondition,
    k8s_openapi::api::core::v1::NodeCondition,
    k8s_openapi::api::core::v1::PodCondition,
);

/// The condition of a type.
pub fn find<'a, C: Condition>(list: Option<&'a Vec<C>>, type_: &str) -> Option<&'a C> {
    list?.iter().find(|c| c.type_() == type_)
}

/// Whether the condition of a type is `True`.
pub fn is_true<C: Condition>(list: Option<&Vec<C>>, type_: &str) -> bool {
    find(list, type_).is_some_and(|c| c.status() == "True")
}

/// Puts a condition in, as apps controllers do: the same status and reason leave the list alone; the same status
/// keeps its transition time; a replaced condition moves to the end.
pub fn set<C: Condition>(list: &mut Vec<C>, mut new: C) {
    let old = list.iter().find(|c| c.type_() == new.type_());
    if old.is_some_and(|c| c.status() == new.status() && c.reason() == new.reason()) {
        return;
    }
    if let Some(old) = old.filter(|c| c.status() == new.status()) {
        new.set_since(old.since().cloned());
    }
    remove(list, new.type_());
    list.push(new);
}

/// Takes the condition of a type out.
pub fn remove<C: Condition>(list: &mut Vec<C>, type_: &str) {
    list.retain(|c| c.type_() != type_);
}

/// A time as Kubernetes writes it: whole seconds.
pub fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}
