//! Descriptions of what all kinds share: what `kubectl explain` says of it.

/// By the type's Go name (empty: every type) and the field's name.
const WORDS: &[(&str, &str, &str)] = &[
    ("", "apiVersion", "APIVersion defines the group and the version that this object is written in."),
    ("", "kind", "Kind is the name of what this object is, as its group and version define it."),
    ("", "metadata", "Standard object's metadata: what every object has besides what its kind is about."),
    ("", "spec", "What is wanted."),
    ("", "status", "What is the case, as it was last seen. The system writes it."),
    ("", "items", "The objects of the list."),
    ("ObjectMeta", "annotations", "Texts by name that tools keep with the object. Nothing is selected by them."),
    (
        "ObjectMeta",
        "creationTimestamp",
        "CreationTimestamp is a timestamp of the server's clock when it made the object. Read-only.",
    ),
    (
        "ObjectMeta",
        "deletionGracePeriodSeconds",
        "How long the object may take to end, once it is being deleted. Read-only.",
    ),
    (
        "ObjectMeta",
        "deletionTimestamp",
        "When the object is to be gone. It is set by a deletion and then stays. Read-only.",
    ),
    ("ObjectMeta", "finalizers", "Who must be done with the object before it can go: each takes its own entry out."),
    ("ObjectMeta", "generateName", "What the name begins with, where none is given: the server appends five letters."),
    ("ObjectMeta", "generation", "Counts the changes of what is wanted. Read-only."),
    ("ObjectMeta", "labels", "Names and values that objects are selected by."),
    ("ObjectMeta", "managedFields", "Who set which fields, for server-side apply."),
    ("ObjectMeta", "name", "The name, unique within the namespace and kind. It never changes."),
    ("ObjectMeta", "namespace", "The namespace that the name is unique in; empty for kinds of the whole cluster."),
    ("ObjectMeta", "ownerReferences", "The objects that this one is there for: without any of them it is collected."),
    (
        "ObjectMeta",
        "resourceVersion",
        "Names this state of the object: a write that gives it fails where there is a newer one.",
    ),
    ("ObjectMeta", "uid", "Tells the object from all others that ever had its name. Read-only."),
    ("ListMeta", "continue", "What gets the next page of the list."),
    ("ListMeta", "remainingItemCount", "How many objects follow this page, where that is known."),
    ("ListMeta", "resourceVersion", "Names the state that the list shows: a watch goes on from it."),
];

/// What is to be said of a field.
pub(super) fn of(go_name: &str, field: &str) -> Option<&'static str> {
    let find =
        |of: &str| WORDS.iter().find(|(name, named, _)| (*name, *named) == (of, field)).map(|(_, _, text)| *text);
    find(go_name).or_else(|| find(""))
}
