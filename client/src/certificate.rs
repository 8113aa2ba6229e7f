//! When a certificate holds.

use std::time::Duration;

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{Error, tls};

/// The span in which a certificate holds, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Validity {
    pub not_before: i64,
    pub not_after: i64,
}

/// The validity of the first certificate of a PEM text.
pub fn validity(pem: &str) -> Result<Validity, Error> {
    let bad = || Error::Pem("the certificate".into());
    let chain = tls::certificates(pem)?;
    let first = chain.first().ok_or_else(bad)?;
    let (_, parsed) = X509Certificate::from_der(first).map_err(|_| bad())?;
    let validity = parsed.validity();
    Ok(Validity { not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() })
}

impl Validity {
    /// When to renew: after four fifths of the life, as kubelet does.
    pub fn renew_at(&self) -> i64 {
        self.not_before + (self.not_after - self.not_before) / 5 * 4
    }

    /// How long until then; zero where it is due.
    pub fn renew_in(&self, now: i64) -> Duration {
        Duration::from_secs(u64::try_from(self.renew_at() - now).unwrap_or(0))
    }
}
