//! Field paths and validation errors, in apimachinery's words (`k8s.io/apimachinery/pkg/util/validation/field`).

use std::fmt;

use serde_json::Value;

/// A path such as `spec.containers[0].name` or `metadata.labels[app]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(String);

impl Path {
    /// A path of one or more dotted names; empty for the root.
    pub fn new(path: &str) -> Self {
        Self(path.into())
    }

    /// A named child.
    pub fn child(&self, name: &str) -> Self {
        match self.0.as_str() {
            "" => Self(name.into()),
            path => Self(format!("{path}.{name}")),
        }
    }

    /// An item of a list.
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// A value of a map.
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// What is wrong with a field. The names are the `reason` of a Status cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ErrorType {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    InvalidOmitted,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
}

impl ErrorType {
    /// The cause's reason, `FieldValueRequired` and so on.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid | Self::InvalidOmitted => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::InvalidOmitted | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }
}

/// One validation error.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Error {
    pub kind: ErrorType,
    pub path: Path,
    pub value: Value,
    pub detail: String,
    /// The value as its Go type prints it, where that is not its JSON.
    pub shown: Option<String>,
}

/// All that is wrong with an object, in the order it was found.
pub type Errors = Vec<Error>;

impl Error {
    /// The value is not acceptable; the detail says why.
    pub fn invalid(path: Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self { kind: ErrorType::Invalid, path, value: value.into(), detail: detail.into(), shown: None }
    }

    /// The value is not acceptable, and too large to be shown.
    pub fn invalid_omitted(path: Path, detail: impl Into<String>) -> Self {
        Self { kind: ErrorType::InvalidOmitted, path, value: Value::Null, detail: detail.into(), shown: None }
    }

    /// The value has the wrong type.
    pub fn type_invalid(path: Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self { kind: ErrorType::TypeInvalid, path, value: value.into(), detail: detail.into(), shown: None }
    }

    /// A value is needed.
    pub fn required(path: Path, detail: impl Into<String>) -> Self {
        Self { kind: ErrorType::Required, path, value: Value::Null, detail: detail.into(), shown: None }
    }

    /// The value may not be set, or not changed.
    pub fn forbidden(path: Path, detail: impl Into<String>) -> Self {
        Self { kind: ErrorType::Forbidden, path, value: Value::Null, detail: detail.into(), shown: None }
    }

    /// The value stands twice.
    pub fn duplicate(path: Path, value: impl Into<Value>) -> Self {
        Self { kind: ErrorType::Duplicate, path, value: value.into(), detail: String::new(), shown: None }
    }

    /// What the value names is not there.
    pub fn not_found(path: Path, value: impl Into<Value>) -> Self {
        Self { kind: ErrorType::NotFound, path, value: value.into(), detail: String::new(), shown: None }
    }

    /// The value is none of those allowed, which are told in the order given.
    pub fn not_supported(path: Path, value: impl Into<Value>, allowed: &[&str]) -> Self {
        let quoted: Vec<String> = allowed.iter().map(|a| crate::quote::quote(a)).collect();
        let detail = if quoted.is_empty() { String::new() } else { format!("supported values: {}", quoted.join(", ")) };
        Self { kind: ErrorType::NotSupported, path, value: value.into(), detail, shown: None }
    }

    /// The value is longer than `max` bytes.
    pub fn too_long(path: Path, max: usize) -> Self {
        let detail = format!("may not be more than {max} bytes");
        Self { kind: ErrorType::TooLong, path, value: Value::Null, detail, shown: None }
    }

    /// The list has `actual` items, more than `max`.
    pub fn too_many(path: Path, actual: usize, max: usize) -> Self {
        let detail = format!("must have at most {max} item{}", if max == 1 { "" } else { "s" });
        Self { kind: ErrorType::TooMany, path, value: actual.into(), detail, shown: None }
    }

    /// The message without the path, as a Status cause carries it.
    pub fn body(&self) -> String {
        use ErrorType::{Forbidden, Internal, InvalidOmitted, Required, TooLong};
        let mut text = self.kind.text().to_owned();
        if !matches!(self.kind, Required | Forbidden | TooLong | Internal | InvalidOmitted) {
            text.push_str(": ");
            match &self.shown {
                Some(shown) => text.push_str(shown),
                None => text.push_str(&go_value(&self.value)),
            }
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

/// A value as Go's error text shows it: strings quoted, null as such, the rest as JSON.
fn go_value(value: &Value) -> String {
    match value {
        Value::String(s) => crate::quote::quote(s),
        other => other.to_string(),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, Path};

    #[test]
    fn errors_read_as_kubernetes_writes_them() {
        let name = Path::new("spec").child("containers").index(0).child("name");
        let text = |e: Error| e.to_string();
        assert_eq!(text(Error::required(name.clone(), "")), "spec.containers[0].name: Required value");
        assert_eq!(
            text(Error::invalid(name.clone(), "A", "bad")),
            r#"spec.containers[0].name: Invalid value: "A": bad"#
        );
        assert_eq!(
            text(Error::not_supported(name, "X", &["b", "a"])),
            r#"spec.containers[0].name: Unsupported value: "X": supported values: "b", "a""#
        );
    }
}
