//! The functions there are: cel-go's standard library and Kubernetes' own (`k8s.io/apiserver/pkg/cel/library`), as
//! signatures.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::static_type::Type;

/// One signature.
#[derive(Clone, Debug)]
pub(super) struct Overload {
    /// Whether the first parameter is what the function is called on.
    pub member: bool,
    pub params: Vec<Type>,
    pub result: Type,
}

/// `name(params) result`; a name that begins with `.` is a member, whose first parameter is its receiver. Types by one
/// letter and in words: `A`, `B` are parameters, `[x]` a list, `{k,v}` a map, `?x` an optional.
const SIGNATURES: &str = "
!_(bool) bool
-_(int) int | -_(double) double
_+_(int,int) int | _+_(uint,uint) uint | _+_(double,double) double | _+_(string,string) string
_+_(bytes,bytes) bytes | _+_([A],[A]) [A] | _+_(duration,duration) duration
_+_(timestamp,duration) timestamp | _+_(duration,timestamp) timestamp
_-_(int,int) int | _-_(uint,uint) uint | _-_(double,double) double | _-_(duration,duration) duration
_-_(timestamp,duration) timestamp | _-_(timestamp,timestamp) duration
_*_(int,int) int | _*_(uint,uint) uint | _*_(double,double) double
_/_(int,int) int | _/_(uint,uint) uint | _/_(double,double) double
_%_(int,int) int | _%_(uint,uint) uint
_==_(A,A) bool | _!=_(A,A) bool
@in(A,[A]) bool | @in(A,{A,B}) bool
size(string) int | size(bytes) int | size([A]) int | size({A,B}) int
.size(string) int | .size(bytes) int | .size([A]) int | .size({A,B}) int
bool(bool) bool | bool(string) bool
bytes(bytes) bytes | bytes(string) bytes
double(double) double | double(int) double | double(uint) double | double(string) double
int(int) int | int(uint) int | int(double) int | int(string) int | int(timestamp) int | int(duration) int
uint(uint) uint | uint(int) uint | uint(double) uint | uint(string) uint
string(string) string | string(bool) string | string(int) string | string(uint) string | string(double) string
string(bytes) string | string(timestamp) string | string(duration) string | string(ip) string | string(cidr) string
duration(duration) duration | duration(string) duration | duration(int) duration
timestamp(timestamp) timestamp | timestamp(string) timestamp | timestamp(int) timestamp
dyn(A) dyn | type(A) type
matches(string,string) bool | .matches(string,string) bool
.contains(string,string) bool | .startsWith(string,string) bool | .endsWith(string,string) bool
.getFullYear(timestamp) int | .getFullYear(timestamp,string) int | .getMonth(timestamp) int
.getMonth(timestamp,string) int | .getDayOfYear(timestamp) int | .getDayOfYear(timestamp,string) int
.getDayOfMonth(timestamp) int | .getDayOfMonth(timestamp,string) int | .getDate(timestamp) int
.getDate(timestamp,string) int | .getDayOfWeek(timestamp) int | .getDayOfWeek(timestamp,string) int
.getHours(timestamp) int | .getHours(timestamp,string) int | .getMinutes(timestamp) int
.getMinutes(timestamp,string) int | .getSeconds(timestamp) int | .getSeconds(timestamp,string) int
.getMilliseconds(timestamp) int | .getMilliseconds(timestamp,string) int
.getHours(duration) int | .getMinutes(duration) int | .getSeconds(duration) int | .getMilliseconds(duration) int
.charAt(string,int) string | .indexOf(string,string) int | .indexOf(string,string,int) int
.lastIndexOf(string,string) int | .lastIndexOf(string,string,int) int | .join([string]) string
.join([string],string) string | .lowerAscii(string) string | .upperAscii(string) string
.replace(string,string,string) string | .replace(string,string,string,int) string | .split(string,string) [string]
.split(string,string,int) [string] | .substring(string,int) string | .substring(string,int,int) string
.trim(string) string | .format(string,[dyn]) string | strings.quote(string) string
.find(string,string) string | .findAll(string,string) [string] | .findAll(string,string,int) [string]
sets.contains([A],[A]) bool | sets.equivalent([A],[A]) bool | sets.intersects([A],[A]) bool
.isSorted([A]) bool | .sum([int]) int | .sum([uint]) uint | .sum([double]) double | .sum([duration]) duration
.min([A]) A | .max([A]) A | .indexOf([A],A) int | .lastIndexOf([A],A) int | .includes(dyn,dyn) bool
.slice([A],int,int) [A] | .flatten([[A]]) [A] | .flatten([dyn],int) [dyn] | .sort([A]) [A] | .distinct([A]) [A]
.reverse([A]) [A] | lists.range(int) [int] | .first([A]) ?A | .last([A]) ?A
url(string) url | isURL(string) bool | .getScheme(url) string | .getHost(url) string | .getHostname(url) string
.getPort(url) string | .getEscapedPath(url) string | .getQuery(url) {string,[string]}
quantity(string) quantity | isQuantity(string) bool | .sign(quantity) int | .isGreaterThan(quantity,quantity) bool
.isLessThan(quantity,quantity) bool | .compareTo(quantity,quantity) int | .asApproximateFloat(quantity) double
.asInteger(quantity) int | .isInteger(quantity) bool | .add(quantity,quantity) quantity | .add(quantity,int) quantity
.sub(quantity,quantity) quantity | .sub(quantity,int) quantity
ip(string) ip | isIP(string) bool | ip.isCanonical(string) bool | .family(ip) int | .isUnspecified(ip) bool
.isLoopback(ip) bool | .isLinkLocalMulticast(ip) bool | .isLinkLocalUnicast(ip) bool | .isGlobalUnicast(ip) bool
cidr(string) cidr | isCIDR(string) bool | .containsIP(cidr,string) bool | .containsIP(cidr,ip) bool
.containsCIDR(cidr,string) bool | .containsCIDR(cidr,cidr) bool | .ip(cidr) ip | .prefixLength(cidr) int
.masked(cidr) cidr
semver(string) semver | semver(string,bool) semver | isSemver(string) bool | isSemver(string,bool) bool
.isGreaterThan(semver,semver) bool | .isLessThan(semver,semver) bool | .compareTo(semver,semver) int
.major(semver) int | .minor(semver) int | .patch(semver) int
format.named(string) ?format | .validate(format,string) ?[string]
format.dns1123Label() format | format.dns1123Subdomain() format | format.dns1035Label() format
format.qualifiedName() format | format.dns1123LabelPrefix() format | format.dns1123SubdomainPrefix() format
format.dns1035LabelPrefix() format | format.labelValue() format | format.uri() format | format.uuid() format
format.byte() format | format.date() format | format.datetime() format
optional.of(A) ?A | optional.ofNonZeroValue(A) ?A | optional.none() ?A | .hasValue(?A) bool | .value(?A) A
.or(?A,?A) ?A | .orValue(?A,A) A | optional.unwrap([?A]) [A] | .unwrapOpt([?A]) [A]
.path(authorizer,string) pathCheck | .group(authorizer,string) groupCheck
.serviceAccount(authorizer,string,string) authorizer | .resource(groupCheck,string) resourceCheck
.subresource(resourceCheck,string) resourceCheck | .namespace(resourceCheck,string) resourceCheck
.name(resourceCheck,string) resourceCheck | .fieldSelector(resourceCheck,string) resourceCheck
.labelSelector(resourceCheck,string) resourceCheck | .check(pathCheck,string) decision
.check(resourceCheck,string) decision | .allowed(decision) bool | .reason(decision) string
.errored(decision) bool | .error(decision) string
jsonpatch.escapeKey(string) string
";

