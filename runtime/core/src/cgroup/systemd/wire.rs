//! Values of D-Bus and how they lie in a message (D-Bus Specification, Type System and Marshaling), little-endian.

/// Values in values that are read.
const MAX_DEPTH: usize = 16;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    String(String),
    Path(String),
    Signature(String),
    /// The signature of its elements, and these.
    Array(String, Vec<Self>),
    Struct(Vec<Self>),
    Variant(Box<Self>),
}

impl Value {
    pub(super) fn text(text: &str) -> Self {
        Self::String(text.to_owned())
    }

    pub(super) fn variant(self) -> Self {
        Self::Variant(Box::new(self))
    }

    /// What a string or a path says.
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::Path(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn signature(&self) -> String {
        let code = match self {
            Self::Byte(_) => "y",
            Self::Bool(_) => "b",
            Self::I16(_) => "n",
            Self::U16(_) => "q",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::Double(_) => "d",
            Self::String(_) => "s",
            Self::Path(_) => "o",
            Self::Signature(_) => "g",
            Self::Variant(_) => "v",
            Self::Array(element, _) => return format!("a{element}"),
            Self::Struct(fields) => return format!("({})", signature_of(fields)),
        };
        code.to_owned()
    }

    /// Adds it to a message, or to a body that begins at a multiple of eight.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Byte(n) => out.push(*n),
            Self::Bool(yes) => number(out, &u32::from(*yes).to_le_bytes()),
            Self::I16(n) => number(out, &n.to_le_bytes()),
            Self::U16(n) => number(out, &n.to_le_bytes()),
            Self::I32(n) => number(out, &n.to_le_bytes()),
            Self::U32(n) => number(out, &n.to_le_bytes()),
            Self::I64(n) => number(out, &n.to_le_bytes()),
            Self::U64(n) => number(out, &n.to_le_bytes()),
            Self::Double(n) => number(out, &n.to_le_bytes()),
            Self::String(text) | Self::Path(text) => {
                number(out, &(text.len() as u32).to_le_bytes());
                out.extend(text.bytes().chain([0]));
            }
            Self::Signature(text) => {
                out.push(text.len() as u8);
                out.extend(text.bytes().chain([0]));
            }
            Self::Variant(value) => {
                Self::Signature(value.signature()).write(out);
                value.write(out);
            }
            Self::Struct(fields) => {
                pad(out, 8);
                fields.iter().for_each(|field| field.write(out));
            }
            Self::Array(element, values) => {
                number(out, &[0; 4]);
                let length_at = out.len() - 4;
                pad(out, alignment(element.as_bytes()));
                let start = out.len();
                values.iter().for_each(|value| value.write(out));
                let length = (out.len() - start) as u32;
                out.splice(length_at..length_at + 4, length.to_le_bytes());
            }
        }
    }
}

/// The signature of some values behind each other.
pub(super) fn signature_of(values: &[Value]) -> String {
    values.iter().map(Value::signature).collect()
}

