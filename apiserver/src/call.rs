//! One request for a resource, with the row it is for.

use std::sync::Arc;

use api::{GroupResource, StatusResult, Timestamp};
use http::{HeaderMap, header};

use crate::attributes::{Attributes, ResourceAttributes};
use crate::negotiate::{self, Accepted, Offer};
use crate::request::Query;
use crate::respond;
use crate::row::{Resource, Subresource, Version};

/// The request.
#[derive(Clone)]
pub(crate) struct Call {
    /// Who wants what.
    pub attributes: Attributes,
    /// The resource of `attributes`.
    pub target: ResourceAttributes,
    /// Its row.
    pub row: Arc<Resource>,
    version: usize,
    /// The query.
    pub query: Query,
    /// The headers.
    pub headers: HeaderMap,
    /// The request's time.
    pub now: Timestamp,
}

impl Call {
    /// For a row in a version it serves; `None` where it does not.
    pub(crate) fn new(
        attributes: Attributes,
        row: Arc<Resource>,
        query: Query,
        headers: HeaderMap,
        now: Timestamp,
    ) -> Option<Self> {
        let target = attributes.resource.clone()?;
        let version = row.versions.iter().position(|v| v.served && v.name == target.group_version.version)?;
        Some(Self { attributes, target, row, version, query, headers, now })
    }

    /// For a row in the version that it stores, whether that is served or not.
    pub(crate) fn in_storage(attributes: Attributes, row: Arc<Resource>, now: Timestamp) -> Option<Self> {
        let target = attributes.resource.clone()?;
        let version = row.versions.iter().position(|v| v.storage)?;
        Some(Self { attributes, target, row, version, query: Query::default(), headers: HeaderMap::new(), now })
    }

    /// The version asked for.
    pub(crate) fn version(&self) -> &Version {
        &self.row.versions[self.version]
    }

    /// The place of that version in the row.
    pub(crate) fn version_index(&self) -> usize {
        self.version
    }

    /// The resource asked for.
    pub(crate) fn target(&self) -> &ResourceAttributes {
        &self.target
    }

    /// Group and plural.
    pub(crate) fn resource(&self) -> GroupResource {
        self.row.group_resource()
    }

    /// The subresource asked for.
    pub(crate) fn subresource(&self) -> Option<&Subresource> {
        self.version().subresource(&self.target.subresource)
    }

    /// The `Accept` header.
    pub(crate) fn accept(&self) -> Option<&str> {
        self.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok())
    }

    /// Which form of an answer the client gets; custom resources have no protobuf.
    pub(crate) fn negotiate(&self, offer: Offer) -> StatusResult<Accepted> {
        let whole = |sub: &Subresource| sub.kind.kind == self.row.kind || sub.name == "scale";
        let has_table = self.row.storage.is_some() && self.subresource().is_none_or(whole);
        let offer = if offer == Offer::Forms && !has_table { Offer::Metadata } else { offer };
        negotiate::choose(self.accept(), offer, !self.row.custom)
    }

    /// The `User-Agent` header.
    pub(crate) fn user_agent(&self) -> &str {
        respond::text(&self.headers, header::USER_AGENT)
    }
}
