//! Kubernetes' own types in expressions: quantity, ip, cidr, url, semver, format (`k8s.io/apiserver/pkg/cel/library`).

use std::cmp::Ordering;
use std::net::IpAddr;

use super::declare;
use super::static_type::Type;
use super::url::Url;
use super::value::{Key, Val};
use crate::quantity::{Quantity, QuantityFormat};
use crate::validation::text;

type Outcome<'a> = Result<Val<'a>, String>;

/// A value of a library's type.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Special {
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr(IpAddr, u8),
    Url(Url),
    Semver(Semver),
    Format(&'static str),
}

/// A semantic version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<String>,
}

const FORMATS: [&str; 13] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

impl Special {
    pub(super) fn type_of(&self) -> Type {
        declare::opaque(match self {
            Self::Quantity(_) => "quantity",
            Self::Ip(_) => "ip",
            Self::Cidr(..) => "cidr",
            Self::Url(_) => "url",
            Self::Semver(_) => "semver",
            Self::Format(_) => "format",
        })
    }

    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Quantity(a), Self::Quantity(b)) => Some(a.cmp(b)),
            (Self::Semver(a), Self::Semver(b)) => Some(a.order(b)),
            _ => None,
        }
    }

    /// As `string(..)` shows it, where it does.
    pub(super) fn shown(&self) -> Option<String> {
        match self {
            Self::Ip(ip) => Some(ip.to_string()),
            Self::Cidr(ip, prefix) => Some(format!("{ip}/{prefix}")),
            _ => None,
        }
    }
}

/// Functions of these types; `None` for others.
pub(super) fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Outcome<'a>> {
    if let Some(name) = name.strip_prefix("format.") {
        return format(name, args);
    }
    match args.split_first()? {
        (Val::Text(of), rest) => made(name, of, rest),
        (Val::Special(special), rest) => match &**special {
            Special::Quantity(of) => quantity(name, of, rest),
            Special::Ip(of) => ip(name, of, rest),
            Special::Cidr(of, prefix) => cidr(name, of, *prefix, rest),
            Special::Url(of) => url(name, of, rest),
            Special::Semver(of) => semver(name, of, rest),
            Special::Format(of) => match rest {
                [Val::Text(text)] if name == "validate" => Some(Ok(validate(of, text))),
                _ => None,
            },
        },
        _ => None,
    }
}

/// What makes such a value from text, or says whether it would.
fn made<'a>(name: &str, of: &str, rest: &[Val<'a>]) -> Option<Outcome<'a>> {
    let lenient = matches!(rest, [Val::Bool(true)]);
    if !rest.is_empty() && !matches!((name, rest), ("semver" | "isSemver", [Val::Bool(_)])) {
        return None;
    }
    let of_special = |special: Result<Special, String>| special.map(Val::special);
    Some(match name {
        "quantity" => of_special(Quantity::parse(of).map(Special::Quantity).map_err(|e| e.to_string())),
        "isQuantity" => Ok(Val::Bool(Quantity::parse(of).is_ok())),
        "ip" => of_special(ip_of(of).map(Special::Ip)),
        "isIP" => Ok(Val::Bool(ip_of(of).is_ok())),
        "ip.isCanonical" => ip_of(of).map(|ip| Val::Bool(ip.to_string() == of)),
        "cidr" => of_special(cidr_of(of).map(|(ip, prefix)| Special::Cidr(ip, prefix))),
        "isCIDR" => Ok(Val::Bool(cidr_of(of).is_ok())),
        "url" => of_special(
            Url::parse(of).map(Special::Url).map_err(|e| format!("URL parse error during conversion from string: {e}")),
        ),
        "isURL" => Ok(Val::Bool(Url::parse(of).is_ok())),
        "semver" => of_special(Semver::parse(of, lenient).map(Special::Semver)),
        "isSemver" => Ok(Val::Bool(Semver::parse(of, lenient).is_ok())),
        _ => return None,
    })
}

fn quantity<'a>(name: &str, of: &Quantity, rest: &[Val<'a>]) -> Option<Outcome<'a>> {
    let other = match rest {
        [] => None,
        [Val::Int(value)] => Some(Quantity::new(*value, QuantityFormat::DecimalSi)),
        [Val::Special(special)] => match &**special {
            Special::Quantity(other) => Some(other.clone()),
            _ => return None,
        },
        _ => return None,
    };
    let whole = || *of == Quantity::new(of.value(), of.format());
    let combined = |with: fn(&mut Quantity, &Quantity), other: &Quantity| {
        let mut sum = of.clone();
        with(&mut sum, other);
        Ok(Val::special(Special::Quantity(sum)))
    };
    Some(match (name, &other) {
        ("sign", None) => Ok(Val::Int(i64::from(of.sign()))),
        ("asApproximateFloat", None) => Ok(Val::Double(of.approximate())),
        ("isInteger", None) => Ok(Val::Bool(whole())),
        ("asInteger", None) if whole() => Ok(Val::Int(of.value())),
        ("asInteger", None) => Err("cannot convert value to integer".into()),
        ("isGreaterThan", Some(other)) => Ok(Val::Bool(of > other)),
        ("isLessThan", Some(other)) => Ok(Val::Bool(of < other)),
        ("compareTo", Some(other)) => Ok(Val::Int(of.cmp(other) as i64)),
        ("add", Some(other)) => combined(Quantity::add, other),
        ("sub", Some(other)) => combined(Quantity::sub, other),
        _ => return None,
    })
}

