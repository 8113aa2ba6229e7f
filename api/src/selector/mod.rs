//! Label and field selectors, parsed and matched as apimachinery does, with its error texts.

mod field;
mod label;
mod parse;
mod syntax;

pub use field::{FieldRequirement, FieldSelector};
pub use label::{LabelRequirement, LabelSelector, Operator};
pub use syntax::{label_key_errors, label_value_errors, subdomain_errors};
