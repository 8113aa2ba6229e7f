//! Custom resources in their versions (`k8s.io/apiextensions-apiserver/pkg/apiserver/conversion`).
//!
//! Where a definition's strategy is `None`, only the apiVersion differs. Where it is `Webhook`, somebody else knows: what
//! is said to them and back stands here and is pure; [`crate::perform`] calls.

mod review;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::{Document, GroupVersion};
use serde_json::Value;

use crate::hooks::{Target, target};
use crate::row::{Resource, Version};

/// The webhook of a definition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Converter {
    /// The definition's name.
    pub definition: String,
    /// Where it is.
    pub target: Target,
    /// The first version of ConversionReview it takes that is known here.
    pub review: Option<&'static str>,
}

/// Versions of ConversionReview that are known, both of one form.
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

impl Converter {
    /// Of a definition, where its strategy is `Webhook`.
    pub(crate) fn of(definition: &Document) -> Option<Self> {
        if definition.str_at("/spec/conversion/strategy") != "Webhook" {
            return None;
        }
        let known = |version: &Value| REVIEWS.into_iter().find(|known| version == known);
        let config = definition.at("/spec/conversion/webhook/clientConfig").unwrap_or(&Value::Null);
        let mut target = target(config);
        if target.ca_bundle.iter().all(u8::is_ascii_whitespace) {
            target.ca_bundle.clear();
        }
        let review = definition.list_at("/spec/conversion/webhook/conversionReviewVersions").iter().find_map(known);
        Some(Self { definition: definition.name().to_owned(), target, review })
    }
}

/// A question to a webhook: these objects, all of one kind and none of them in the wanted version yet.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// Whom to ask.
    pub converter: Arc<Converter>,
    /// The `desiredAPIVersion`.
    pub wanted: String,
    /// At least one.
    pub objects: Vec<Document>,
}

impl PartialEq for Question {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.converter, &other.converter) && self.wanted == other.wanted && self.objects == other.objects
    }
}

impl Eq for Question {}

/// What came back: the objects in the order of the question, or upstream's error.
pub(crate) type Converted = Result<Vec<Document>, String>;

/// What it takes to show an object in a version.
#[derive(Debug)]
pub(crate) enum Conversion {
    /// Nothing more.
    Done(Document),
    /// The answer to this; [`received`] then makes the object of it.
    Ask(Question),
}

/// An object of a row in one of its versions. The error is upstream's text.
pub(crate) fn convert(row: &Resource, version: &Version, document: Document) -> Result<Conversion, String> {
    if !row.custom || row.shows(version, document.api_version()) {
        return Ok(Conversion::Done(relabelled(row, version, document)));
    }
    known(row, document.api_version())?;
    match &row.converter {
        None => Ok(Conversion::Done(relabelled(row, version, document))),
        Some(converter) => {
            let (converter, wanted) = (Arc::clone(converter), row.group_version(version).to_string());
            Ok(Conversion::Ask(Question { converter, wanted, objects: vec![document] }))
        }
    }
}

/// The same where nobody need be asked: a built-in object, or a custom one of which only the apiVersion differs.
pub(crate) fn relabelled(row: &Resource, version: &Version, mut document: Document) -> Document {
    if !row.custom {
        row.out_of_hub(version, &mut document);
        return document;
    }
    if row.shows(version, document.api_version()) {
        return document;
    }
    document.set("/apiVersion", row.group_version(version).to_string());
    received(version, document)
}

/// An object that was converted, without what the version's schema does not know.
pub(crate) fn received(version: &Version, mut document: Document) -> Document {
    version.schema.prune(&mut document);
    document
}

/// Refuses a version that the definition no longer has.
pub(crate) fn known(row: &Resource, api_version: &str) -> Result<(), String> {
    let parsed = GroupVersion::parse(api_version).filter(|found| found.group == row.group);
    match parsed.is_some_and(|found| row.versions.iter().any(|version| version.name == found.version)) {
        true => Ok(()),
        false => Err(format!("request to convert CR from an invalid group/version: {api_version}")),
    }
}

pub(crate) use review::{read, review};
