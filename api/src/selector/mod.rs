//! Label and field selectors, parsed and matched as apimachinery does, with its error texts.

mod field;
mod label;
mod parse;

pub use field::{FieldRequirement, FieldSelector};
pub use label::{LabelRequirement, LabelSelector, Operator};
