//! What stands behind a Service.

use expect_test::{Expect, expect};

use crate::endpointslice::EndpointSlices;
use crate::model::script::run;

fn check(script: &str, expect: Expect) {
    expect.assert_eq(&run(vec![Box::new(EndpointSlices)], script));
}

const SERVICE: &str = "apply Service ns/web {spec: {clusterIP: 10.0.0.1, ipFamilies: [IPv4], selector: {app: web}, ports: [{port: 80, targetPort: http}]}}\n";
const POD: &str = "apply Pod ns/p1 {metadata: {labels: {app: web}}, spec: {nodeName: n1, containers: [{name: c, image: x, ports: [{name: http, containerPort: 8080}]}]}}\n";

#[test]
fn a_pod_comes_goes_unready_and_terminates() {
    let ip = "podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}]";
    let script = format!(
        "{SERVICE}get EndpointSlice
         {POD}status pods ns/p1 {{{ip}, phase: Running}}
         get EndpointSlice
         status pods ns/p1 {{conditions: [{{type: Ready, status: 'True'}}]}}
         get EndpointSlice
         again
         delete Pod ns/p1
         trace terminating\":true
         kubelet
         get EndpointSlice
         trace delete"
    );
    check(
        &script,
        expect![[r#"
        web-2 [] [web]
        --
        web-4 [[10.1.0.1]:ready=false] [web]
        --
        web-4 [[10.1.0.1]:ready=true] [web]
        --
        endpointslice-controller: patch endpointslices.discovery.k8s.io ns/web-4 {"endpoints":[{"addresses":["10.1.0.1"],"conditions":{"ready":false,"serving":true,"terminating":true},"nodeName":"n1","targetRef":{"kind":"Pod","name":"p1","namespace":"ns","uid":"uid-3"}}],"metadata":{}}
        --
        web-5 [] [web]
        --
        endpointslice-controller: delete endpointslices.discovery.k8s.io ns/web-4 Background
        --
    "#]],
    );
}

#[test]
fn a_hundred_endpoints_fill_a_slice() {
    let pods: String = (0..101)
        .map(|i| {
            let pod = POD.replace("p1", &format!("p{i:03}"));
            format!("{pod}status pods ns/p{i:03} {{podIP: 10.1.1.{i}, podIPs: [{{ip: 10.1.1.{i}}}], phase: Running}}\n")
        })
        .collect();
    let script = format!("{SERVICE}{pods}trace create\ndelete Pod ns/p050\nkubelet\nagain\ntrace delete");
    check(
        &script,
        expect![[r#"
        endpointslice-controller: create endpointslices.discovery.k8s.io ns/web-*
        endpointslice-controller: create endpointslices.discovery.k8s.io ns/web-*
        endpointslice-controller: create endpointslices.discovery.k8s.io ns/web-*
        --
        --
    "#]],
    );
}
