//! JSON web tokens with ES256, on ring: only what service account tokens need.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::Error;

/// What stands before the two coordinates of a P-256 key in its SubjectPublicKeyInfo.
const SPKI_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Tokens longer than this are nobody's.
const MAX_TOKEN: usize = 16 * 1024;

/// A signing key and the issuer that it signs for.
pub struct Signer {
    key: EcdsaKeyPair,
    random: SystemRandom,
    issuer: String,
    id: String,
}

impl Signer {
    /// Reads a P-256 key (PKCS #8, PEM), or makes one where there is no file.
    pub fn open(path: &Path, issuer: &str) -> Result<Self, Error> {
        if !path.exists() {
            client::write_secret(path, rcgen::KeyPair::generate()?.serialize_pem().as_bytes())?;
        }
        let bad = |why: String| Error::Key { path: path.into(), why };
        let der = PrivatePkcs8KeyDer::from_pem_file(path).map_err(|e| bad(e.to_string()))?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &random);
        let key = key.map_err(|e| bad(e.to_string()))?;
        let spki = [SPKI_PREFIX, key.public_key().as_ref()].concat();
        let id = BASE64URL.encode(digest(&SHA256, &spki));
        Ok(Self { key, random, issuer: issuer.into(), id })
    }

    /// Who signs.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A signed token; `iss` is added to the claims. `None` only where the system has no randomness.
    pub fn sign(&self, mut claims: Value) -> Option<String> {
        claims["iss"] = self.issuer.as_str().into();
        let header = json!({"alg": "ES256", "kid": self.id});
        let body = format!("{}.{}", encode(&header), encode(&claims));
        let signature = self.key.sign(&self.random, body.as_bytes()).ok()?;
        Some(format!("{body}.{}", BASE64URL.encode(signature)))
    }

    /// The claims of a token with a good signature by this key for this issuer. Says nothing about times.
    pub fn verify(&self, token: &str) -> Option<Value> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let (body, signature) = token.rsplit_once('.')?;
        let (header, claims) = body.split_once('.')?;
        // The header decides nothing: one key, one algorithm.
        if decode(header)?.get("alg")? != "ES256" {
            return None;
        }
        let claims = decode(claims)?;
        if claims.get("iss")? != self.issuer.as_str() {
            return None;
        }
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        key.verify(body.as_bytes(), &BASE64URL.decode(signature).ok()?).ok()?;
        Some(claims)
    }

    /// A random identifier, a version 4 UUID.
    pub fn identifier(&self) -> Option<String> {
        let bytes: [u8; 8] = ring::rand::generate(&self.random).ok()?.expose();
        Some(crate::entropy::Entropy::new(u64::from_ne_bytes(bytes)).uuid())
    }

    /// The key as a JSON web key set (RFC 7517).
    pub fn key_set(&self) -> Value {
        let public = self.key.public_key().as_ref();
        let part = |range: std::ops::Range<usize>| BASE64URL.encode(public.get(range).unwrap_or_default());
        let (x, y) = (part(1..33), part(33..65));
        json!({"keys": [{"use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256", "x": x, "y": y}]})
    }
}

fn encode(value: &Value) -> String {
    BASE64URL.encode(value.to_string())
}

fn decode(part: &str) -> Option<Value> {
    serde_json::from_slice(&BASE64URL.decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::Signer;
    use serde_json::json;

    #[test]
    fn only_an_untouched_token_of_this_key_and_issuer_is_good() {
        let folder = tempfile::tempdir().unwrap();
        let signer = Signer::open(&folder.path().join("sa.key"), "https://a").unwrap();
        let token = signer.sign(json!({"sub": "x"})).unwrap();
        assert_eq!(signer.verify(&token).unwrap()["sub"], "x");
        let again = Signer::open(&folder.path().join("sa.key"), "https://a").unwrap();
        assert!(again.verify(&token).is_some());
        let elsewhere = Signer::open(&folder.path().join("sa.key"), "https://b").unwrap();
        assert!(elsewhere.verify(&token).is_none());
        let other = Signer::open(&folder.path().join("other.key"), "https://a").unwrap();
        assert!(other.verify(&token).is_none());
        let parts: Vec<&str> = token.split('.').collect();
        let forged = super::encode(&json!({"sub": "y", "iss": "https://a"}));
        let none = super::encode(&json!({"alg": "none"}));
        for bad in [
            format!("{}.{forged}.{}", parts[0], parts[2]),
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            String::new(),
            "a.b.c".into(),
        ] {
            assert!(signer.verify(&bad).is_none(), "{bad}");
        }
    }
}
