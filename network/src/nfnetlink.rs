//! nfnetlink messages: attributes, batches of nf_tables, and synchronous exchanges with the kernel.

use std::io;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFNL_SUBSYS_NFTABLES`.
const TABLES: u16 = 10;
const NESTED: u16 = 0x8000;
const NLM_F_REQUEST: u16 = 0x1;
/// Answer that it is done.
pub(crate) const NLM_F_ACK: u16 = 0x4;
/// Answer with everything there is.
pub(crate) const NLM_F_DUMP: u16 = 0x300;
/// Create if absent.
pub(crate) const NLM_F_CREATE: u16 = 0x400;
/// Append (rules).
pub(crate) const NLM_F_APPEND: u16 = 0x800;
pub(crate) const NLMSG_ERROR: u16 = 0x2;
/// The end of a dump.
pub(crate) const NLMSG_DONE: u16 = 0x3;
const HEADER: usize = 16;
/// The header of every message of netfilter: family, version, resource.
const FAMILY: usize = 4;
/// The kernel answers within this time.
const WITHIN: Duration = Duration::from_secs(30);
/// Attributes have 16-bit lengths; elements are split into lists below this size.
const MAX_LIST: usize = 48 * 1024;

/// Kinds of nf_tables messages (`enum nf_tables_msg_types`).
#[derive(Clone, Copy, Debug)]
#[repr(u16)]
#[allow(missing_docs)]
pub(crate) enum Kind {
    NewTable = 0,
    DelTable = 2,
    NewChain = 3,
    DelChain = 5,
    NewRule = 6,
    NewSet = 9,
    NewElement = 12,
    DelElement = 14,
}

/// A growing list of attributes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds raw bytes.
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let len = (value.len() + 4) as u16;
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a big-endian number, as nearly all of nf_tables' are.
    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds a string with its NUL.
    pub(crate) fn string(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Adds attributes inside one.
    pub(crate) fn nest(self, kind: u16, inner: Attributes) -> Self {
        self.nested(kind, &inner.0)
    }

    /// Adds attributes inside one, as they came from the kernel.
    pub(crate) fn nested(self, kind: u16, inner: &[u8]) -> Self {
        self.bytes(kind | NESTED, inner)
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A message without its attributes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    /// Subsystem and type.
    pub(crate) kind: u16,
    /// `NLM_F_*`, besides `NLM_F_REQUEST`.
    pub(crate) flags: u16,
    /// Answers carry the same.
    pub(crate) sequence: u32,
    /// `NFPROTO_*`.
    pub(crate) family: u8,
    /// Of the beginning and the end of a batch: its subsystem.
    pub(crate) resource: u16,
}

impl Header {
    /// Appends the whole message.
    pub(crate) fn write(self, attributes: &Attributes, to: &mut Vec<u8>) {
        let len = (HEADER + FAMILY + attributes.len()) as u32;
        to.extend_from_slice(&len.to_ne_bytes());
        to.extend_from_slice(&self.kind.to_ne_bytes());
        to.extend_from_slice(&(self.flags | NLM_F_REQUEST).to_ne_bytes());
        to.extend_from_slice(&self.sequence.to_ne_bytes());
        to.extend_from_slice(&[0; 4]);
        to.extend_from_slice(&[self.family, 0]);
        to.extend_from_slice(&self.resource.to_be_bytes());
        to.extend_from_slice(&attributes.0);
    }
}

/// A socket to netfilter that is kept from one exchange to the next: to close one waits until the kernel has freed what
/// the exchange took away (an RCU grace period, 10 ms and more). It belongs to the network namespace of its first use.
#[derive(Debug, Default)]
pub(crate) struct Channel(Option<Socket>);

impl Channel {
    /// Sends a request and reads its answer. After an error the next exchange has a new socket, with no answers left over.
    pub(crate) fn exchange<T>(&mut self, request: &[u8], read: impl FnOnce(&Socket) -> io::Result<T>) -> io::Result<T> {
        use rustix::net::sockopt;
        let socket = self.0.take().map_or_else(socket, Ok)?;
        sockopt::set_socket_send_buffer_size_force(&socket, request.len() + 4096)?;
        socket.send_to(request, &SocketAddr::new(0, 0), 0)?;
        let answer = read(&socket)?;
        self.0 = Some(socket);
        Ok(answer)
    }

    /// Sends a batch and waits for the kernel's verdict. On an error nothing was changed.
    pub(crate) fn commit(&mut self, batch: Batch) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let (bytes, acknowledged) = batch.finish();
        self.exchange(&bytes, |socket| receive_verdict(socket, acknowledged))
    }
}

fn socket() -> io::Result<Socket> {
    use rustix::net::sockopt::{self, Timeout};
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    sockopt::set_socket_recv_buffer_size_force(&socket, 1 << 20)?;
    sockopt::set_socket_timeout(&socket, Timeout::Recv, Some(WITHIN))?;
    socket.bind_auto()?;
    Ok(socket)
}

/// Messages that take effect together or not at all.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    family: u8,
    sequence: u32,
    last: usize,
}

impl Batch {
    /// An empty batch for tables of a family (`NFPROTO_IPV4`, ...).
    pub(crate) fn new(family: u8) -> Self {
        let mut batch = Self { bytes: Vec::new(), family, sequence: 0, last: 0 };
        batch.push(
            Header { kind: BATCH_BEGIN, flags: 0, sequence: 0, family: 0, resource: TABLES },
            &Attributes::default(),
        );
        batch
    }

    /// Whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.sequence == 1
    }

    /// Adds a message.
    pub(crate) fn message(&mut self, kind: Kind, flags: u16, attributes: &Attributes) {
        self.last = self.bytes.len();
        let kind = (TABLES << 8) | kind as u16;
        self.push(Header { kind, flags, sequence: self.sequence, family: self.family, resource: 0 }, attributes);
    }

    /// Adds set elements, in as many messages as their size needs.
    pub(crate) fn elements(&mut self, kind: Kind, table: &str, set: &str, elements: impl Iterator<Item = Attributes>) {
        let flags = if matches!(kind, Kind::NewElement) { NLM_F_CREATE } else { 0 };
        let mut list = Attributes::default();
        for element in elements {
            list = list.nest(1, element);
            if list.len() > MAX_LIST {
                self.message(kind, flags, &element_list(table, set, std::mem::take(&mut list)));
            }
        }
        if list.len() > 0 {
            self.message(kind, flags, &element_list(table, set, list));
        }
    }

    /// The whole request, and the sequence number of its acknowledgement.
    fn finish(mut self) -> (Vec<u8>, u32) {
        let acknowledged = self.sequence - 1;
        self.request_acknowledgement();
        let (sequence, family) = (self.sequence, 0);
        self.push(Header { kind: BATCH_END, flags: 0, sequence, family, resource: TABLES }, &Attributes::default());
        (self.bytes, acknowledged)
    }

    fn request_acknowledgement(&mut self) {
        if let Some(flags) = self.bytes.get_mut(self.last + 6..self.last + 8) {
            let with_ack = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
            flags.copy_from_slice(&with_ack.to_ne_bytes());
        }
    }

    fn push(&mut self, header: Header, attributes: &Attributes) {
        header.write(attributes, &mut self.bytes);
        self.sequence += 1;
    }
}

fn element_list(table: &str, set: &str, list: Attributes) -> Attributes {
    Attributes::default().string(1, table).string(2, set).nest(3, list)
}

/// Reads until the acknowledgement of `sequence`; the first error among the messages is the batch's.
pub(crate) fn receive_verdict(socket: &Socket, sequence: u32) -> io::Result<()> {
    let mut first = Ok(());
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        for message in messages(&bytes).filter(|message| message.kind == NLMSG_ERROR) {
            let code = message.code();
            if code != 0 && first.is_ok() {
                first = Err(io::Error::from_raw_os_error(-code));
            }
            if message.sequence == sequence || (code != 0 && message.sequence == 0) {
                return first;
            }
        }
    }
}

/// A message of the kernel's.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// Of an `NLMSG_ERROR`: 0, or the negative number of an error.
    pub(crate) fn code(&self) -> i32 {
        word(self.payload, 0).map_or(0, |code| code as i32)
    }

    /// Of any other: its attributes.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        attributes(self.payload.get(FAMILY..).unwrap_or_default())
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|w| w.try_into().ok()).map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|w| w.try_into().ok()).map(u16::from_ne_bytes)
}

/// The messages in a datagram.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let (len, kind, sequence) = (word(bytes, 0)? as usize, half(bytes, 4)?, word(bytes, 8)?);
        let payload = bytes.get(HEADER..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, sequence, payload })
    })
}

/// Attributes by their numbers.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (len, kind) = (half(bytes, 0)? as usize, half(bytes, 2)? & 0x3fff);
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let nested = Attributes::default().be32(1, 7).string(2, "a");
        let header = Header { kind: 5, flags: 0, sequence: 9, family: 2, resource: 0 };
        let mut bytes = Vec::new();
        header.write(&Attributes::default().bytes(3, &[1]).nest(4, nested), &mut bytes);
        header.write(&Attributes::default(), &mut bytes);
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!(all.iter().map(|m| (m.kind, m.sequence)).collect::<Vec<_>>(), [(5, 9), (5, 9)]);
        let mut parts = all[0].attributes();
        assert_eq!(parts.next(), Some((3, &[1][..])));
        let (kind, inner) = parts.next().unwrap();
        assert_eq!((kind, attributes(inner).map(|(kind, _)| kind).collect::<Vec<_>>()), (4, vec![1, 2]));
        assert!(parts.next().is_none());
    }

    #[test]
    fn what_is_cut_short_ends_the_list() {
        assert_eq!(messages(&[20, 0, 0, 0, 2]).count(), 0);
        assert_eq!(attributes(&[0, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[9, 0, 1, 0, 1]).count(), 0);
        assert_eq!(messages(&[0; 16]).count(), 0);
    }
}
