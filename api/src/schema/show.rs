//! Values in error texts as Go prints them: the fields of a type of `meta/v1` in the order of their numbers, where a JSON
//! object here is sorted by name.

use serde_json::{Map, Value};

use super::Schema;
use super::shape::{Item, Shape, Type};
use crate::field::Errors;

impl Schema {
    /// Sets how the errors' values are shown.
    pub fn show_values(&self, errors: &mut Errors) {
        for error in errors.iter_mut().filter(|e| e.shown.is_none() && (e.value.is_object() || e.value.is_array())) {
            let path = error.path.to_string();
            error.shown = self.shape_at(&path).and_then(|shape| self.shown(shape, &error.value));
        }
    }

    /// The shape of what stands at a path such as `spec.ports[0].name` or `metadata.labels[a.b/c]`.
    fn shape_at(&self, path: &str) -> Option<&Shape> {
        let (mut of, mut shape): (Option<&Type>, Option<&Shape>) = (Some(self.root()), None);
        let mut rest = path;
        while !rest.is_empty() {
            let item: &Item = match rest.strip_prefix('[') {
                Some(inner) => {
                    rest = inner.split_once(']')?.1;
                    match shape? {
                        Shape::List { of, .. } | Shape::Map { of, .. } => of,
                        _ => return None,
                    }
                }
                None => {
                    let name = rest.trim_start_matches('.');
                    let end = name.find(['.', '[']).unwrap_or(name.len());
                    let (name, after) = name.split_at_checked(end)?;
                    rest = after;
                    &of?.field(name)?.item
                }
            };
            shape = Some(&item.shape);
            of = match item.shape {
                Shape::Struct { of, .. } => Some(self.resolve(of)),
                _ => None,
            };
        }
        shape
    }

    /// `None` where it holds no type of `meta/v1`: then JSON will do.
    fn shown(&self, shape: &Shape, value: &Value) -> Option<String> {
        match (shape, value) {
            (Shape::Struct { of, .. }, Value::Object(map)) => {
                let of = self.resolve(*of);
                of.name.starts_with("io.k8s.apimachinery.").then(|| self.structure(of, map))
            }
            (Shape::List { of, .. }, Value::Array(items)) => {
                let shown: Vec<String> = items.iter().map(|item| self.inner(&of.shape, item)).collect();
                let known = matches!(of.shape, Shape::Struct { .. });
                known.then(|| format!("[{}]", shown.join(",")))
            }
            _ => None,
        }
    }

    fn inner(&self, shape: &Shape, value: &Value) -> String {
        self.shown(shape, value).unwrap_or_else(|| value.to_string())
    }

    fn structure(&self, of: &Type, map: &Map<String, Value>) -> String {
        let mut fields: Vec<_> = of.fields.iter().filter(|f| map.contains_key(&f.name)).collect();
        fields.sort_by(|a, b| a.pb.cmp(&b.pb));
        let shown = |name: &str, shape: &Shape| {
            let value = map.get(name).unwrap_or(&Value::Null);
            format!("{}:{}", Value::from(name), self.inner(shape, value))
        };
        let fields: Vec<String> = fields.into_iter().map(|f| shown(&f.name, &f.item.shape)).collect();
        format!("{{{}}}", fields.join(","))
    }
}

#[cfg(test)]
mod tests {
    use crate::Schema;
    use crate::field::{Error, Path};
    use serde_json::json;

    #[test]
    fn a_selector_is_shown_in_the_order_of_its_type() {
        let schema = Schema::of_kind("apps", "v1", "Deployment").expect("a kind");
        let expressions = json!([{"key": "a", "operator": "In", "values": ["b"]}]);
        let selector = json!({"matchExpressions": expressions, "matchLabels": {"x": "y"}});
        let mut errors = vec![Error::invalid(Path::new("spec").child("selector"), selector, "field is immutable")];
        schema.show_values(&mut errors);
        let want = r#"Invalid value: {"matchLabels":{"x":"y"},"matchExpressions":[{"key":"a","operator":"In","values":["b"]}]}: field is immutable"#;
        assert_eq!(errors[0].body(), want);
    }
}
