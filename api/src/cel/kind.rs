//! The types of whole kinds, for expressions that are checked against what they will see
//! (`k8s.io/apiserver/pkg/cel/common/schemas.go`, `cel/openapi/resolver`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::escape::escape;
use super::schema::type_of;
use super::static_type::{ObjectType, Type};
use crate::Schema;
use crate::schema::{Item, Scalar, Shape, TypeRef};

/// The type of a kind's objects. What has no type in its schema is left out, as upstream leaves it out.
pub fn type_of_kind(schema: &Schema) -> Type {
    let name = schema.kind().kind.clone();
    let Some(raw) = schema.raw() else {
        return Reader { schema, above: Vec::new() }.object(schema.root_reference(), &name);
    };
    // A custom resource: its own words, and the metadata that all objects have.
    let own = match type_of(raw, true) {
        Some(Type::Object(own)) => own.fields.clone(),
        _ => BTreeMap::new(),
    };
    let meta = Schema::of_type("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let meta = meta.map(|meta| Reader { schema: &meta, above: Vec::new() }.object(meta.root_reference(), "ObjectMeta"));
    let mut fields = own;
    fields.extend(meta.map(|meta| ("metadata".to_owned(), ("metadata".to_owned(), meta))));
    Type::Object(Arc::new(ObjectType { name, fields, min_size: 2 }))
}

struct Reader<'s> {
    schema: &'s Schema,
    /// The types around the one that is read: one within itself is an object without fields.
    above: Vec<TypeRef>,
}

impl Reader<'_> {
    fn object(&mut self, of: TypeRef, name: &str) -> Type {
        let mut fields = BTreeMap::new();
        if !self.above.contains(&of) {
            self.above.push(of);
            let schema = self.schema;
            for field in &schema.resolve(of).fields {
                let found = self.item(&field.item, &format!("{name}.{}", field.name));
                if let (Some(found), Some(escaped)) = (found, escape(&field.name)) {
                    fields.insert(escaped, (field.name.clone(), found));
                }
            }
            self.above.pop();
        }
        Type::Object(Arc::new(ObjectType { name: name.to_owned(), fields, min_size: 2 }))
    }

    fn item(&mut self, item: &Item, name: &str) -> Option<Type> {
        Some(match &item.shape {
            Shape::Any => return None,
            Shape::Object => Type::Object(Arc::new(ObjectType { name: name.to_owned(), ..ObjectType::default() })),
            Shape::Struct { of, .. } => self.object(*of, name),
            Shape::Map { of, .. } => Type::map(self.item(of, &format!("{name}.@elem"))?),
            Shape::List { of, .. } => Type::list(self.item(of, &format!("{name}.@idx"))?),
            Shape::Scalar(scalar) => match scalar {
                Scalar::String | Scalar::Quantity => Type::TEXT,
                Scalar::Bool => Type::Bool,
                Scalar::Int32 | Scalar::Int64 => Type::Int,
                Scalar::Double => Type::Double,
                Scalar::Bytes => Type::Bytes(None),
                Scalar::Time | Scalar::MicroTime => Type::Timestamp,
                Scalar::IntOrString => Type::DYN,
            },
        })
    }
}
