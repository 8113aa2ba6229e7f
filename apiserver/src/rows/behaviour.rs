//! What the API server does differently for a few resources, as data: `(group, plural)` -> behaviour.

/// How a resource differs from the plain one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Behaviour {
    /// A delete answers with the object instead of a Status (upstream's `ReturnDeletedObject`).
    pub returns_deleted: bool,
    /// Objects are given time to end (pods).
    pub graceful: bool,
    /// `spec.finalizers` must be empty before an object goes (namespaces).
    pub spec_finalizers: bool,
    /// Objects hold cluster addresses and node ports (services).
    pub allocates: bool,
    /// A delete first removes the objects it defines: the finalizer that stands for that.
    pub cleans_up: bool,
    /// Objects carry who made them in `spec` (certificate signing requests).
    pub records_user: bool,
    /// A delete that says nothing about dependents leaves them alone, and warns with this text, if any (jobs).
    pub orphans: Option<&'static str>,
    /// Objects end by themselves after the configured time (events).
    pub expires: bool,
}

const PLAIN: Behaviour = Behaviour {
    returns_deleted: false,
    graceful: false,
    spec_finalizers: false,
    allocates: false,
    expires: false,
    cleans_up: false,
    records_user: false,
    orphans: None,
};

const JOBS: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove \
                    them or set propagationPolicy=Orphan to suppress this warning";

const RETURNS: Behaviour = Behaviour { returns_deleted: true, ..PLAIN };

const TABLE: &[(&str, &str, Behaviour)] = &[
    ("", "events", Behaviour { expires: true, ..PLAIN }),
    ("", "namespaces", Behaviour { returns_deleted: true, spec_finalizers: true, ..PLAIN }),
    ("", "persistentvolumeclaims", RETURNS),
    ("", "persistentvolumes", RETURNS),
    ("", "pods", Behaviour { returns_deleted: true, graceful: true, ..PLAIN }),
    ("", "podtemplates", RETURNS),
    ("", "replicationcontrollers", Behaviour { orphans: Some(""), ..PLAIN }),
    ("", "resourcequotas", RETURNS),
    ("", "serviceaccounts", RETURNS),
    ("", "services", Behaviour { returns_deleted: true, allocates: true, ..PLAIN }),
    ("apiextensions.k8s.io", "customresourcedefinitions", Behaviour { cleans_up: true, ..PLAIN }),
    ("batch", "jobs", Behaviour { orphans: Some(JOBS), ..PLAIN }),
    ("certificates.k8s.io", "certificatesigningrequests", Behaviour { records_user: true, ..PLAIN }),
    ("events.k8s.io", "events", Behaviour { expires: true, ..PLAIN }),
    ("resource.k8s.io", "deviceclasses", RETURNS),
    ("resource.k8s.io", "devicetaintrules", RETURNS),
    ("resource.k8s.io", "resourceclaims", RETURNS),
    ("resource.k8s.io", "resourceclaimtemplates", RETURNS),
    ("resource.k8s.io", "resourceslices", RETURNS),
    ("storage.k8s.io", "csidrivers", RETURNS),
    ("storage.k8s.io", "csinodes", RETURNS),
    ("storage.k8s.io", "storageclasses", RETURNS),
    ("storage.k8s.io", "volumeattachments", RETURNS),
    ("storage.k8s.io", "volumeattributesclasses", RETURNS),
];

/// The behaviour of a built-in resource.
pub(crate) fn behaviour(group: &str, plural: &str) -> Behaviour {
    TABLE.iter().find(|(g, p, _)| (*g, *p) == (group, plural)).map_or(PLAIN, |(_, _, behaviour)| *behaviour)
}
