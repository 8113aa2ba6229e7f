//! Reads one scalar: checked, and in the form in which Kubernetes writes it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::node::{Node, float};
use super::time_text;
use crate::schema::{Scalar, Shape};
use crate::{Quantity, time};

/// What is wrong with a scalar.
#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    /// The value is of another type.
    Type,
    /// An error that does not stop the reading.
    Saved(String),
    /// An error that does.
    Fatal(String),
    /// The same, of a value in place of another: what was found, and the Go type that was wanted.
    Other(String, &'static str),
}

pub(super) fn read(scalar: Scalar, node: &Node<'_>) -> Result<Value, Fault> {
    match (scalar, node) {
        (Scalar::String, Node::String(text)) => Ok(text.as_ref().into()),
        (Scalar::Bool, Node::Bool(value)) => Ok((*value).into()),
        (Scalar::Int32, Node::Number(text)) => text.parse::<i32>().map(Value::from).map_err(|_| Fault::Type),
        (Scalar::Int64, Node::Number(text)) => text.parse::<i64>().map(Value::from).map_err(|_| Fault::Type),
        (Scalar::Double, Node::Number(text)) => text.parse().ok().and_then(float).map(Value::Number).ok_or(Fault::Type),
        (Scalar::Bytes, Node::String(text)) => bytes(text),
        (Scalar::Time, node) => moment(node, false),
        (Scalar::MicroTime, node) => moment(node, true),
        (Scalar::Quantity, node) => quantity(node),
        (Scalar::IntOrString, node) => int_or_string(node),
        _ => Err(Fault::Type),
    }
}

/// Base64 as Go reads it: line breaks are skipped.
fn bytes(text: &str) -> Result<Value, Fault> {
    let plain: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&plain) {
        Ok(bytes) => Ok(STANDARD.encode(bytes).into()),
        Err(error) => Err(Fault::Saved(illegal_base64(&error, &plain))),
    }
}

/// Go's words for text that is no base64.
pub fn illegal_base64(error: &base64::DecodeError, text: &str) -> String {
    let at = match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => *at,
        // What is cut short is wrong from its last group of four on.
        _ => text.find('=').unwrap_or(text.len() / 4 * 4),
    };
    format!("illegal base64 data at input byte {at}")
}

fn moment(node: &Node<'_>, micro: bool) -> Result<Value, Fault> {
    let Node::String(text) = node else {
        let found = node.go_kind();
        return Err(Fault::Other(found.to_owned(), "string"));
    };
    match time::parse(text) {
        Some(moment) if !micro => Ok(time::rfc3339(moment).into()),
        Some(moment) if time_text::has_six_decimals(text) => Ok(time::rfc3339_micro(moment).into()),
        _ => Err(Fault::Fatal(time_text::fault(text, micro))),
    }
}

fn quantity(node: &Node<'_>) -> Result<Value, Fault> {
    let text = match node {
        Node::String(text) | Node::Number(text) => text.trim(),
        _ => "{",
    };
    match Quantity::parse(text) {
        Ok(quantity) => Ok(quantity.to_string().into()),
        Err(error) => Err(Fault::Fatal(error.to_string())),
    }
}

fn int_or_string(node: &Node<'_>) -> Result<Value, Fault> {
    let found = match node {
        Node::String(text) => return Ok(text.as_ref().into()),
        Node::Number(text) => match text.parse::<i32>() {
            Ok(number) => return Ok(number.into()),
            Err(_) => format!("number {text}"),
        },
        other => other.go_kind().to_owned(),
    };
    Err(Fault::Other(found, "int32"))
}

/// The unstructured converter's words for a value of another type.
pub(super) fn unstructured(shape: &Shape, node: &Node<'_>) -> String {
    let found = match node {
        Node::List(_) => "slice",
        Node::Map(_) => "map",
        Node::String(_) => "string",
        Node::Bool(_) => "bool",
        Node::Number(text) if text.contains(['.', 'e', 'E']) => "float64",
        Node::Number(_) => "int64",
        Node::Null => "nil",
    };
    match (shape, node) {
        (Shape::List { .. } | Shape::Scalar(Scalar::Bytes), _) => format!("cannot restore slice from {found}"),
        (Shape::Map { .. }, _) => format!("cannot restore map from {found}"),
        (Shape::Struct { .. }, _) => format!("cannot restore struct from: {found}"),
        // Go could make a text of a whole number, but does not.
        (Shape::Scalar(Scalar::String), Node::Number(_)) if found == "int64" => "cannot convert int64 to string".into(),
        (Shape::Scalar(scalar @ (Scalar::Int32 | Scalar::Int64)), Node::Number(_)) if found == "float64" => {
            format!("cannot convert float64 to {}", super::go::scalar(*scalar))
        }
        (Shape::Scalar(scalar), _) => format!("unrecognized type: {}", super::go::scalar(*scalar)),
        _ => format!("unrecognized type: {found}"),
    }
}
