//! nfnetlink messages: attributes, batches, and one synchronous exchange with the kernel.

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const NESTED: u16 = 0x8000;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
/// Create if absent.
pub(crate) const NLM_F_CREATE: u16 = 0x400;
/// Append (rules).
pub(crate) const NLM_F_APPEND: u16 = 0x800;
const NLMSG_ERROR: u16 = 0x2;
const HEADER: usize = 16;
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
    NewRule = 6,
    NewSet = 9,
    NewElement = 12,
    DelElement = 14,
}

/// A growing list of attributes.
#[derive(Clone, Debug, Default)]
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
        self.bytes(kind | NESTED, &inner.0)
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
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
        batch.push(BATCH_BEGIN, 0, 0, SUBSYSTEM, &Attributes::default());
        batch
    }

    /// Whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.sequence == 1
    }

    /// Adds a message.
    pub(crate) fn message(&mut self, kind: Kind, flags: u16, attributes: &Attributes) {
        self.last = self.bytes.len();
        self.push((SUBSYSTEM << 8) | kind as u16, flags, self.family, 0, attributes);
    }

    /// Adds set elements, in as many messages as their size needs.
    pub(crate) fn elements(&mut self, kind: Kind, table: &str, set: &str, elements: &[Attributes]) {
        let flags = if matches!(kind, Kind::NewElement) { NLM_F_CREATE } else { 0 };
        let mut list = Attributes::default();
        for element in elements {
            list = list.nest(1, element.clone());
            if list.len() > MAX_LIST {
                self.message(kind, flags, &element_list(table, set, std::mem::take(&mut list)));
            }
        }
        if list.len() > 0 {
            self.message(kind, flags, &element_list(table, set, list));
        }
    }

    /// Sends the batch and waits for the kernel's verdict. On an error nothing was changed.
    pub(crate) fn commit(mut self) -> io::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let acknowledged = self.sequence - 1;
        self.request_acknowledgement();
        self.push(BATCH_END, 0, 0, SUBSYSTEM, &Attributes::default());
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        rustix::net::sockopt::set_socket_send_buffer_size_force(&socket, self.bytes.len() + 4096)?;
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 1 << 20)?;
        let timeout = Some(std::time::Duration::from_secs(30));
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, timeout)?;
        socket.bind_auto()?;
        socket.send_to(&self.bytes, &SocketAddr::new(0, 0), 0)?;
        receive_verdict(&socket, acknowledged)
    }

    fn request_acknowledgement(&mut self) {
        if let Some(flags) = self.bytes.get_mut(self.last + 6..self.last + 8) {
            let with_ack = u16::from_ne_bytes([flags[0], flags[1]]) | NLM_F_ACK;
            flags.copy_from_slice(&with_ack.to_ne_bytes());
        }
    }

    fn push(&mut self, kind: u16, flags: u16, family: u8, resource: u16, attributes: &Attributes) {
        let len = (HEADER + 4 + attributes.len()) as u32;
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        self.bytes.extend_from_slice(&attributes.0);
        self.sequence += 1;
    }
}

fn element_list(table: &str, set: &str, list: Attributes) -> Attributes {
    Attributes::default().string(1, table).string(2, set).nest(3, list)
}

/// Reads until the acknowledgement of `sequence`; the first error among the messages is the batch's.
fn receive_verdict(socket: &Socket, sequence: u32) -> io::Result<()> {
    let mut first = Ok(());
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        for (of, code) in verdicts(&bytes) {
            if code != 0 && first.is_ok() {
                first = Err(io::Error::from_raw_os_error(-code));
            }
            if of == sequence || (code != 0 && of == 0) {
                return first;
            }
        }
    }
}

/// The (sequence, error) pairs in a datagram of NLMSG_ERROR messages.
fn verdicts(mut bytes: &[u8]) -> Vec<(u32, i32)> {
    let word = |b: &[u8], at: usize| b.get(at..at + 4).and_then(|w| w.try_into().ok()).map(u32::from_ne_bytes);
    let mut found = Vec::new();
    while let (Some(len), Some(sequence), Some(code)) = (word(bytes, 0), word(bytes, 8), word(bytes, 16)) {
        let kind = bytes.get(4..6).map_or(0, |k| u16::from_ne_bytes([k[0], k[1]]));
        if kind == NLMSG_ERROR {
            found.push((sequence, code as i32));
        }
        let step = (len as usize).next_multiple_of(4).max(HEADER);
        bytes = bytes.get(step..).unwrap_or_default();
    }
    found
}
