//! The names Go's type errors use.

use crate::schema::{Field, Scalar, Schema, Shape, Type};

/// `v1.PodSpec`.
pub(super) fn struct_type(of: &Type) -> String {
    let package = of.name.rsplit('.').nth(1).unwrap_or_default();
    format!("{package}.{}", of.go_name())
}

pub(super) fn scalar(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::String => "string",
        Scalar::Bool => "bool",
        Scalar::Int32 => "int32",
        Scalar::Int64 => "int64",
        Scalar::Double => "float64",
        Scalar::Bytes => "[]uint8",
        Scalar::Time => "v1.Time",
        Scalar::MicroTime => "v1.MicroTime",
        Scalar::Quantity => "resource.Quantity",
        Scalar::IntOrString => "intstr.IntOrString",
    }
}

/// The Go type of a shape.
pub(super) fn type_name(schema: &Schema, shape: &Shape) -> String {
    match shape {
        Shape::Scalar(of) => scalar(*of).to_owned(),
        Shape::Any | Shape::Object => "interface {}".to_owned(),
        Shape::Struct { of, .. } => struct_type(schema.resolve(*of)),
        Shape::List { of, .. } => format!("[]{}", type_name(schema, &of.shape)),
        Shape::Map { of, .. } => format!("map[string]{}", type_name(schema, &of.shape)),
    }
}

/// Embedded structs whose fields JSON shows inline, by the struct that embeds them.
const EMBEDDED: &[(&str, &str)] = &[
    ("Volume", "VolumeSource"),
    ("PersistentVolumeSpec", "PersistentVolumeSource"),
    ("Probe", "ProbeHandler"),
    ("EphemeralContainer", "EphemeralContainerCommon"),
    ("SecretKeySelector", "LocalObjectReference"),
    ("ConfigMapKeySelector", "LocalObjectReference"),
    ("SecretEnvSource", "LocalObjectReference"),
    ("ConfigMapEnvSource", "LocalObjectReference"),
    ("SecretProjection", "LocalObjectReference"),
    ("ConfigMapProjection", "LocalObjectReference"),
    ("ConfigMapVolumeSource", "LocalObjectReference"),
    ("RuleWithOperations", "Rule"),
    ("NamedRuleWithOperations", "RuleWithOperations"),
];

/// The embedded struct that a field stands in.
pub(super) fn embedded(of: &Type, field: &Field) -> Option<&'static str> {
    if matches!(field.name.as_str(), "apiVersion" | "kind") && field.pb.is_empty() {
        return Some("TypeMeta");
    }
    let inline = field.pb.len() > 1;
    EMBEDDED.iter().find(|(name, _)| inline && *name == of.go_name()).map(|(_, embedded)| *embedded)
}
