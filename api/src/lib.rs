//! What an object is: the schema table, the document, kinds and their rules, selectors, quantities, patches, Status.
//!
//! Pure: no async, clock, randomness, environment or I/O. Time and entropy come in as arguments.

pub mod apply;
pub mod cel;
pub mod cron;
pub mod decode;
pub mod document;
pub mod duration;
pub mod field;
pub mod kinds;
pub mod name;
pub mod openapi;
pub mod patch;
pub mod quantity;
pub mod quota;
pub mod quote;
pub mod schema;
pub mod selector;
pub mod status;
pub mod time;
mod tree;
pub mod validation;
pub mod wire;

pub use document::Document;
pub use name::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, ObjectName};
pub use quantity::Quantity;
pub use schema::Schema;
pub use selector::{FieldSelector, LabelSelector};
pub use status::{Status, StatusResult};

pub use jiff::Timestamp;
pub use k8s_openapi;
