//! One pod on every node.

use expect_test::{Expect, expect};

use crate::daemonset::DaemonSets;
use crate::model::script::run;

fn check(script: &str, expect: Expect) {
    expect.assert_eq(&run(vec![Box::new(DaemonSets)], script));
}

fn set(image: &str) -> String {
    format!(
        "apply DaemonSet ns/ds {{spec: {{selector: {{matchLabels: {{a: x}}}}, template: {{metadata: {{labels: {{a: x}}}}, spec: {{containers: [{{name: c, image: {image}}}]}}}}}}}}\n"
    )
}

#[test]
fn nodes_come_are_tainted_and_the_template_rolls_one_node_at_a_time() {
    let script = format!(
        "node n1
         node n2
         {}until-quiet
         again
         trace create
         node n3
         until-quiet
         trace create
         apply Node n3 {{spec: {{taints: [{{key: k, effect: NoExecute}}]}}}}
         trace delete
         until-quiet
         {}trace daemonset pods
         until-quiet
         trace pods
         again
         get ControllerRevision
         {}until-quiet
         trace controllerrevisions
         again",
        set("a"),
        set("b"),
        set("a"),
    );
    check(
        &script,
        expect![[r#"
            daemonset-controller: create controllerrevisions.apps ns/ds-66496dd7b7
            daemonset-controller: create pods ns/ds-*
            daemonset-controller: create pods ns/ds-*
            --
            daemonset-controller: create pods ns/ds-*
            --
            daemonset-controller: delete pods ns/ds-8 Background
            --
            daemonset-controller: delete pods ns/ds-5 Background
            --
            daemonset-controller: create pods ns/ds-*
            daemonset-controller: delete pods ns/ds-6 Background
            daemonset-controller: create pods ns/ds-*
            --
            ds-5fb444897d [ds]
            ds-66496dd7b7 [ds]
            --
            daemonset-controller: patch controllerrevisions.apps ns/ds-66496dd7b7 {"revision":3}
            --
        "#]],
    );
}
