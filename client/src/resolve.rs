//! From a host to its addresses: literals and `localhost` at once, names through hickory.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_resolver::TokioResolver;
use tokio::sync::OnceCell;

static RESOLVER: OnceCell<TokioResolver> = OnceCell::const_new();

/// The addresses of a host as it stands in a URL (IPv6 literals in brackets).
pub(crate) async fn addresses(host: &str) -> io::Result<Vec<IpAddr>> {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = literal.parse() {
        return Ok(vec![address]);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let resolver = RESOLVER.get_or_try_init(|| async { system() }).await?;
    let found = resolver.lookup_ip(host).await.map_err(io::Error::other)?;
    Ok(found.iter().collect())
}

/// As `/etc/resolv.conf` and `/etc/hosts` have it.
fn system() -> io::Result<TokioResolver> {
    TokioResolver::builder_tokio().and_then(|b| b.build()).map_err(io::Error::other)
}