fn ip_of(text: &str) -> Result<IpAddr, String> {
    let parsed: Result<IpAddr, _> = text.parse();
    match parsed {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        Ok(ip) => Ok(ip),
        Err(_) => Err(format!("IP Address {text:?} parse error during conversion from string")),
    }
}

fn cidr_of(text: &str) -> Result<(IpAddr, u8), String> {
    let wrong = || format!("network address parse error during conversion from string: {text:?}");
    let (ip, prefix) = text.split_once('/').ok_or_else(wrong)?;
    let ip = ip_of(ip).map_err(|_| wrong())?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let plain = prefix == "0" || !prefix.starts_with(['0', '+']);
    let prefix: u8 = prefix.parse().ok().filter(|p| *p <= most && plain).ok_or_else(wrong)?;
    Ok((ip, prefix))
}

fn ip<'a>(name: &str, of: &IpAddr, rest: &[Val<'a>]) -> Option<Outcome<'a>> {
    if !rest.is_empty() {
        return None;
    }
    let link_local = match of {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let link_multicast = match of {
        IpAddr::V4(v4) => v4.octets().starts_with(&[224, 0, 0]),
        IpAddr::V6(v6) => v6.segments().first().is_some_and(|s| s & 0xff0f == 0xff02),
    };
    let broadcast = matches!(of, IpAddr::V4(v4) if v4.is_broadcast());
    Some(Ok(match name {
        "family" => Val::Int(if of.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Val::Bool(of.is_unspecified()),
        "isLoopback" => Val::Bool(of.is_loopback()),
        "isLinkLocalUnicast" => Val::Bool(link_local),
        "isLinkLocalMulticast" => Val::Bool(link_multicast),
        "isGlobalUnicast" => {
            let special = of.is_unspecified() || of.is_loopback() || of.is_multicast() || link_local || broadcast;
            Val::Bool(!special)
        }
        _ => return None,
    }))
}

/// An address without the bits after a prefix.
fn masked(ip: &IpAddr, prefix: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or_default();
            IpAddr::V4((u32::from(*v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or_default();
            IpAddr::V6((u128::from(*v6) & mask).into())
        }
    }
}

fn cidr<'a>(name: &str, of: &IpAddr, prefix: u8, rest: &[Val<'a>]) -> Option<Outcome<'a>> {
    let within = |ip: &IpAddr| ip.is_ipv4() == of.is_ipv4() && masked(ip, prefix) == masked(of, prefix);
    let special = |val: &Val<'_>| match val {
        Val::Special(special) => Some(Special::clone(special)),
        _ => None,
    };
    Some(match (name, rest) {
        ("ip", []) => Ok(Val::special(Special::Ip(*of))),
        ("prefixLength", []) => Ok(Val::Int(i64::from(prefix))),
        ("masked", []) => Ok(Val::special(Special::Cidr(masked(of, prefix), prefix))),
        ("containsIP", [Val::Text(text)]) => ip_of(text).map(|ip| Val::Bool(within(&ip))),
        ("containsCIDR", [Val::Text(text)]) => {
            cidr_of(text).map(|(ip, length)| Val::Bool(length >= prefix && within(&ip)))
        }
        ("containsIP", [other]) => match special(other)? {
            Special::Ip(ip) => Ok(Val::Bool(within(&ip))),
            _ => return None,
        },
        ("containsCIDR", [other]) => match special(other)? {
            Special::Cidr(ip, length) => Ok(Val::Bool(length >= prefix && within(&ip))),
            _ => return None,
        },
        _ => return None,
    })
}

fn url<'a>(name: &str, of: &Url, rest: &[Val<'a>]) -> Option<Outcome<'a>> {
    if !rest.is_empty() {
        return None;
    }
    Some(Ok(match name {
        "getScheme" => Val::text(of.scheme.clone()),
        "getHost" => Val::text(of.host.clone()),
        "getHostname" => Val::text(of.hostname().to_owned()),
        "getPort" => Val::text(of.port().to_owned()),
        "getEscapedPath" => Val::text(of.path.clone()),
        "getQuery" => {
            let mut map = std::collections::BTreeMap::new();
            for (key, values) in of.query() {
                map.insert(Key::Text(key), Val::list(values.into_iter().map(Val::text).collect()));
            }
            Val::Map(std::rc::Rc::new(map))
        }
        _ => return None,
    }))
}