/// What `<`, `<=`, `>`, `>=` compare.
const ORDERED: [&str; 7] = ["bool", "string", "bytes", "duration", "timestamp", "number", "number"];
const NUMBERS: [&str; 3] = ["int", "uint", "double"];

/// The names of the libraries' types in expressions.
const OPAQUE: [(&str, &str); 11] = [
    ("url", "kubernetes.URL"),
    ("quantity", "kubernetes.Quantity"),
    ("ip", "net.IP"),
    ("cidr", "net.CIDR"),
    ("semver", "kubernetes.Semver"),
    ("format", "kubernetes.NamedFormat"),
    ("authorizer", "kubernetes.authorization.Authorizer"),
    ("pathCheck", "kubernetes.authorization.PathCheck"),
    ("groupCheck", "kubernetes.authorization.GroupCheck"),
    ("resourceCheck", "kubernetes.authorization.ResourceCheck"),
    ("decision", "kubernetes.authorization.Decision"),
];

/// The signatures of a function; empty where there is none.
pub(super) fn overloads(name: &str) -> &'static [Overload] {
    static TABLE: OnceLock<BTreeMap<String, Vec<Overload>>> = OnceLock::new();
    TABLE.get_or_init(table).get(name).map_or(&[], Vec::as_slice)
}

