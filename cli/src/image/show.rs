//! Images on the screen: a line each, or JSON.

use runtime_image::{Details, Image};
use serde_json::{Value, json};

/// The heading of [`line`]s.
pub(super) const HEADING: &str = "IMAGE ID                  SIZE  NAME";

/// An image in one line.
pub(super) fn line(image: &Image) -> String {
    let id: String = image.id.chars().take(19).collect();
    let names = if image.names.is_empty() { "<none>".to_owned() } else { image.names.join(", ") };
    format!("{id:<20} {:>9}  {names}", size(image.size_bytes))
}

/// An image as JSON.
pub(super) fn json(image: &Image) -> Value {
    json!({"id": image.id, "names": image.names, "digests": image.digests, "sizeBytes": image.size_bytes})
}

/// All that is known of an image.
pub(super) fn details(details: &Details) -> Value {
    let mut value = json(&details.image);
    if let Value::Object(fields) = &mut value {
        fields.insert("manifestDigest".to_owned(), json!(details.manifest_digest));
        fields.insert("manifest".to_owned(), details.manifest.clone());
        fields.insert("configuration".to_owned(), details.configuration.clone());
        if !details.referrers.is_empty() {
            fields.insert("referrers".to_owned(), json!(details.referrers));
        }
        fields.insert("unpacked".to_owned(), json!(details.image.layers));
    }
    value
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
