//! The framing of tar: headers, and what stands before one about the member that follows (GNU's long names, PAX records).
//!
//! Where readers of tar disagree, an archive can be made that shows each another tree. We read as Go's archive/tar does,
//! since what builds and checks images is written in Go: a PAX size counts before the header's (CVE-2025-62518), members
//! that are nothing but a header have no data whatever their size says, and a lone block of zeros ends nothing.

use std::io::{self, Read};

use tar::{EntryType, GnuExtSparseHeader, Header};

/// Bytes of one long name or of one member's PAX records; all of it is held in memory.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;
/// Pieces of one sparse file.
const MAX_PIECES: usize = 65_536;
const BLOCK: u64 = 512;

/// Where a number stands in a header, and what it is called (tar(5)).
type Place = (std::ops::Range<usize>, &'static str);
const MODE: Place = (100..108, "mode");
const UID: Place = (108..116, "uid");
const GID: Place = (116..124, "gid");
const SIZE: Place = (124..136, "size");
const MTIME: Place = (136..148, "mtime");
const CHECKSUM: Place = (148..156, "checksum");
const MAJOR: Place = (329..337, "devmajor");
const MINOR: Place = (337..345, "devminor");
const REAL_SIZE: Place = (483..495, "realsize");

/// The members of an archive, one after the other. Reading from it reads the current member's data.
pub(crate) struct Members<R> {
    stream: R,
    /// Bytes of the current member's data, and of what fills its last block, that were not read yet.
    left: u64,
    padding: u64,
}

/// One member. Text is bytes: tar knows no encoding.
pub(crate) struct Member {
    pub(crate) kind: EntryType,
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    /// Bytes of data that follow the header.
    pub(crate) size: u64,
    pub(crate) sparse: Option<Sparse>,
    header: Header,
    records: Vec<Record>,
}

/// A file with holes in GNU's old form: the data is its pieces, one after the other.
pub(crate) struct Sparse {
    /// Bytes of the file.
    pub(crate) size: u64,
    /// Offset and length of each piece, ascending.
    pub(crate) pieces: Vec<(u64, u64)>,
}

type Record = (Vec<u8>, Vec<u8>);

/// What came before a member's own header.
#[derive(Default)]
struct Before {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Vec<Record>,
}

impl<R: Read> Members<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self { stream, left: 0, padding: 0 }
    }

    /// The next member, or `None` after the last. What is left of the current one's data is skipped.
    pub(crate) fn next(&mut self) -> io::Result<Option<Member>> {
        let mut before = Before::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = field(&header, SIZE)?;
            match header.entry_type() {
                EntryType::GNULongName => before.path = Some(text(self.extension(size)?)),
                EntryType::GNULongLink => before.link = Some(text(self.extension(size)?)),
                EntryType::XHeader => before.records = records(&self.extension(size)?)?,
                // Of a whole archive they say nothing that a layer needs.
                EntryType::XGlobalHeader => self.expect_data(size),
                _ => return self.member(header, size, before).map(Some),
            }
        }
    }

    fn member(&mut self, header: Header, size: u64, before: Before) -> io::Result<Member> {
        let Before { path, link, records } = before;
        let record = |key: &str| find(&records, key).filter(|value| !value.is_empty()).map(<[u8]>::to_vec);
        if records.iter().any(|(key, _)| key.starts_with(b"GNU.sparse.")) {
            return Err(wrong("a sparse file in PAX form"));
        }
        let path = path.or_else(|| record("path")).unwrap_or_else(|| header.path_bytes().into_owned());
        let link = link.or_else(|| record("linkpath"));
        let link = link.or_else(|| header.link_name_bytes().map(|name| name.into_owned())).unwrap_or_default();
        let kind = match header.entry_type() {
            // Archives older than POSIX mark directories so.
            EntryType::Regular if header.as_bytes().get(156) == Some(&0) && path.ends_with(b"/") => {
                EntryType::Directory
            }
            kind => kind,
        };
        let size = match (has_data(kind), record("size")) {
            (false, _) => 0,
            (true, Some(size)) => number(&size).ok_or_else(|| wrong("a PAX size that is no number"))?,
            (true, None) => size,
        };
        let sparse = if kind == EntryType::GNUSparse { Some(self.sparse(&header, size)?) } else { None };
        self.expect_data(size);
        Ok(Member { kind, path, link, size, sparse, header, records })
    }

    fn expect_data(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
    }

    fn skip(&mut self) -> io::Result<()> {
        let rest = u128::from(self.left) + u128::from(self.padding);
        let rest = u64::try_from(rest).map_err(|_| wrong("a member larger than any disk"))?;
        (self.left, self.padding) = (0, 0);
        let skipped = io::copy(&mut (&mut self.stream).take(rest), &mut io::sink())?;
        if skipped < rest { Err(cut()) } else { Ok(()) }
    }

    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        if !self.block(header.as_mut_bytes())? {
            return Ok(None);
        }
        if is_zero(header.as_bytes()) {
            let mut second = [0; BLOCK as usize];
            return match self.block(&mut second)? && !is_zero(&second) {
                true => Err(wrong("a lone block of zeros")),
                false => Ok(None),
            };
        }
        let said = field(&header, CHECKSUM)?;
        let (unsigned, signed) = sums(header.as_bytes());
        if said != unsigned && i64::try_from(said) != Ok(signed) {
            return Err(wrong("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    /// Fills a block; false at the very end of the stream.
    fn block(&mut self, block: &mut [u8; BLOCK as usize]) -> io::Result<bool> {
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.stream.read(rest)? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(cut()),
                n => filled += n,
            }
        }
        Ok(true)
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENSION_BYTES {
            return Err(wrong("a name or PAX records of more than 1 MiB"));
        }
        self.expect_data(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < size { Err(cut()) } else { Ok(bytes) }
    }

    fn sparse(&mut self, header: &Header, size: u64) -> io::Result<Sparse> {
        let gnu = header.as_gnu().ok_or_else(|| wrong("a sparse file without GNU's header"))?;
        let mut pieces = Vec::new();
        let mut add = |all: &[tar::GnuSparseHeader]| {
            for one in all.iter().filter(|one| !one.is_empty()) {
                pieces.push((one.offset()?, one.length()?));
            }
            if pieces.len() > MAX_PIECES { Err(wrong("a sparse file of too many pieces")) } else { Ok(()) }
        };
        add(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = GnuExtSparseHeader::new();
            if !self.block(block.as_mut_bytes())? {
                return Err(cut());
            }
            add(&block.sparse)?;
            more = block.is_extended();
        }
        let sparse = Sparse { size: field(header, REAL_SIZE)?, pieces };
        if sparse.holds(size) { Ok(sparse) } else { Err(wrong("a sparse file whose pieces do not fit")) }
    }
}

impl<R: Read> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = (&mut self.stream).take(self.left).read(buffer)?;
        self.left -= n as u64;
        Ok(n)
    }
}

