//! A client of the system bus (D-Bus Specification, Message Protocol and Authentication Protocol), as small as calls to
//! systemd and the ends of its jobs want it. By hand: of the crates zbus runs an executor with threads, its zvariant is no
//! longer kept by itself, rustbus brings old versions of what we have, and dbus wants libdbus.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::wire::{Reader, Value, pad, signature_of};

/// How long an answer, or the end of a job, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// A message that is longer, or a line of the authentication, is refused.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
const MAX_LINE_BYTES: usize = 1024;
/// Signals that are kept until somebody asks for them.
const MAX_SIGNALS: usize = 1024;

const CALL: u8 = 1;
const ANSWER: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Fields of a message's head.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const ANSWER_TO: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// The bus is not there, or does not speak as it should.
    Bus(io::Error),
    /// Whoever was called says no: the error's name, and its text.
    Refused { name: String, text: String },
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Bus(error)
    }
}

/// Whom to call, and what for.
#[derive(Clone, Copy)]
pub(super) struct Method<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
}

const BUS: Method<'_> = Method {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "Hello",
};

/// A connection.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    signals: VecDeque<Message>,
}

/// What is known of a message.
#[derive(Debug)]
struct Message {
    kind: u8,
    fields: Vec<(u8, Value)>,
    body: Vec<u8>,
}

impl Message {
    fn field(&self, wanted: u8) -> Option<&Value> {
        self.fields.iter().find(|(code, _)| *code == wanted).map(|(_, value)| value)
    }

    fn text(&self, wanted: u8) -> &str {
        self.field(wanted).and_then(Value::as_str).unwrap_or_default()
    }

    fn values(&self) -> io::Result<Vec<Value>> {
        let signature = match self.field(SIGNATURE) {
            Some(Value::Signature(signature)) => signature,
            _ => return Ok(Vec::new()),
        };
        Reader::new(&self.body).values(signature).ok_or_else(|| garbled("a body"))
    }
}

fn garbled(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the bus sends {what} that cannot be read"))
}

impl Bus {
    /// Connects as the user that we are.
    pub(super) fn connect(path: &Path) -> Result<Self, Failure> {
        Self::over(UnixStream::connect(path)?)
    }

    fn over(stream: UnixStream) -> Result<Self, Failure> {
        let mut bus = Self { stream, serial: 0, signals: VecDeque::new() };
        bus.authenticate()?;
        bus.call(BUS, &[])?;
        Ok(bus)
    }

    /// The mechanism EXTERNAL: the kernel tells the bus who we are.
    fn authenticate(&mut self) -> io::Result<()> {
        self.stream.set_write_timeout(Some(PATIENCE))?;
        self.stream.set_read_timeout(Some(PATIENCE))?;
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.extend(byte);
            if line.len() > MAX_LINE_BYTES {
                return Err(garbled("a line"));
            }
        }
        if !line.starts_with(b"OK ") {
            let said = String::from_utf8_lossy(&line).trim().to_owned();
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("the bus does not let us in: {said}")));
        }
        self.stream.write_all(b"BEGIN\r\n")
    }

    /// Asks for signals.
    pub(super) fn listen(&mut self, rule: &str) -> Result<(), Failure> {
        self.call(Method { member: "AddMatch", ..BUS }, &[Value::text(rule)]).map(|_| ())
    }

    /// Calls and waits for the answer.
    pub(super) fn call(&mut self, method: Method<'_>, body: &[Value]) -> Result<Vec<Value>, Failure> {
        self.serial += 1;
        let message = encode(method, self.serial, body);
        self.stream.write_all(&message)?;
        let until = Instant::now() + PATIENCE;
        loop {
            let message = self.receive(until)?;
            let ours = message.field(ANSWER_TO) == Some(&Value::U32(self.serial));
            match message.kind {
                ANSWER if ours => return Ok(message.values()?),
                ERROR if ours => {
                    let text = message.values()?.first().and_then(Value::as_str).unwrap_or_default().to_owned();
                    return Err(Failure::Refused { name: message.text(ERROR_NAME).to_owned(), text });
                }
                SIGNAL if self.signals.len() < MAX_SIGNALS => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    /// Waits for the first signal with this name in whose values something is found.
    pub(super) fn signal<T>(
        &mut self,
        member: &str,
        mut find: impl FnMut(&[Value]) -> Option<T>,
    ) -> Result<T, Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.receive(until)?,
            };
            if message.kind == SIGNAL
                && message.text(MEMBER) == member
                && let Some(found) = find(&message.values()?)
            {
                return Ok(found);
            }
        }
    }

    fn receive(&mut self, until: Instant) -> io::Result<Message> {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left))?;
        let mut head = [0; 16];
        self.stream.read_exact(&mut head)?;
        let number = |at: usize| {
            let bytes = head.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
            u32::from_le_bytes(bytes) as usize
        };
        let (body_bytes, field_bytes) = (number(4), number(12));
        // Its order of bytes is that of whoever sent it: this host's.
        if head[0] != b'l' || body_bytes > MAX_MESSAGE_BYTES || field_bytes > MAX_MESSAGE_BYTES {
            return Err(garbled("a message"));
        }
        let mut rest = vec![0; field_bytes.next_multiple_of(8) + body_bytes];
        self.stream.read_exact(&mut rest)?;
        let body = rest.split_off(field_bytes.next_multiple_of(8));
        let head: Vec<u8> = head.into_iter().chain(rest).collect();
        let fields = Reader::new(&head).values("yyyyuua(yv)").ok_or_else(|| garbled("a head"))?;
        Ok(Message { kind: head.get(1).copied().unwrap_or_default(), fields: coded(fields), body })
    }
}

