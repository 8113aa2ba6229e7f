//! ConversionReview, there and back (`conversion/webhook_converter.go`).

use api::validation::{annotations, labels};
use api::{Document, GroupVersion, field};
use serde_json::{Map, Value, json};

use super::{Converted, Question};

/// What is sent; the error says why nothing can be.
pub(crate) fn review(question: &Question, uid: &str) -> Result<Value, String> {
    let version = question.converter.review.ok_or("no supported conversion review versions")?;
    let objects: Vec<&Value> = question.objects.iter().map(Document::value).collect();
    let request = json!({"uid": uid, "desiredAPIVersion": question.wanted, "objects": objects});
    Ok(json!({"kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{version}"), "request": request}))
}

/// Reads what came back; `uid` is the one that was sent.
pub(crate) fn read(question: &Question, uid: &str, answered: Result<Value, String>) -> Converted {
    let [first, ..] = question.objects.as_slice() else { return Ok(Vec::new()) };
    let about = format!("conversion webhook for {}", described(first.api_version(), first.kind()));
    let version = question.converter.review.unwrap_or_default();
    let response = answered.and_then(|review| objects(version, uid, review));
    let found = response.map_err(|why| format!("{about} failed: {why}"))?;
    let (got, expected) = (found.len(), question.objects.len());
    if got != expected {
        return Err(format!("{about} returned {got} objects, expected {expected}"));
    }
    let alone = expected == 1;
    let each = question.objects.iter().zip(found).enumerate();
    each.map(|(at, (original, converted))| {
        one(question, original, converted).map_err(|fault| fault.told(&about, at, alone))
    })
    .collect()
}

/// `g/v, Kind=K`, as Go prints it.
fn described(api_version: &str, kind: &str) -> String {
    let version = if api_version.contains('/') { api_version.to_owned() } else { format!("/{api_version}") };
    format!("{version}, Kind={kind}")
}

/// The objects of a review's response.
fn objects(version: &str, uid: &str, review: Value) -> Result<Vec<Value>, String> {
    let text =
        |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    if version == "v1" {
        let given = (text(&review, "/apiVersion"), text(&review, "/kind"));
        if (given.0.as_str(), given.1.as_str()) != ("apiextensions.k8s.io/v1", "ConversionReview") {
            let wanted = described("apiextensions.k8s.io/v1", "ConversionReview");
            return Err(format!("expected webhook response of {wanted}, got {}", described(&given.0, &given.1)));
        }
    }
    let Some(response) = review.get("response").filter(|response| response.is_object()) else {
        return Err("no response provided".into());
    };
    if version == "v1" && text(response, "/uid") != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", text(response, "/uid")));
    }
    match (text(response, "/result/status").as_str(), text(response, "/result/message")) {
        ("Success", _) => Ok(response.get("convertedObjects").and_then(Value::as_array).cloned().unwrap_or_default()),
        (status, message) if message.is_empty() => Err(format!("response.result.status was '{status}', not 'Success'")),
        (_, message) => Err(message),
    }
}

/// What is wrong with one converted object. Upstream words it differently for one and for several.
enum Fault {
    /// Not even an object of some kind.
    Unreadable(String),
    /// Another group, version or kind than asked for.
    Other(String),
    /// Another object.
    Object(String),
    /// Metadata that may not change, or may not be so.
    Metadata(String),
}

impl Fault {
    fn told(self, about: &str, at: usize, alone: bool) -> String {
        match (self, alone) {
            (Self::Unreadable(why), true) => why,
            (Self::Other(why), true) => format!("{about} returned invalid object at index 0: {why}"),
            (Self::Object(why), true) => format!("{about} returned invalid object: {why}"),
            (Self::Metadata(why), true) => format!("{about} returned invalid metadata: {why}"),
            (Self::Metadata(why), false) => format!("{about} returned invalid metadata in object at index {at}: {why}"),
            (Self::Unreadable(why) | Self::Other(why) | Self::Object(why), false) => {
                format!("{about} returned invalid converted object at index {at}: {why}")
            }
        }
    }
}

fn one(question: &Question, original: &Document, converted: Value) -> Result<Document, Fault> {
    let missing = |value: &Value| Fault::Unreadable(format!("Object 'Kind' is missing in '{value}'"));
    if converted.get("kind").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err(missing(&converted));
    }
    let mut document = Document::new(converted).ok_or_else(|| missing(&Value::Null))?;
    let (wanted, given) = (&question.wanted, document.api_version());
    if GroupVersion::parse(wanted) != GroupVersion::parse(given) {
        return Err(Fault::Other(format!("invalid groupVersion (expected {wanted}, received {given})")));
    }
    let (wanted, given) = (original.kind(), document.kind());
    if wanted != given {
        return Err(Fault::Other(format!("invalid kind (expected {wanted}, received {given})")));
    }
    for (what, pointer) in [("name", "/metadata/name"), ("namespace", "/metadata/namespace"), ("UID", "/metadata/uid")]
    {
        let (wanted, given) = (original.str_at(pointer), document.str_at(pointer));
        if wanted != given {
            return Err(Fault::Object(format!("must have the same {what}: {wanted} != {given}")));
        }
    }
    let metadata = metadata(original, &document).map_err(Fault::Metadata)?;
    document.set("/metadata", metadata);
    Ok(document)
}

/// The original's metadata with the labels and annotations of the converted object: nothing else may change.
fn metadata(original: &Document, converted: &Document) -> Result<Value, String> {
    let given = converted.at("/metadata").ok_or("missing metadata in converted object")?;
    let Value::Object(given) = given else {
        return Err(format!("invalid metadata of type {} in converted object", go_type(given)));
    };
    let mut kept: Map<String, Value> = original.at("/metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    for name in ["labels", "annotations"] {
        let Some(texts) = given.get(name).filter(|value| !value.is_null()) else {
            kept.remove(name);
            continue;
        };
        let Value::Object(map) = texts else {
            return Err(format!("invalid metadata.{name} of type {} in converted object", go_type(texts)));
        };
        if let Some((key, value)) = map.iter().find(|(_, value)| !value.is_string()) {
            let found = go_type(value);
            return Err(format!("metadata.{name}[{key}] must be a string, but is {found} in converted object"));
        }
        if kept.get(name) != Some(texts) {
            valid(name, texts)?;
        }
        kept.insert(name.into(), texts.clone());
    }
    Ok(Value::Object(kept))
}

fn valid(name: &str, texts: &Value) -> Result<(), String> {
    let path = field::Path::new("metadata");
    let errors = match name {
        "labels" => labels::labels(Some(texts), &path.child("labels")),
        _ => annotations(Some(texts), &path.child("annotation")),
    };
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    if errors.is_empty() { Ok(()) } else { Err(crate::authz::aggregate(&errors)) }
}

/// The type of a decoded value, as Go's `%T` prints it.
fn go_type(value: &Value) -> &'static str {
    if value.is_null() { "<nil>" } else { api::patch::go_type(value) }
}
