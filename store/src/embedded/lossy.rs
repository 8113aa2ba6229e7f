//! A disk that loses what real ones lose: for tests and the simulator.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::Disk;

/// What is lost together when a write is torn across sectors.
const SECTOR: usize = 512;

/// A disk in memory whose power can be cut. Clones are handles on the same disk.
#[derive(Clone, Default)]
pub struct Lossy {
    inner: Arc<Mutex<Inner>>,
}

type Names = BTreeMap<String, u64>;

#[derive(Default)]
struct Inner {
    /// By name, as the running system sees it.
    names: Names,
    /// As they were at the last sync of names, and after each change since: a power cut leaves one of these.
    names_since_sync: Vec<Names>,
    files: BTreeMap<u64, Contents>,
    next_file: u64,
    /// All bytes ever written.
    written: u64,
    /// The power fails when so many bytes were written.
    fuse: Option<u64>,
    off: bool,
    capacity: Option<u64>,
}

#[derive(Clone, Default)]
struct Contents {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    /// Written since the last sync: where and how much.
    pending: Vec<(usize, usize)>,
}

/// What becomes of bytes that were written, and names that were changed, and not synced when the power fails.
#[derive(Clone, Copy, Debug)]
pub enum Unsynced {
    /// All of them reached the disk in time.
    Kept,
    /// None did.
    Lost,
    /// Each sector is kept or lost by the next bit of this number, round and round; of the names' changes it keeps some
    /// of the first.
    Torn(u64),
}

fn power_off() -> io::Error {
    io::Error::other("the power is off")
}

impl Lossy {
    /// How many bytes were written so far.
    pub fn written(&self) -> u64 {
        self.inner.lock().written
    }

    /// Lets the power fail in the middle of the write that reaches `bytes` written bytes.
    pub fn fuse(&self, bytes: u64) {
        self.inner.lock().fuse = Some(bytes);
    }

    /// Lets no more than `bytes` be allocated; nothing is the end of all limits.
    pub fn capacity(&self, bytes: Option<u64>) {
        self.inner.lock().capacity = bytes;
    }

    /// The sum of all files' lengths.
    pub fn used(&self) -> u64 {
        self.inner.lock().used()
    }

    /// Whether the power has failed.
    pub fn is_off(&self) -> bool {
        self.inner.lock().off
    }

    /// Another disk that holds what a power cut at this moment leaves.
    pub fn after_power_cut(&self, unsynced: Unsynced) -> Self {
        let inner = self.inner.lock();
        let names = inner.surviving_names(unsynced);
        let survive = |file: &Contents| {
            let bytes = file.survivors(unsynced);
            Contents { durable: bytes.clone(), bytes, pending: Vec::new() }
        };
        let files = inner.files.iter().map(|(id, file)| (*id, survive(file))).collect();
        let next_file = inner.next_file;
        let names_since_sync = vec![names.clone()];
        let after = Inner { names, names_since_sync, files, next_file, ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(after)) }
    }

    /// Cuts a file short behind everyone's back.
    pub fn shorten(&self, name: &str, len: usize) {
        if let Ok(file) = self.inner.lock().file(name) {
            file.bytes.truncate(len);
            file.durable.clone_from(&file.bytes);
        }
    }

    /// Changes a byte behind everyone's back.
    pub fn damage(&self, name: &str, offset: usize, change: impl FnOnce(u8) -> u8) {
        let mut inner = self.inner.lock();
        if let Ok(file) = inner.file(name)
            && let Some(byte) = file.bytes.get_mut(offset)
        {
            *byte = change(*byte);
            file.durable.clone_from(&file.bytes);
        }
    }
}

impl Contents {
    fn survivors(&self, unsynced: Unsynced) -> Vec<u8> {
        match unsynced {
            Unsynced::Kept => self.bytes.clone(),
            Unsynced::Lost => self.durable.clone(),
            Unsynced::Torn(bits) => {
                let mut bytes = self.durable.clone();
                bytes.resize(self.bytes.len().max(bytes.len()), 0);
                let sectors = self.pending.iter().flat_map(|(at, len)| at / SECTOR..(at + len).div_ceil(SECTOR));
                for (i, sector) in sectors.enumerate() {
                    let range = sector * SECTOR..((sector + 1) * SECTOR).min(self.bytes.len());
                    if bits.rotate_right(i as u32) & 1 == 1
                        && let (Some(to), Some(from)) = (bytes.get_mut(range.clone()), self.bytes.get(range))
                    {
                        to.copy_from_slice(from);
                    }
                }
                bytes
            }
        }
    }
}

impl Inner {
    fn used(&self) -> u64 {
        self.names.values().filter_map(|id| self.files.get(id)).map(|f| f.bytes.len() as u64).sum()
    }

    fn surviving_names(&self, unsynced: Unsynced) -> Names {
        let states = &self.names_since_sync;
        let at = match unsynced {
            Unsynced::Kept => states.len().saturating_sub(1),
            Unsynced::Lost => 0,
            Unsynced::Torn(bits) => bits.checked_rem(states.len() as u64).unwrap_or(0) as usize,
        };
        states.get(at).cloned().unwrap_or_default()
    }

    fn names_changed(&mut self) {
        if self.names_since_sync.is_empty() {
            self.names_since_sync.push(Names::new());
        }
        self.names_since_sync.push(self.names.clone());
    }

    fn powered(&mut self) -> io::Result<&mut Self> {
        if self.off { Err(power_off()) } else { Ok(self) }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut Contents> {
        let id = self.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        self.files.get_mut(id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file_or_new(&mut self, name: &str) -> io::Result<&mut Contents> {
        if !self.names.contains_key(name) {
            self.names.insert(name.to_owned(), self.next_file);
            self.files.insert(self.next_file, Contents::default());
            self.next_file += 1;
            self.names_changed();
        }
        self.file(name)
    }

    fn grow(&mut self, name: &str, len: usize) -> io::Result<()> {
        let (used, capacity) = (self.used(), self.capacity);
        let file = self.file_or_new(name)?;
        let more = len.saturating_sub(file.bytes.len());
        if more > 0 && capacity.is_some_and(|c| used + more as u64 > c) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if more > 0 {
            file.bytes.resize(len, 0);
        }
        Ok(())
    }
}

impl Disk for Lossy {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.inner.lock().powered()?.names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.inner.lock().powered()?.file(name)?.bytes.clone())
    }

    fn allocate(&self, name: &str, len: u64) -> io::Result<()> {
        self.inner.lock().powered()?.grow(name, len as usize)
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.powered()?;
        let room = inner.fuse.map_or(bytes.len(), |fuse| fuse.saturating_sub(inner.written) as usize);
        let part = bytes.get(..room).unwrap_or(bytes);
        let offset = offset as usize;
        inner.grow(name, offset + part.len())?;
        let file = inner.file(name)?;
        if let Some(to) = file.bytes.get_mut(offset..offset + part.len()) {
            to.copy_from_slice(part);
        }
        file.pending.push((offset, part.len()));
        inner.written += part.len() as u64;
        inner.off = part.len() < bytes.len();
        inner.powered().map(|_| ())
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let file = inner.powered()?.file(name)?;
        file.durable.clone_from(&file.bytes);
        file.pending.clear();
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner.lock();
        let id = inner.powered()?.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        inner.names.insert(to.to_owned(), id);
        inner.names_changed();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.powered()?.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        inner.names_changed();
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.powered()?;
        inner.names_since_sync = vec![inner.names.clone()];
        Ok(())
    }
}
