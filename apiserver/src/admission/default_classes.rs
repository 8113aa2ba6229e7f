//! DefaultStorageClass and DefaultIngressClass: the class that says it is the default, the newest of several.

use api::{Document, GroupResource, StatusResult};
use serde_json::Value;

use super::{Context, Plugin};

pub(super) struct DefaultStorageClass;
pub(super) struct DefaultIngressClass;

impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn mutate(&self, claim: &mut Document, context: &Context<'_>) -> StatusResult<()> {
        let asks = claim.at("/spec/storageClassName").is_some_and(|name| !name.is_null())
            || claim.annotation("volume.beta.kubernetes.io/storage-class").is_some();
        if context.verb() != "create" || !context.is("", "persistentvolumeclaims") || asks {
            return Ok(());
        }
        let marks = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
        if let Some(name) = default(context, "storage.k8s.io", "storageclasses", &marks) {
            claim.set("/spec/storageClassName", name);
        }
        Ok(())
    }
}

impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn mutate(&self, ingress: &mut Document, context: &Context<'_>) -> StatusResult<()> {
        let asks = ingress.at("/spec/ingressClassName").is_some_and(|name| !name.is_null())
            || ingress.annotation("kubernetes.io/ingress.class").is_some();
        if context.verb() != "create" || !context.is("networking.k8s.io", "ingresses") || asks {
            return Ok(());
        }
        let marks = ["ingressclass.kubernetes.io/is-default-class"];
        if let Some(name) = default(context, "networking.k8s.io", "ingressclasses", &marks) {
            ingress.set("/spec/ingressClassName", name);
        }
        Ok(())
    }
}

fn default(context: &Context<'_>, group: &str, resource: &str, marks: &[&str]) -> Option<Value> {
    let all = context.view.list(&GroupResource::new(group, resource), None);
    let marked = |class: &&Document| marks.iter().any(|mark| class.annotation(mark) == Some("true"));
    let newest = all.iter().filter(marked).min_by(|a, b| {
        let made = |class: &Document| class.str_at("/metadata/creationTimestamp").to_owned();
        made(b).cmp(&made(a)).then_with(|| a.name().cmp(b.name()))
    });
    newest.map(|class| class.name().into())
}
