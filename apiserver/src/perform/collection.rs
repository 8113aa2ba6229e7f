//! Deletecollection: every selected object is deleted as if alone; the answer is the list of what was selected.

use api::decode::Format;
use api::{Document, StatusResult};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use http::Response;

use super::{perform, settings};
use crate::call::Call;
use crate::core::Core;
use crate::negotiate::Form;
use crate::parts::Body;
use crate::read::list::{find, whole};
use crate::read::options::ListOptions;
use crate::respond::{self, Style};
use crate::write::options::{DeleteOptions, WriteOptions};
use crate::write::{Request, Verb, body};

/// So many objects are deleted at a time.
const AT_ONCE: usize = 16;

/// Answers a DELETE of a collection.
pub(super) async fn delete(
    core: &Core,
    call: &Call,
    bytes: Bytes,
    form: Form,
    style: Style,
) -> StatusResult<Response<Body>> {
    let list = ListOptions::parse(call, false)?;
    let format = if bytes.is_empty() { Format::Json } else { body::format(&call.headers)? };
    let options = DeleteOptions::parse(&call.query, &bytes, format)?;
    let found = find(core, call, &list).await?;
    let settings = settings(core, call).await?;
    let documents: Vec<Document> = found.items().iter().map(|item| crate::read::document_in(call, item)).collect();
    let requests = documents.iter().map(|document| {
        let mut call = call.clone();
        call.target.object = api::ObjectName { namespace: document.namespace().into(), name: document.name().into() };
        call.attributes.resource = Some(call.target.clone());
        let verb = Verb::Delete(options.clone());
        Request {
            call,
            verb,
            options: WriteOptions::default(),
            body: Bytes::new(),
            format: Format::Json,
            settings: settings.clone(),
            internal: false,
            collection: true,
        }
    });
    let requests: Vec<Request> = requests.collect();
    let delete_one = |request: Request| {
        let core = core.clone();
        async move { perform(&core, &request).await }.boxed()
    };
    let mut deletions = stream::iter(requests).map(delete_one).buffer_unordered(AT_ONCE);
    while let Some(done) = deletions.next().await {
        match done.answer {
            Err(status) if status.code != 404 => return Err(status),
            _ => {}
        }
    }
    let mut response = respond::bytes(200, whole(call, &found, form)?, style);
    let remark: Vec<String> = options.remark(&call.row.behaviour).into_iter().collect();
    respond::warn(&mut response, &remark);
    Ok(response)
}
