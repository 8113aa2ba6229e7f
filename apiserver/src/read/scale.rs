//! GET of a scale.

use api::{Status, StatusResult};
use http::Response;

use crate::call::Call;
use crate::core::Core;
use crate::negotiate::Offer;
use crate::parts::Body;
use crate::respond::{self, Style};
use crate::write::scale;

/// Reads the scale of an object.
pub(crate) async fn get(core: &Core, call: &Call) -> StatusResult<Response<Body>> {
    let accepted = call.negotiate(Offer::Objects)?;
    super::fresh_enough(core, "", 0).await?;
    let item = super::named(core, call).await?;
    let style = Style::of(accepted.encoding, accepted.pretty, &call.headers, &call.query);
    let scale = scale::of(call, &super::document_in(call, &item)).ok_or_else(Status::page_not_found)?;
    Ok(respond::object(200, &scale, style))
}
