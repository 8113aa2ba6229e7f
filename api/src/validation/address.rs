//! Addresses and networks (`k8s.io/apimachinery/pkg/util/validation/ip.go`).

use std::net::IpAddr;

use crate::field::{Error, Errors, Path};

/// An address in a field that also takes forms other than the canonical one, but neither leading zeros nor mapped ones.
pub fn ip(text: &str, path: &Path) -> Errors {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            vec![Error::invalid(path.clone(), text, "must not be an IPv4-mapped IPv6 address")]
        }
        Ok(_) => Errors::new(),
        Err(_) if without_leading_zeros(text).parse::<IpAddr>().is_ok() => {
            vec![Error::invalid(path.clone(), text, "must not have leading 0s")]
        }
        Err(_) => {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            vec![Error::invalid(path.clone(), text, detail)]
        }
    }
}

/// An address that can be an endpoint: neither unspecified, loopback, link-local nor link-local multicast.
pub fn endpoint_ip(text: &str, path: &Path) -> Errors {
    let Ok(ip) = text.parse::<IpAddr>() else { return self::ip(text, path) };
    let (link_local, multicast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets().starts_with(&[224, 0, 0])),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] == 0xff02),
    };
    let mut errors = Errors::new();
    let mut say = |bad: bool, detail: &str| {
        if bad {
            errors.push(Error::invalid(path.clone(), text, detail));
        }
    };
    say(ip.is_unspecified(), &format!("may not be unspecified ({text})"));
    say(ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    say(link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    say(multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    errors
}

/// A network: an address without bits beyond the prefix, and the prefix length.
pub fn cidr(text: &str, path: &Path) -> Errors {
    let detail = match network(text) {
        Some((ip, bits)) if beyond_prefix(ip, bits) => "must not have bits set beyond the prefix length",
        Some(_) => return Errors::new(),
        None => "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
    };
    vec![Error::invalid(path.clone(), text, detail)]
}

/// Whether a network is a part of another and smaller; `None` where either is none.
pub fn contains(whole: &str, part: &str) -> Option<bool> {
    let ((whole, whole_bits), (part, part_bits)) = (network(whole)?, network(part)?);
    let beyond = |bits: u8, all: u32| all.saturating_sub(bits.into());
    let inside = match (whole, part) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(beyond(whole_bits, 32)).unwrap_or_default() == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(beyond(whole_bits, 128)).unwrap_or_default() == 0
        }
        _ => false,
    };
    Some(inside && part_bits > whole_bits)
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = text.split_once('/')?;
    let ip: IpAddr = ip.parse().ok()?;
    let plain = bits == "0" || !bits.starts_with(['0', '+']);
    let bits: u8 = bits.parse().ok().filter(|_| plain)?;
    (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, bits))
}

fn beyond_prefix(ip: IpAddr, bits: u8) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.to_bits().checked_shl(bits.into()).unwrap_or_default() != 0,
        IpAddr::V6(v6) => v6.to_bits().checked_shl(bits.into()).unwrap_or_default() != 0,
    }
}

/// Whether the texts are addresses of both families, one each.
pub fn is_dual_stack(texts: &[&str]) -> bool {
    let families: Vec<bool> = texts.iter().filter_map(|t| Some(t.parse::<IpAddr>().ok()?.is_ipv4())).collect();
    families.contains(&true) && families.contains(&false)
}

fn without_leading_zeros(text: &str) -> String {
    let strip = |part: &str| match part.trim_start_matches('0') {
        "" => "0".to_owned(),
        rest => rest.to_owned(),
    };
    text.split('.').map(strip).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::{cidr, contains, endpoint_ip, ip};
    use crate::field::Path;

    #[test]
    fn addresses_and_networks_are_told_from_others() {
        let path = Path::new("p");
        let bad_ips = ["", "1.2.3", "01.2.3.4", "::ffff:1.2.3.4", "a"];
        ["1.2.3.4", "::1", "FE80:0::1"].iter().for_each(|t| assert!(ip(t, &path).is_empty(), "{t}"));
        bad_ips.iter().for_each(|t| assert_eq!(ip(t, &path).len(), 1, "{t}"));
        ["10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32"].iter().for_each(|t| assert!(cidr(t, &path).is_empty(), "{t}"));
        ["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0", "10.0.0.0/08"]
            .iter()
            .for_each(|t| assert_eq!(cidr(t, &path).len(), 1, "{t}"));
        assert_eq!(contains("10.0.0.0/8", "10.1.0.0/16"), Some(true));
        assert_eq!(contains("0.0.0.0/0", "10.1.0.0/16"), Some(true));
        assert_eq!(contains("10.0.0.0/8", "10.0.0.0/8"), Some(false));
        assert_eq!(contains("10.0.0.0/8", "11.0.0.0/16"), Some(false));
        assert_eq!(contains("10.0.0.0/8", "::/64"), Some(false));
        ["0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.1", "fe80::1"]
            .iter()
            .for_each(|t| assert_eq!(endpoint_ip(t, &path).len(), 1, "{t}"));
    }
}
