//! A DNS server whose own records are a value that can be replaced at any time; all else is forwarded.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Metadata, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use parking_lot::RwLock;
use tokio::net::{TcpListener, UdpSocket};

/// Idle TCP clients are disconnected after this time.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Bytes buffered for a TCP client's answers.
const TCP_BUFFER: usize = 64 * 1024;

/// What a name has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Data {
    Address(IpAddr),
    Service { port: u16, target: String },
    Alias(String),
    Pointer(String),
}

/// The zones we answer for, whole. Names are lower case and fully qualified, without the last dot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// The zones: `cluster.local`, `96.10.in-addr.arpa`. Names below them are never forwarded.
    pub zones: Vec<String>,
    /// What each name has. A name without data that has names below it exists, too.
    pub names: BTreeMap<String, Vec<Data>>,
    /// Seconds for which answers may be kept.
    pub ttl_seconds: u32,
}

impl Records {
    fn zone_of(&self, name: &str) -> Option<&str> {
        let below = |zone: &&String| name.strip_suffix(zone.as_str()).is_some_and(|p| p.is_empty() || p.ends_with('.'));
        self.zones.iter().filter(below).max_by_key(|zone| zone.len()).map(String::as_str)
    }

    /// Whether a name, or one below it, has data (RFC 8020: then it is not NXDOMAIN).
    fn exists(&self, name: &str) -> bool {
        let suffix = format!(".{name}");
        self.names.contains_key(name) || self.names.keys().any(|other| other.ends_with(&suffix))
    }
}

/// The records, shared with whoever replaces them.
#[derive(Clone, Debug, Default)]
pub struct Zones(Arc<RwLock<Arc<Records>>>);

impl Zones {
    /// Replaces all records at once.
    pub fn replace(&self, records: Records) {
        *self.0.write() = Arc::new(records);
    }

    fn current(&self) -> Arc<Records> {
        self.0.read().clone()
    }
}

/// Answers on both sockets until `shutdown` ends, then finishes what is under way. Without `upstreams`, names outside
/// the zones are refused.
pub async fn serve(
    zones: Zones,
    udp: UdpSocket,
    tcp: TcpListener,
    upstreams: &[IpAddr],
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut server = Server::new(Handler { zones, forward: forwarder(upstreams)? });
    server.register_socket(udp);
    server.register_listener(tcp, TCP_IDLE, TCP_BUFFER);
    shutdown.await;
    server.shutdown_gracefully().await.map_err(io::Error::other)
}

fn forwarder(upstreams: &[IpAddr]) -> io::Result<Option<TokioResolver>> {
    if upstreams.is_empty() {
        return Ok(None);
    }
    let servers = upstreams.iter().map(|ip| NameServerConfig::udp_and_tcp(*ip)).collect();
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.build().map(Some).map_err(io::Error::other)
}

struct Handler {
    zones: Zones,
    forward: Option<TokioResolver>,
}

/// An answer before it is encoded.
#[derive(Default)]
struct Answer {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    authority: Vec<Record>,
}

impl Answer {
    fn code(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut out: R) -> ResponseInfo {
        let answer = self.answer(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = answer.code;
        metadata.authoritative = answer.authoritative;
        metadata.recursion_available = self.forward.is_some();
        let builder = MessageResponseBuilder::from_message_request(request);
        let message = builder.build(metadata, &answer.answers, &answer.authority, [], []);
        match out.send_response(message).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "a DNS answer could not be sent");
                failed(metadata)
            }
        }
    }
}

fn failed(mut metadata: Metadata) -> ResponseInfo {
    use hickory_server::proto::op::{Header, HeaderCounts};
    metadata.response_code = ResponseCode::ServFail;
    ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
}

impl Handler {
    async fn answer(&self, request: &Request) -> Answer {
        let Ok(info) = request.request_info() else { return Answer::code(ResponseCode::FormErr) };
        let name = Name::from(info.query.name());
        let kind = info.query.query_type();
        let text = name.to_lowercase().to_utf8();
        let records = self.zones.current();
        match records.zone_of(text.trim_end_matches('.')) {
            Some(zone) => local(&records, zone, &name, text.trim_end_matches('.'), kind),
            None => self.forward(name, kind).await,
        }
    }

    async fn forward(&self, name: Name, kind: RecordType) -> Answer {
        let Some(resolver) = &self.forward else { return Answer::code(ResponseCode::Refused) };
        match resolver.lookup(name, kind).await {
            Ok(found) => Answer { answers: found.answers().to_vec(), ..Answer::default() },
            Err(error) if error.is_nx_domain() => Answer::code(ResponseCode::NXDomain),
            Err(error) if error.is_no_records_found() => Answer::default(),
            Err(_) => Answer::code(ResponseCode::ServFail),
        }
    }
}

/// The answer from our own records; NXDOMAIN and empty answers carry the zone's SOA (RFC 2308).
fn local(records: &Records, zone: &str, name: &Name, text: &str, kind: RecordType) -> Answer {
    let data = records.names.get(text).map_or(&[][..], Vec::as_slice);
    let answers: Vec<Record> = data
        .iter()
        .filter_map(|data| rdata(data, kind))
        .map(|rdata| Record::from_rdata(name.clone(), records.ttl_seconds, rdata))
        .collect();
    let authority = if answers.is_empty() { soa(records, zone) } else { Vec::new() };
    let known = !answers.is_empty() || text == zone || records.exists(text);
    let code = if known { ResponseCode::NoError } else { ResponseCode::NXDomain };
    Answer { code, authoritative: true, answers, authority }
}

/// The record's data if it is of the type asked for; an alias answers every type.
fn rdata(data: &Data, kind: RecordType) -> Option<RData> {
    let wanted = |of: RecordType| kind == of || kind == RecordType::ANY;
    let name = |text: &str| Name::from_ascii(format!("{text}.")).ok();
    match data {
        Data::Address(IpAddr::V4(ip)) => wanted(RecordType::A).then_some(RData::A(A(*ip))),
        Data::Address(IpAddr::V6(ip)) => wanted(RecordType::AAAA).then_some(RData::AAAA(AAAA(*ip))),
        Data::Alias(to) => Some(RData::CNAME(CNAME(name(to)?))),
        Data::Pointer(to) if wanted(RecordType::PTR) => Some(RData::PTR(PTR(name(to)?))),
        Data::Service { port, target } if wanted(RecordType::SRV) => {
            Some(RData::SRV(SRV::new(0, 100, *port, name(target)?)))
        }
        Data::Pointer(_) | Data::Service { .. } => None,
    }
}

fn soa(records: &Records, zone: &str) -> Vec<Record> {
    let name = |text: String| Name::from_ascii(text).unwrap_or_default();
    let (server, mail) = (name(format!("ns.dns.{zone}.")), name(format!("hostmaster.{zone}.")));
    let data = RData::SOA(SOA::new(server, mail, 1, 7200, 1800, 86400, records.ttl_seconds));
    vec![Record::from_rdata(name(format!("{zone}.")), records.ttl_seconds, data)]
}
