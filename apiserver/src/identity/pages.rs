//! The documents by which others check our tokens (OpenID Connect discovery).

use serde_json::{Value, json};

use super::authenticator::Tokens;
use crate::parts::Pages;

const DISCOVERY: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";

/// The discovery document and the key set.
pub(super) struct OpenId {
    discovery: Vec<u8>,
    keys: Vec<u8>,
}

impl OpenId {
    pub(super) fn new(tokens: &Tokens, advertise: &str) -> Self {
        let discovery = json!({
            "issuer": tokens.signer().issuer(),
            "jwks_uri": format!("https://{advertise}{KEYS}"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        let bytes = |value: Value| value.to_string().into_bytes();
        Self { discovery: bytes(discovery), keys: bytes(tokens.signer().key_set()) }
    }
}

impl Pages for OpenId {
    fn page(&self, path: &str) -> Option<(&'static str, Vec<u8>)> {
        match path {
            DISCOVERY => Some(("application/json", self.discovery.clone())),
            KEYS => Some(("application/jwk-set+json", self.keys.clone())),
            _ => None,
        }
    }
}