/// A number lies at a multiple of its size.
fn number(out: &mut Vec<u8>, bytes: &[u8]) {
    pad(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Goes on at a multiple.
pub(super) fn pad(out: &mut Vec<u8>, multiple: usize) {
    out.resize(out.len().next_multiple_of(multiple), 0);
}

/// Where values with this signature may begin.
fn alignment(signature: &[u8]) -> usize {
    match signature.first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

/// Reads values that lie in a message. `None` where they do not.
pub(super) struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// The values that a signature names.
    pub(super) fn values(&mut self, signature: &str) -> Option<Vec<Value>> {
        let mut left = signature.as_bytes();
        self.all(&mut left, 0)
    }

    fn all(&mut self, signature: &mut &[u8], depth: usize) -> Option<Vec<Value>> {
        let mut values = Vec::new();
        while signature.first().is_some_and(|code| *code != b')') {
            values.push(self.value(signature, depth)?);
        }
        Some(values)
    }

    /// Takes the first type off a signature, and reads a value of it. Of dictionaries entries are read as structures.
    fn value(&mut self, signature: &mut &[u8], depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        let (code, rest) = signature.split_first()?;
        self.at = self.at.next_multiple_of(alignment(signature));
        *signature = rest;
        Some(match code {
            b'y' => Value::Byte(self.bytes::<1>()?[0]),
            b'b' => Value::Bool(u32::from_le_bytes(self.bytes()?) != 0),
            b'n' => Value::I16(i16::from_le_bytes(self.bytes()?)),
            b'q' => Value::U16(u16::from_le_bytes(self.bytes()?)),
            b'i' => Value::I32(i32::from_le_bytes(self.bytes()?)),
            b'u' => Value::U32(u32::from_le_bytes(self.bytes()?)),
            b'x' => Value::I64(i64::from_le_bytes(self.bytes()?)),
            b't' => Value::U64(u64::from_le_bytes(self.bytes()?)),
            b'd' => Value::Double(f64::from_le_bytes(self.bytes()?)),
            b's' => Value::String(self.long_text()?),
            b'o' => Value::Path(self.long_text()?),
            b'g' => Value::Signature(self.short_text()?),
            b'v' => {
                let inner = self.short_text()?;
                Value::Variant(Box::new(self.value(&mut inner.as_bytes(), depth + 1)?))
            }
            b'(' => {
                let fields = self.all(signature, depth + 1)?;
                *signature = signature.strip_prefix(b")")?;
                Value::Struct(fields)
            }
            b'a' => self.array(signature, depth + 1)?,
            _ => return None,
        })
    }

    fn array(&mut self, signature: &mut &[u8], depth: usize) -> Option<Value> {
        let length = u32::from_le_bytes(self.bytes()?) as usize;
        let element = single(signature)?;
        *signature = signature.get(element.len()..)?;
        self.at = self.at.next_multiple_of(alignment(element));
        let end = self.at.checked_add(length).filter(|end| *end <= self.data.len())?;
        let mut values = Vec::new();
        while self.at < end {
            let before = self.at;
            values.push(self.value(&mut { element }, depth)?);
            // What takes no room would never end.
            (self.at > before).then_some(())?;
        }
        Some(Value::Array(String::from_utf8(element.to_vec()).ok()?, values))
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.data.get(self.at..)?.first_chunk()?;
        self.at += N;
        Some(*bytes)
    }

    fn long_text(&mut self) -> Option<String> {
        let length = u32::from_le_bytes(self.bytes()?) as usize;
        self.text(length)
    }

    fn short_text(&mut self) -> Option<String> {
        let length = usize::from(self.bytes::<1>()?[0]);
        self.text(length)
    }

    /// Text of a length, with a zero behind it.
    fn text(&mut self, length: usize) -> Option<String> {
        let text = self.data.get(self.at..)?.get(..length)?;
        self.at += length + 1;
        String::from_utf8(text.to_vec()).ok()
    }
}

/// The first complete type of a signature.
fn single(signature: &[u8]) -> Option<&[u8]> {
    let length = match signature.first()? {
        b'a' => 1 + single(signature.get(1..)?)?.len(),
        b'(' => {
            let mut at = 1;
            while *signature.get(at)? != b')' {
                at += single(signature.get(at..)?)?.len();
            }
            at + 1
        }
        _ => 1,
    };
    signature.get(..length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_where_they_should() {
        let mut out = Vec::new();
        let property = Value::Struct(vec![Value::text("TasksMax"), Value::U64(7).variant()]);
        Value::Array("(sv)".to_owned(), vec![property]).write(&mut out);
        assert_eq!(out, b"\x18\0\0\0\0\0\0\0\x08\0\0\0TasksMax\0\x01t\0\x07\0\0\0\0\0\0\0");
    }

    #[test]
    fn what_is_written_can_be_read() {
        let values = vec![
            Value::Byte(1),
            Value::U64(u64::MAX),
            Value::Bool(true),
            Value::I16(-2),
            Value::text("x"),
            Value::Array("u".to_owned(), vec![Value::U32(5), Value::U32(6)]),
            Value::Array("(sv)".to_owned(), vec![]),
            Value::Struct(vec![Value::Path("/a".to_owned()), Value::Double(0.5).variant(), Value::Byte(9)]),
            Value::Array("ay".to_owned(), vec![Value::Array("y".to_owned(), vec![Value::Byte(3)])]).variant(),
        ];
        let signature = signature_of(&values);
        assert_eq!(signature, "ytbnsaua(sv)(ovy)v");
        let mut out = Vec::new();
        values.iter().for_each(|value| value.write(&mut out));
        assert_eq!(Reader::new(&out).values(&signature), Some(values));
        // What is cut short is nothing.
        for length in 0..out.len() {
            assert_eq!(Reader::new(&out[..length]).values(&signature), None, "{length}");
        }
        for bad in ["a", "(u", "z", "a()"] {
            assert_eq!(Reader::new(&[1; 64]).values(bad), None, "{bad}");
        }
    }
}