/// The type that an identifier names, such as `string` in `type(x) == string`.
pub(super) fn type_named(name: &str) -> Option<Type> {
    match name {
        "bool" | "int" | "uint" | "double" | "string" | "bytes" | "dyn" => Some(of(name)),
        "list" => Some(Type::list(Type::DYN)),
        "map" => Some(Type::map_of(Type::DYN, Type::DYN)),
        "null_type" => Some(Type::Null),
        "type" => Some(Type::Type(std::sync::Arc::new(Type::DYN))),
        "optional_type" => Some(Type::optional(Type::DYN)),
        "google.protobuf.Duration" => Some(Type::Duration),
        "google.protobuf.Timestamp" => Some(Type::Timestamp),
        _ => OPAQUE.iter().find(|(_, full)| *full == name).map(|(_, full)| Type::Opaque(full)),
    }
}

/// A library's type by its short name.
pub(super) fn opaque(short: &str) -> Type {
    OPAQUE.iter().find(|(name, _)| *name == short).map_or(Type::DYN, |(_, full)| Type::Opaque(full))
}

fn table() -> BTreeMap<String, Vec<Overload>> {
    let mut table: BTreeMap<String, Vec<Overload>> = BTreeMap::new();
    for signature in SIGNATURES.split(['\n', '|']).map(str::trim).filter(|s| !s.is_empty()) {
        let Some((name, overload)) = signature_of(signature) else { continue };
        table.entry(name.to_owned()).or_default().push(overload);
    }
    for name in ["_<_", "_<=_", "_>_", "_>=_"] {
        let pair = |a: &str, b: &str| Overload { member: false, params: vec![of(a), of(b)], result: Type::Bool };
        let same = ORDERED.iter().filter(|t| **t != "number").map(|t| pair(t, t));
        let mixed = NUMBERS.iter().flat_map(|a| NUMBERS.iter().map(move |b| pair(a, b)));
        table.insert(name.into(), same.chain(mixed).collect());
    }
    table
}

fn signature_of(text: &'static str) -> Option<(&'static str, Overload)> {
    let open = text.find('(')?;
    let close = text.rfind(')')?;
    let (head, member) = match text.get(..open)? {
        name if name.starts_with('.') => (name.get(1..)?, true),
        name => (name, false),
    };
    let params = split(text.get(open + 1..close)?).into_iter().map(of).collect();
    Some((head, Overload { member, params, result: of(text.get(close + 1..)?.trim()) }))
}

/// At commas outside of braces.
fn split(text: &'static str) -> Vec<&'static str> {
    let mut parts = Vec::new();
    let (mut depth, mut from) = (0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text.get(from..at).unwrap_or_default());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(from..).unwrap_or_default());
    parts.retain(|part| !part.is_empty());
    parts
}

fn of(text: &str) -> Type {
    if let Some(inner) = text.strip_prefix('?') {
        return Type::optional(of(inner));
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return Type::list(of(inner));
    }
    if let Some(inner) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
        let (key, value) = inner.split_once(',').unwrap_or((inner, "dyn"));
        return Type::map_of(of(key), of(value));
    }
    match text {
        "A" => Type::Param("A"),
        "B" => Type::Param("B"),
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::TEXT,
        "bytes" => Type::Bytes(None),
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "type" => Type::Type(std::sync::Arc::new(Type::Param("A"))),
        other => opaque(other),
    }
}
