//! Other resources for a container that runs.

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use node_plan::admit;
use node_plan::limits;
use node_plan::member::member;
use node_plan::step::ResizeFailure;

use super::Performer;
use crate::{blocking, chain, node};

/// Gives a run these resources, if the node has them beside what the other pods ask for.
pub(super) async fn run(
    p: &Performer,
    pod: &Pod,
    container: &str,
    run: &str,
    resources: &ResourceRequirements,
) -> Result<(), ResizeFailure> {
    let others: Vec<Pod> = p.agent.pods.borrow().values().map(|p| Pod::clone(p)).collect();
    let node = p.agent.object.read().clone().unwrap_or_else(|| node::object(&p.agent));
    if let Some((reason, message)) = admit::resize(pod, &others, &node) {
        return Err(ResizeFailure { reason, message });
    }
    let failed = |message: String| ResizeFailure { reason: "Error", message };
    let member = member(pod, container).ok_or_else(|| failed("no such container".into()))?;
    let mut container = member.container.into_owned();
    container.resources = Some(resources.clone());
    let (own, whole) = (limits::of_container(&container), limits::of_pod(pod));
    let (shim, run) = (p.shim().map_err(failed)?, run.to_owned());
    let changed = blocking(move || {
        // A container does not get more than its pod has: less is taken from the inside out, more is given the other way.
        if shim.update(Some(&run), &own).is_err() {
            shim.update(None, &whole).and_then(|()| shim.update(Some(&run), &own)).map_err(|e| chain(&e))?;
        }
        shim.update(None, &whole).map_err(|e| chain(&e))
    });
    changed.await.map_err(failed)
}
