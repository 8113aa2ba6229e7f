//! What the pure stages may look at: the current objects, as the caches hold them.

use api::{Document, GroupResource, ObjectName};

/// A consistent-enough look at all objects. A stage that needs the store's own truth asks for it instead (`Ask::Read`).
pub trait View: Send + Sync {
    /// One object, in its storage version.
    fn get(&self, resource: &GroupResource, name: &ObjectName) -> Option<Document>;

    /// All objects of a resource, or those of one namespace.
    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Document>;

    /// The objects of a resource (of one namespace) whose selectable `field`, `spec.nodeName` say, is `value`.
    fn list_by(&self, resource: &GroupResource, namespace: Option<&str>, field: &str, value: &str) -> Vec<Document> {
        let pointer = format!("/{}", field.replace('.', "/"));
        self.list(resource, namespace).into_iter().filter(|object| object.str_at(&pointer) == value).collect()
    }

    /// Changes whenever an object of the resource does: lets callers keep what they derived (RBAC's index).
    fn revision(&self, resource: &GroupResource) -> u64;
}
