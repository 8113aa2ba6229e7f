//! ReplicationController: what a ReplicaSet is, in the words of the core group (`pkg/controller/replication`).

use std::borrow::Cow;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    Pod, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use reconcile::selector::{self, Labels};
use reconcile::{Change, Controller, Decider, Effect, Key, Outcome, Timestamp, Watch, World};

use crate::podset;
use crate::replicaset::{self, Asks};

/// The ReplicationController controller.
pub struct ReplicationControllers;

impl Controller for ReplicationControllers {
    fn name(&self) -> &'static str {
        "replication-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of::<ReplicationController>(), Watch::of::<Pod>()]
    }

    fn touches(&self, change: &Change, world: &World) -> Vec<Key> {
        podset::touched::<ReplicationController>(change, world, Asks::selects)
    }
}

impl Decider for ReplicationControllers {
    type World = World;
    type Key = Key;
    type Effect = Effect;

    fn decide(&self, world: &World, key: &Key, now: Timestamp) -> Outcome<Effect> {
        replicaset::decide::<ReplicationController>(world, (self.name(), key), now)
    }
}

impl Asks for ReplicationController {
    const COUNTS_TERMINATING: bool = false;

    fn asked(&self) -> Cow<'_, ReplicaSet> {
        let spec = self.spec.clone().unwrap_or_default();
        Cow::Owned(ReplicaSet {
            metadata: self.metadata.clone(),
            spec: ReplicaSetSpec {
                min_ready_seconds: spec.min_ready_seconds,
                replicas: spec.replicas,
                selector: LabelSelector { match_labels: spec.selector, match_expressions: None },
                template: spec.template,
            },
            status: self.status.clone().map(status),
        })
    }

    fn selects(&self, labels: Option<&Labels>) -> bool {
        let wanted = self.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        wanted.is_some_and(|wanted| selector::contains(wanted, labels))
    }
}

fn status(status: ReplicationControllerStatus) -> ReplicaSetStatus {
    ReplicaSetStatus {
        available_replicas: status.available_replicas,
        conditions: status.conditions.map(|list| list.into_iter().map(condition).collect()),
        fully_labeled_replicas: status.fully_labeled_replicas,
        observed_generation: status.observed_generation,
        ready_replicas: status.ready_replicas,
        replicas: status.replicas,
        terminating_replicas: None,
    }
}

fn condition(condition: ReplicationControllerCondition) -> ReplicaSetCondition {
    ReplicaSetCondition {
        last_transition_time: condition.last_transition_time,
        message: condition.message,
        reason: condition.reason,
        status: Some(condition.status),
        type_: Some(condition.type_),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::ReplicationControllers;
    use crate::model::script::run;

    #[test]
    fn pods_come_go_and_are_adopted_as_those_of_a_replica_set() {
        let spec = |replicas: u8| {
            let template = "{metadata: {labels: {a: x}}, spec: {containers: [{name: c, image: i}]}}";
            format!(
                "apply ReplicationController ns/rc {{spec: {{replicas: {replicas}, selector: {{a: x}}, template: {template}}}}}\n"
            )
        };
        let script = "apply Pod ns/orphan {metadata: {labels: {a: x}}, spec: {containers: [{name: c, image: i}]}}\n"
            .to_owned()
            + &spec(2)
            + "trace\nuntil-quiet\ntrace\n"
            + &spec(1)
            + "trace\nuntil-quiet\ntrace\nagain";
        let expected = expect![[r#"
            replication-controller: patch pods ns/orphan {"metadata":{"ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicationController","name":"rc","uid":"uid-2"}]}}
            replication-controller: create pods ns/rc-*
            replication-controller: patch replicationcontrollers/status ns/rc {"metadata":{},"status":{"fullyLabeledReplicas":1,"observedGeneration":1,"replicas":1}}
            replication-controller: patch replicationcontrollers/status ns/rc {"metadata":{},"status":{"fullyLabeledReplicas":2,"replicas":2}}
            --
            replication-controller: patch replicationcontrollers/status ns/rc {"metadata":{},"status":{"availableReplicas":2,"readyReplicas":2}}
            --
            replication-controller: delete pods ns/orphan Background
            replication-controller: patch replicationcontrollers/status ns/rc {"metadata":{},"status":{"observedGeneration":2}}
            replication-controller: patch replicationcontrollers/status ns/rc {"metadata":{},"status":{"availableReplicas":1,"fullyLabeledReplicas":1,"readyReplicas":1,"replicas":1}}
            --
            --
        "#]];
        expected.assert_eq(&run(vec![Box::new(ReplicationControllers)], &script));
    }
}