impl Member {
    /// Owner and group. `None` is an id that no file can have.
    pub(crate) fn owner(&self) -> io::Result<Option<(u32, u32)>> {
        let id = |key: &str, place: Place| match self.record(key) {
            Some(text) => Ok(number(text)),
            None => field(&self.header, place).map(Some),
        };
        let (uid, gid) = (id("uid", UID)?, id("gid", GID)?);
        let valid = |id: Option<u64>| id.and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX);
        Ok(valid(uid).zip(valid(gid)))
    }

    /// Permission bits.
    pub(crate) fn mode(&self) -> io::Result<u32> {
        Ok((field(&self.header, MODE)? & 0o7777) as u32)
    }

    /// Seconds and nanoseconds of the last change.
    pub(crate) fn modified(&self) -> io::Result<(i64, i64)> {
        let Some(text) = self.record("mtime").and_then(|value| std::str::from_utf8(value).ok()) else {
            return Ok((i64::try_from(field(&self.header, MTIME)?).unwrap_or(0), 0));
        };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let seconds: i64 = whole.parse().map_err(|_| wrong("a PAX mtime that is no number"))?;
        let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
        let nanoseconds = digits.map(|b| i64::from(b.wrapping_sub(b'0').min(9))).fold(0, |sum, digit| sum * 10 + digit);
        // The fraction of a time before 1970 counts downwards.
        Ok(if whole.starts_with('-') && nanoseconds > 0 {
            (seconds.saturating_sub(1), 1_000_000_000 - nanoseconds)
        } else {
            (seconds, nanoseconds)
        })
    }

    /// Major and minor number.
    pub(crate) fn device(&self) -> io::Result<(u32, u32)> {
        if self.header.as_ustar().is_none() && self.header.as_gnu().is_none() {
            return Ok((0, 0));
        }
        let part =
            |place: Place| u32::try_from(field(&self.header, place)?).map_err(|_| wrong("a device out of range"));
        Ok((part(MAJOR)?, part(MINOR)?))
    }

    /// PAX records whose keys begin so, without that beginning. The last of a key counts.
    pub(crate) fn records(&self, prefix: &str) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.records
            .iter()
            .filter_map(move |(key, value)| Some((key.strip_prefix(prefix.as_bytes())?, value.as_slice())))
    }

    fn record(&self, key: &str) -> Option<&[u8]> {
        find(&self.records, key).filter(|value| !value.is_empty())
    }
}

