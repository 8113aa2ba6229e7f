//! Custom resources that are stored in another version than the one asked for, converted by their webhook.

use std::sync::Arc;
use std::time::Duration;

use api::{Document, StatusResult};
use futures::{StreamExt, stream};
use tokio::time::Instant;

use super::options::untranslated;
use crate::cache::Item;
use crate::call::Call;
use crate::conversion::{self, Converter, Question};
use crate::core::Core;
use crate::perform::session::late;

/// So many objects, and about so many bytes of them, are converted by one request to a webhook.
const BATCH: usize = 100;
const BATCH_BYTES: usize = 1 << 20;
/// So many requests to a webhook at a time, for one read.
const AT_ONCE: usize = 4;
/// A read waits no longer than this for all of them.
const MAX_TIME: Duration = Duration::from_secs(60);

/// The items in the call's version, as far as a webhook must be asked for it; those of a version that the definition no
/// longer has are refused. What was converted once is remembered by its item.
pub(crate) async fn shown(core: &Core, call: &Call, mut items: Vec<Arc<Item>>) -> StatusResult<Vec<Arc<Item>>> {
    if !call.row.custom {
        return Ok(items);
    }
    let others = items.iter_mut().enumerate().filter(|(_, item)| !call.row.shows(call.version(), item.api_version()));
    let others: Vec<(usize, &mut Arc<Item>)> = others.collect();
    for (_, item) in &others {
        conversion::known(&call.row, item.api_version()).map_err(untranslated)?;
    }
    let Some(converter) = call.row.converter.as_ref().filter(|_| !others.is_empty()) else { return Ok(items) };
    let wanted = call.row.group_version(call.version()).to_string();
    let mut missing = Vec::new();
    for (at, item) in others {
        match item.form(converter, &wanted) {
            Some(form) => *item = form,
            None => missing.push((at, Arc::clone(item))),
        }
    }
    let deadline = Instant::now() + MAX_TIME;
    let batches = batches(missing).into_iter().map(|batch| converted(core, call, converter, &wanted, batch));
    let mut answers = stream::iter(batches).buffer_unordered(AT_ONCE);
    while let Some(answer) = tokio::time::timeout_at(deadline, answers.next()).await.map_err(|_| late())? {
        for (at, form) in answer? {
            if let Some(item) = items.get_mut(at) {
                *item = form;
            }
        }
    }
    drop(answers);
    Ok(items)
}

type Placed = (usize, Arc<Item>);

fn batches(items: Vec<Placed>) -> Vec<Vec<Placed>> {
    let mut batches: Vec<Vec<Placed>> = Vec::new();
    let mut bytes = 0;
    for (at, item) in items {
        bytes += item.bytes.len();
        match batches.last_mut().filter(|batch| batch.len() < BATCH && bytes <= BATCH_BYTES) {
            Some(batch) => batch.push((at, item)),
            None => {
                bytes = item.bytes.len();
                batches.push(vec![(at, item)]);
            }
        }
    }
    batches
}

async fn converted(
    core: &Core,
    call: &Call,
    converter: &Arc<Converter>,
    wanted: &str,
    batch: Vec<Placed>,
) -> StatusResult<Vec<Placed>> {
    let objects: Vec<Document> = batch.iter().map(|(_, item)| item.document()).collect();
    let question = Question { converter: Arc::clone(converter), wanted: wanted.to_owned(), objects };
    let documents = core.outside.convert(core, &question).await.map_err(untranslated)?;
    let form = |((at, item), document): (Placed, Document)| {
        let document = conversion::received(call.version(), document);
        let form = item.keep_form(converter, &document, &call.row.strategy);
        (at, form.unwrap_or(item))
    };
    Ok(batch.into_iter().zip(documents).map(form).collect())
}
