//! What an object is: the schema table, the document, kinds and their rules, selectors, quantities, patches, Status.
//!
//! Pure: no async, clock, randomness, environment or I/O. Time and entropy come in as arguments.

pub mod document;
pub mod field;
pub mod kinds;
pub mod name;
pub mod status;

pub use document::Document;
pub use name::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, ObjectName};
pub use status::{Status, StatusResult};

pub use jiff::Timestamp;
pub use k8s_openapi;