fn semver<'a>(name: &str, of: &Semver, rest: &[Val<'a>]) -> Option<Outcome<'a>> {
    let [major, minor, patch] = of.numbers;
    let number = |n: u64| Ok(Val::Int(i64::try_from(n).unwrap_or(i64::MAX)));
    let other = match rest {
        [] => {
            return match name {
                "major" => Some(number(major)),
                "minor" => Some(number(minor)),
                "patch" => Some(number(patch)),
                _ => None,
            };
        }
        [Val::Special(special)] => match &**special {
            Special::Semver(other) => other,
            _ => return None,
        },
        _ => return None,
    };
    let order = of.order(other);
    Some(Ok(match name {
        "isGreaterThan" => Val::Bool(order.is_gt()),
        "isLessThan" => Val::Bool(order.is_lt()),
        "compareTo" => Val::Int(order as i64),
        _ => return None,
    }))
}

impl Semver {
    /// `1.2.3-pre+build`; leniently also with a `v`, with fewer numbers and with leading zeros.
    fn parse(given: &str, lenient: bool) -> Result<Self, String> {
        let wrong = || format!("Invalid Semantic Version {given:?}");
        let text = if lenient { given.trim().strip_prefix('v').unwrap_or(given.trim()) } else { given };
        let text = text.split_once('+').map_or(text, |(head, _)| head);
        let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
        let parts: Vec<&str> = core.split('.').collect();
        if parts.len() > 3 || (!lenient && parts.len() != 3) {
            return Err(wrong());
        }
        let mut numbers = [0; 3];
        for (number, part) in numbers.iter_mut().zip(&parts) {
            let padded = part.len() > 1 && part.starts_with('0');
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if !digits || (padded && !lenient) {
                return Err(wrong());
            }
            *number = part.parse().map_err(|_| wrong())?;
        }
        let pre: Vec<String> = pre.map(|pre| pre.split('.').map(str::to_owned).collect()).unwrap_or_default();
        let plain = |part: &String| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if pre.iter().all(plain) { Ok(Self { numbers, pre }) } else { Err(wrong()) }
    }

    fn order(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let pairs = self.pre.iter().zip(&other.pre);
                let parts = pairs.map(|(a, b)| match (a.parse::<u64>(), b.parse::<u64>()) {
                    (Ok(a), Ok(b)) => a.cmp(&b),
                    (Ok(_), Err(_)) => Ordering::Less,
                    (Err(_), Ok(_)) => Ordering::Greater,
                    (Err(_), Err(_)) => a.cmp(b),
                });
                parts.into_iter().find(|o| o.is_ne()).unwrap_or_else(|| self.pre.len().cmp(&other.pre.len()))
            }
        })
    }
}

fn format<'a>(name: &str, args: &[Val<'a>]) -> Option<Outcome<'a>> {
    let found = |wanted: &str| FORMATS.into_iter().find(|f| *f == wanted).map(|f| Val::special(Special::Format(f)));
    match (name, args) {
        ("named", [Val::Text(wanted)]) => Some(Ok(found(wanted).map_or(Val::Optional(None), Val::some))),
        (name, []) => found(name).map(Ok),
        _ => None,
    }
}

/// What is wrong with a text, none where nothing is.
fn validate<'a>(format: &str, given: &str) -> Val<'a> {
    // A prefix may end in a dash, which stands for what is generated behind it.
    let prefix = |given: &str| match given.strip_suffix('-') {
        Some(head) => format!("{head}a"),
        None => given.to_owned(),
    };
    let one = |holds: bool, message: &str| if holds { Vec::new() } else { vec![message.to_owned()] };
    let messages: Vec<String> = match format {
        "dns1123Label" => text::label(given),
        "dns1123Subdomain" => text::subdomain(given),
        "dns1035Label" => text::label_1035(given),
        "qualifiedName" => text::qualified_name(given),
        "dns1123LabelPrefix" => text::label(&prefix(given)),
        "dns1123SubdomainPrefix" => text::subdomain(&prefix(given)),
        "dns1035LabelPrefix" => text::label_1035(&prefix(given)),
        "labelValue" => text::label_value(given),
        "uri" => Url::parse(given).err().into_iter().collect(),
        "uuid" => one(crate::schema::format_holds("uuid", given), "does not match the UUID format"),
        "byte" => one(crate::schema::format_holds("byte", given), "invalid base64"),
        "date" => one(crate::schema::format_holds("date", given), "invalid date"),
        _ => one(crate::schema::format_holds("datetime", given), "invalid datetime"),
    };
    match messages.is_empty() {
        true => Val::Optional(None),
        false => Val::some(Val::list(messages.into_iter().map(Val::text).collect())),
    }
}
