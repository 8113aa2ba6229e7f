//! Continue tokens, in upstream's form (`k8s.io/apiserver/pkg/storage/continue.go`): base64 of
//! `{"v":"meta.k8s.io/v1","rv":7,"start":"namespace/name\u0000"}`.

use api::{Status, StatusResult};
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{NO_PAD, URL_SAFE_NO_PAD};
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};
use store::Revision;

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    #[serde(default)]
    v: String,
    #[serde(default)]
    rv: i64,
    #[serde(default)]
    start: String,
}

const VERSION: &str = "meta.k8s.io/v1";
/// Go's decoder does not mind bits left over at the end.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&URL_SAFE, GeneralPurposeConfig::with_decode_allow_trailing_bits(NO_PAD, true));

impl Token {
    /// A token for the keys after `last` (both with the list's prefix), as of a revision.
    pub(crate) fn after(last: &str, prefix: &str, revision: Revision) -> String {
        let start = format!("{}\0", last.strip_prefix(prefix).unwrap_or(last));
        let rv = i64::try_from(revision).unwrap_or(i64::MAX);
        let token = Self { v: VERSION.into(), rv, start };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    /// The key to start from and the revision; `None`: whatever is the latest (an inconsistent continuation).
    pub(crate) fn parse(text: &str, prefix: &str) -> StatusResult<(String, Option<Revision>)> {
        let token = read(text)?;
        if token.v != VERSION {
            return Err(bad(&format!("server does not recognize this encoded version {}", token.v)));
        }
        if token.rv == 0 {
            return Err(bad(&format!("incorrect encoded start resourceVersion (version {VERSION})")));
        }
        if token.start.is_empty() {
            return Err(bad(&format!("encoded start key empty (version {VERSION})")));
        }
        if token.start.split('/').any(|part| part == "..") || token.start.starts_with('/') {
            return Err(bad(&format!("{}{}", "invalid start key: ", token.start)));
        }
        Ok((format!("{prefix}{}", token.start), Revision::try_from(token.rv).ok()))
    }

    /// A token that goes on at the latest revision, for clients whose revision is gone.
    pub(crate) fn inconsistent(text: &str) -> String {
        let token = read(text).map(|token| Self { rv: -1, ..token });
        token.map(|t| URL_SAFE_NO_PAD.encode(serde_json::to_vec(&t).unwrap_or_default())).unwrap_or_default()
    }
}

fn read(text: &str) -> StatusResult<Token> {
    let bytes = LENIENT.decode(text).map_err(|why| bad(&api::decode::illegal_base64(&why, text)))?;
    serde_json::from_slice(&bytes).map_err(|_| {
        let first = bytes.first().copied().map(char::from).unwrap_or_default();
        bad(&format!("invalid character '{first}' looking for beginning of value"))
    })
}

fn bad(why: &str) -> Box<Status> {
    Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
}