impl Sparse {
    fn holds(&self, data: u64) -> bool {
        let mut end = 0;
        for (offset, length) in &self.pieces {
            match offset.checked_add(*length) {
                Some(next) if *offset >= end && next <= self.size => end = next,
                _ => return false,
            }
        }
        self.pieces.iter().map(|(_, length)| length).sum::<u64>() == data
    }
}

fn has_data(kind: EntryType) -> bool {
    use EntryType::{Block, Char, Directory, Fifo, Link, Symlink};
    !matches!(kind, Link | Symlink | Char | Block | Directory | Fifo)
}

/// A number of a header: octal digits between blanks and NULs, nothing of them for 0, or GNU's base 256.
fn field(header: &Header, (place, name): Place) -> io::Result<u64> {
    let bytes = header.as_bytes().get(place).unwrap_or_default();
    let parsed = match bytes.split_first() {
        // A set bit 6 is a negative number.
        Some((first, rest)) if first & 0x80 != 0 => {
            rest.iter().try_fold(u64::from(first & 0x7f), |sum, b| (sum >> 56 == 0).then_some(sum << 8 | u64::from(*b)))
        }
        _ => octal(bytes),
    };
    parsed.ok_or_else(|| wrong(&format!("the {name} of a header is no number")))
}

fn octal(bytes: &[u8]) -> Option<u64> {
    let blank = |b: &u8| matches!(b, 0 | b' ');
    let start = bytes.iter().position(|b| !blank(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| !blank(b)).map_or(start, |at| at + 1);
    let digits = bytes.get(start..end)?;
    let digit = |b: &u8| matches!(b, b'0'..=b'7').then(|| u64::from(b - b'0'));
    digits.iter().try_fold(0u64, |sum, b| sum.checked_mul(8)?.checked_add(digit(b)?))
}

/// `LENGTH KEY=VALUE\n`, the length counting all of it (pax(1), pax Header Block).
fn records(mut bytes: &[u8]) -> io::Result<Vec<Record>> {
    let bad = || wrong("bad PAX records");
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(20).position(|b| *b == b' ').ok_or_else(bad)?;
        let length = bytes.get(..space).and_then(number).and_then(|n| usize::try_from(n).ok()).ok_or_else(bad)?;
        let record = bytes.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(bad)?;
        let equals = record.iter().position(|b| *b == b'=').filter(|at| *at > 0).ok_or_else(bad)?;
        let (key, value) = record.split_at(equals);
        all.push((key.to_vec(), value.get(1..).unwrap_or_default().to_vec()));
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(all)
}

fn find<'a>(records: &'a [Record], key: &str) -> Option<&'a [u8]> {
    records.iter().rev().find(|(found, _)| found == key.as_bytes()).map(|(_, value)| value.as_slice())
}

/// Decimal digits and nothing else.
fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// A long name ends at its first NUL.
fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|b| *b == 0)
}

/// The sum of a header's bytes, its checksum counted as spaces; once as unsigned, once as signed bytes as old ones do.
fn sums(header: &[u8; BLOCK as usize]) -> (u64, i64) {
    let counted = header.iter().enumerate().map(|(at, b)| if (148..156).contains(&at) { b' ' } else { *b });
    counted.fold((0, 0), |(unsigned, signed), b| (unsigned + u64::from(b), signed + i64::from(b.cast_signed())))
}

fn cut() -> io::Error {
    wrong("it ends in the middle of a member")
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