/// The fields at the end of a head, by code.
fn coded(mut head: Vec<Value>) -> Vec<(u8, Value)> {
    let Some(Value::Array(_, fields)) = head.pop() else { return Vec::new() };
    let field = |field: Value| match field {
        Value::Struct(parts) => match <[Value; 2]>::try_from(parts).ok()? {
            [Value::Byte(code), Value::Variant(value)] => Some((code, *value)),
            _ => None,
        },
        _ => None,
    };
    fields.into_iter().filter_map(field).collect()
}

/// The bytes of a call.
fn encode(method: Method<'_>, serial: u32, body: &[Value]) -> Vec<u8> {
    let mut content = Vec::new();
    body.iter().for_each(|value| value.write(&mut content));
    let field = |code, value: Value| Value::Struct(vec![Value::Byte(code), value.variant()]);
    let fields = vec![
        field(PATH, Value::Path(method.path.to_owned())),
        field(INTERFACE, Value::text(method.interface)),
        field(MEMBER, Value::text(method.member)),
        field(DESTINATION, Value::text(method.destination)),
        field(SIGNATURE, Value::Signature(signature_of(body))),
    ];
    let mut message = vec![b'l', CALL, 0, 1];
    for value in [Value::U32(content.len() as u32), Value::U32(serial), Value::Array("(yv)".to_owned(), fields)] {
        value.write(&mut message);
    }
    pad(&mut message, 8);
    message.extend(content);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of a bus, with its kind and what it is an answer to.
    fn said(kind: u8, fields: Vec<(u8, Value)>, body: &[Value]) -> Vec<u8> {
        let mut content = Vec::new();
        body.iter().for_each(|value| value.write(&mut content));
        let signature = (SIGNATURE, Value::Signature(signature_of(body)));
        let field = |(code, value): (u8, Value)| Value::Struct(vec![Value::Byte(code), value.variant()]);
        let fields = fields.into_iter().chain([signature]).map(field).collect();
        let mut message = vec![b'l', kind, 0, 1];
        for value in [Value::U32(content.len() as u32), Value::U32(9), Value::Array("(yv)".to_owned(), fields)] {
            value.write(&mut message);
        }
        pad(&mut message, 8);
        [message, content].concat()
    }

    /// A bus that says all that it will ever say at once.
    fn bus(messages: &[Vec<u8>]) -> Result<Bus, Failure> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"OK 1234\r\n").unwrap();
        theirs.write_all(&said(ANSWER, vec![(ANSWER_TO, Value::U32(1))], &[Value::text(":1.7")])).unwrap();
        messages.iter().for_each(|message| theirs.write_all(message).unwrap());
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let bus = Bus::over(ours)?;
        // It stays there to be written to.
        std::mem::forget(theirs);
        Ok(bus)
    }

    #[test]
    fn answers_signals_and_refusals_are_told_apart() {
        let removed = |job: &str| {
            let body = [Value::U32(1), Value::Path(job.to_owned()), Value::text("x.scope"), Value::text("done")];
            said(SIGNAL, vec![(MEMBER, Value::text("JobRemoved"))], &body)
        };
        let job = Value::Path("/job/2".to_owned());
        let refused = vec![(ANSWER_TO, Value::U32(3)), (ERROR_NAME, Value::text("org.x.No"))];
        let mut bus = bus(&[
            removed("/job/1"),
            said(ANSWER, vec![(ANSWER_TO, Value::U32(99))], &[]),
            removed("/job/2"),
            said(ANSWER, vec![(ANSWER_TO, Value::U32(2))], std::slice::from_ref(&job)),
            said(ERROR, refused, &[Value::text("not now")]),
        ])
        .unwrap();
        assert_eq!(bus.call(BUS, &[Value::text("x")]).unwrap(), [job]);
        let find = |values: &[Value]| (values.get(1)?.as_str()? == "/job/2").then(|| values.get(3).cloned());
        assert_eq!(bus.signal("JobRemoved", find).unwrap(), Some(Value::text("done")));
        let Err(Failure::Refused { name, text }) = bus.call(BUS, &[]) else { panic!("answered") };
        assert_eq!((name.as_str(), text.as_str()), ("org.x.No", "not now"));
        // The bus has gone.
        assert!(matches!(bus.call(BUS, &[]), Err(Failure::Bus(_))));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let mut long = said(ANSWER, vec![(ANSWER_TO, Value::U32(2))], &[]);
        long.splice(4..8, u32::MAX.to_le_bytes());
        let mut other_order = said(ANSWER, vec![], &[]);
        other_order[0] = b'B';
        let mut cut = said(ANSWER, vec![(ANSWER_TO, Value::U32(2))], &[Value::text("some words")]);
        cut.truncate(cut.len() - 3);
        for message in [long, other_order, cut, vec![0; 16]] {
            assert!(matches!(bus(&[message]).unwrap().call(BUS, &[]), Err(Failure::Bus(_))));
        }
    }
}
