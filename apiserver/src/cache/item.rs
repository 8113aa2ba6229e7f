//! One stored object as readers get it: its canonical bytes and the few fields that selectors need.
//!
//! The canonical form is the stored JSON, `kind`, `apiVersion` and `metadata` first, with the resourceVersion spliced in
//! once. What follows the first two is what a list of a built-in kind carries.

use std::borrow::Cow;
use std::sync::Arc;

use api::Document;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{Entry, Revision};

use crate::conversion::Converter;
use crate::row::Strategy;

/// One object at one revision.
#[derive(Debug)]
pub(crate) struct Item {
    /// The store's key.
    pub key: Bytes,
    /// The revision that wrote it, its resourceVersion.
    pub revision: Revision,
    /// The canonical bytes.
    pub bytes: Bytes,
    body_at: usize,
    metadata_at: usize,
    /// Its labels, sorted by key.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// What a field selector may name besides name and namespace.
    pub fields: Box<[(Cow<'static, str>, String)]>,
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.namespace`, empty for cluster-wide objects.
    pub namespace: Box<str>,
    /// Whether what is stored differs from `bytes`: an update that changes nothing still writes then.
    pub stale: bool,
    /// The same object in other versions, as far as a webhook was asked.
    forms: Mutex<Vec<Form>>,
}

/// An object as a webhook converted it.
#[derive(Debug)]
struct Form {
    by: Arc<Converter>,
    item: Arc<Item>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Head {
    metadata: Metadata,
    #[serde(flatten)]
    _rest: IgnoredAny,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Metadata {
    name: Box<str>,
    namespace: Box<str>,
    labels: Option<std::collections::BTreeMap<Box<str>, Box<str>>>,
}

impl Item {
    /// Reads a stored entry; `None` where it is no Kubernetes object.
    pub(crate) fn of(entry: &Entry, strategy: &Strategy) -> Option<Self> {
        let read = strategy.read(&entry.value).map(|document| encode(&document));
        let changed = read.is_some();
        let value = read.unwrap_or_else(|| entry.value.clone());
        let item = Self::of_value(entry.key.clone(), &value, entry.mod_revision, strategy)?;
        let stale = changed || !strategy.stores(item.api_version());
        Some(Self { stale, ..item })
    }

    /// The same object in another version.
    fn in_form(&self, document: &Document, strategy: &Strategy) -> Option<Self> {
        Self::of_value(self.key.clone(), &encode_stored(document), self.revision, strategy)
    }

    fn of_value(key: Bytes, value: &Bytes, revision: Revision, strategy: &Strategy) -> Option<Self> {
        let (bytes, metadata_at) = splice(value, revision)?;
        let head: Head = serde_json::from_slice(&bytes).ok()?;
        let fields = match strategy.fields(&Document::default()).is_empty() {
            true => Box::default(),
            false => strategy.fields(&Document::parse(&bytes).ok()?).into_boxed_slice(),
        };
        Some(Self {
            key,
            revision,
            body_at: metadata_at - METADATA.len() + 1,
            metadata_at,
            bytes,
            labels: head.metadata.labels.unwrap_or_default().into_iter().collect(),
            fields,
            name: head.metadata.name,
            namespace: head.metadata.namespace,
            stale: false,
            forms: Mutex::default(),
        })
    }

    /// Its `apiVersion`.
    pub(crate) fn api_version(&self) -> &str {
        let version = || {
            let rest = after_quote(self.bytes.strip_prefix(KIND)?)?.strip_prefix(API_VERSION)?;
            std::str::from_utf8(rest.get(..rest.iter().position(|b| *b == b'"')?)?).ok()
        };
        version().unwrap_or_default()
    }

    /// The object in another version, where that webhook said it before.
    pub(crate) fn form(&self, by: &Arc<Converter>, api_version: &str) -> Option<Arc<Self>> {
        let forms = self.forms.lock();
        let found = forms.iter().find(|form| Arc::ptr_eq(&form.by, by) && form.item.api_version() == api_version);
        found.map(|form| Arc::clone(&form.item))
    }

    /// Remembers what a webhook said; what another one said is forgotten.
    pub(crate) fn keep_form(&self, by: &Arc<Converter>, document: &Document, strategy: &Strategy) -> Option<Arc<Self>> {
        let item = Arc::new(self.in_form(document, strategy)?);
        let mut forms = self.forms.lock();
        forms.retain(|form| Arc::ptr_eq(&form.by, by) && form.item.api_version() != item.api_version());
        forms.push(Form { by: Arc::clone(by), item: Arc::clone(&item) });
        Some(item)
    }

    /// The object as a tree.
    pub(crate) fn document(&self) -> Document {
        Document::parse(&self.bytes).unwrap_or_default()
    }

    /// What follows `{` in a list of a built-in kind: all but kind and apiVersion, and the closing brace.
    pub(crate) fn body(&self) -> Bytes {
        self.bytes.slice(self.body_at..)
    }

    /// The same object with another resourceVersion: a deleted object carries that of its deletion.
    pub(crate) fn at(&self, revision: Revision) -> Bytes {
        let start = self.metadata_at + VERSION.len();
        let digits = self.bytes[start..].iter().take_while(|b| b.is_ascii_digit()).count();
        let head = &self.bytes[..start];
        [head, revision.to_string().as_bytes(), &self.bytes[start + digits..]].concat().into()
    }

    /// One label.
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|(k, _)| k.as_ref().cmp(key)).ok()?;
        self.labels.get(at).map(|(_, v)| v.as_ref())
    }

    /// One selectable field; `None` where the kind has none of that name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        match name {
            "metadata.name" => Some(&self.name),
            "metadata.namespace" => Some(&self.namespace),
            _ => self.fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()),
        }
    }
}

const KIND: &[u8] = b"{\"kind\":\"";
const API_VERSION: &[u8] = b",\"apiVersion\":\"";
const METADATA: &str = ",\"metadata\":{";
const VERSION: &str = "\"resourceVersion\":\"";

/// The bytes with the resourceVersion in them, and where the content of `metadata` begins.
fn splice(value: &Bytes, revision: Revision) -> Option<(Bytes, usize)> {
    match metadata_at(value) {
        Some(at) => Some((insert(value, at, revision), at)),
        None => {
            let value = encode_stored(&Document::parse(value).ok()?);
            let at = metadata_at(&value)?;
            Some((insert(&value, at, revision), at))
        }
    }
}

fn insert(value: &[u8], at: usize, revision: Revision) -> Bytes {
    let comma = if value.get(at) == Some(&b'}') { "" } else { "," };
    let version = format!("{VERSION}{revision}\"{comma}");
    [&value[..at], version.as_bytes(), &value[at..]].concat().into()
}

/// Where the content of `metadata` begins, in bytes that begin as we and kube-apiserver write them.
fn metadata_at(value: &[u8]) -> Option<usize> {
    let rest = value.strip_prefix(KIND)?;
    let rest = after_quote(rest)?.strip_prefix(API_VERSION)?;
    let rest = after_quote(rest)?.strip_prefix(METADATA.as_bytes())?;
    Some(value.len() - rest.len())
}

fn after_quote(bytes: &[u8]) -> Option<&[u8]> {
    let at = bytes.iter().position(|b| *b == b'"')?;
    bytes.get(at + 1..)
}

/// The bytes of an object: kind, apiVersion and metadata first, the rest sorted. The way objects are shown.
pub(crate) fn encode(document: &Document) -> Bytes {
    encoded(document, |_| true)
}

/// The same without the resourceVersion, which is the store's to say: the way objects are stored.
pub(crate) fn encode_stored(document: &Document) -> Bytes {
    encoded(document, |key| key != "resourceVersion")
}

fn encoded(document: &Document, of_metadata: fn(&str) -> bool) -> Bytes {
    let Some(map) = document.value().as_object() else { return Bytes::from_static(b"{}") };
    let mut out = Vec::with_capacity(2048);
    let first = ["kind", "apiVersion", "metadata"];
    let head = first.iter().filter_map(|key| map.get_key_value(*key));
    let rest = map.iter().filter(|(key, _)| !first.contains(&key.as_str()));
    fields(&mut out, head.chain(rest), |out, key, value| match (key, value) {
        ("metadata", Value::Object(metadata)) => {
            fields(out, metadata.iter().filter(|(key, _)| of_metadata(key)), |out, _, value| write(out, value));
        }
        _ => write(out, value),
    });
    out.into()
}

fn fields<'v>(
    out: &mut Vec<u8>,
    fields: impl Iterator<Item = (&'v String, &'v Value)>,
    of: impl Fn(&mut Vec<u8>, &str, &Value),
) {
    out.push(b'{');
    for (index, (key, value)) in fields.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, key);
        out.push(b':');
        of(out, key, value);
    }
    out.push(b'}');
}

/// Writing a tree into memory cannot fail.
fn write(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let _ = serde_json::to_writer(out, value);
}

#[cfg(test)]
mod tests {
    use super::{Item, encode};
    use crate::row::Strategy;
    use api::Document;
    use bytes::Bytes;
    use serde_json::json;
    use store::Entry;

    fn item(value: &[u8]) -> Item {
        let (key, value) = (Bytes::from_static(b"/registry/configmaps/a/b"), Bytes::copy_from_slice(value));
        let entry = Entry { key, value, create_revision: 1, mod_revision: 42, lease: 0 };
        Item::of(&entry, &Strategy::BuiltIn(&api::kinds::Plain)).expect("an object")
    }

    #[test]
    fn the_version_is_spliced_in_whoever_wrote_the_bytes() {
        let ours = encode(&Document::new(json!({"apiVersion": "v1", "kind": "C", "metadata": {"name": "b"}})).unwrap());
        let theirs = br#"{"apiVersion":"v1","kind":"C","metadata":{"name":"b"}}"#;
        let want = r#"{"kind":"C","apiVersion":"v1","metadata":{"resourceVersion":"42","name":"b"}}"#;
        for value in [ours.as_ref(), theirs] {
            assert_eq!(item(value).bytes, want);
        }
        assert_eq!(
            item(br#"{"kind":"C","apiVersion":"v1","metadata":{}}"#).body(),
            r#""metadata":{"resourceVersion":"42"}}"#
        );
        assert_eq!(item(theirs).at(7), want.replace("42", "7"));
    }
}
