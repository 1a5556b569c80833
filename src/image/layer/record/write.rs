//! Writing a layer record.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::error::RecordError;
use super::format::{FIRST_SET, MAGIC, NEW_SET, NO_SET, VERSION};
use super::sets::RecentSets;
use super::tag;
use crate::image::entry::{EntryKind, LayerEntry, Meta, Xattr};

/// Bytes gathered before they are hashed and written.
const BUFFER: usize = 64 << 10;

/// Writes a layer record to a file or any other sink. It buffers, so the sink needs no buffer.
pub struct RecordWriter<W> {
    sink: W,
    buffer: Vec<u8>,
    hash: Sha256,
    /// The path of the last entry.
    previous: Vec<u8>,
    recent: RecentSets,
    /// The numbers of the recent sets.
    numbers: HashMap<Arc<[Xattr]>, usize>,
    count: u64,
    /// Bytes that have left the buffer.
    flushed: u64,
    /// Bytes that were not written because a set stands in the record already.
    shared: u64,
}

impl<W> std::fmt::Debug for RecordWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecordWriter({} entries)", self.count)
    }
}

impl<W: Write> RecordWriter<W> {
    /// Starts a record.
    pub fn new(sink: W) -> Self {
        // Room for one entry beyond the mark at which `push` flushes.
        let mut buffer = Vec::with_capacity(BUFFER + 4096);
        buffer.extend_from_slice(&MAGIC);
        buffer.push(VERSION);
        Self {
            sink,
            buffer,
            hash: Sha256::new(),
            previous: Vec::new(),
            recent: RecentSets::default(),
            numbers: HashMap::new(),
            count: 0,
            flushed: 0,
            shared: 0,
        }
    }

    /// Entries written so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Bytes that the record would have so far if every entry had its attributes written out: what reading it costs.
    pub(in crate::image::layer) fn bytes_in_full(&self) -> u64 {
        self.flushed + self.buffer.len() as u64 + self.shared
    }

    /// Appends an entry.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn push(&mut self, entry: &LayerEntry) -> Result<(), RecordError> {
        self.buffer.push(tag_of(&entry.kind));
        let shared = entry.path.iter().zip(&self.previous).take_while(|(a, b)| a == b).count();
        self.number(shared as u64);
        self.bytes(entry.path.get(shared..).unwrap_or_default());
        self.previous.clear();
        self.previous.extend_from_slice(&entry.path);
        match &entry.kind {
            EntryKind::Whiteout | EntryKind::Opaque => {}
            EntryKind::Hardlink(target) => self.bytes(target),
            other => {
                self.meta(&entry.meta);
                self.payload(other);
            }
        }
        self.count += 1;
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Ends the record and gives the sink back, with everything written to it but not synced.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn finish(mut self) -> Result<W, RecordError> {
        self.buffer.push(tag::END);
        self.number(self.count);
        self.flush()?;
        // Not part of what is hashed.
        self.sink.write_all(&self.hash.finalize())?;
        self.sink.flush()?;
        Ok(self.sink)
    }

    fn flush(&mut self) -> Result<(), RecordError> {
        self.hash.update(&self.buffer);
        self.sink.write_all(&self.buffer)?;
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn meta(&mut self, meta: &Meta) {
        let seconds = meta.mtime.secs;
        self.number(meta.mode.into());
        self.number(meta.uid.into());
        self.number(meta.gid.into());
        // Zigzag, so that negative times are short, too.
        self.number(((seconds << 1) ^ (seconds >> 63)) as u64);
        self.number(meta.mtime.nanos.into());
        self.xattrs(&meta.xattrs);
    }

    fn xattrs(&mut self, set: &[Xattr]) {
        if set.is_empty() {
            return self.number(NO_SET);
        }
        if let Some(number) = self.numbers.get(set) {
            self.shared += set.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum::<u64>();
            return self.number(FIRST_SET + *number as u64);
        }
        self.number(NEW_SET);
        self.number(set.len() as u64);
        for (name, value) in set {
            self.bytes(name);
            self.bytes(value);
        }
        let set: Arc<[Xattr]> = set.into();
        let remembered = self.recent.remember(&set);
        if remembered.forgot {
            self.numbers.clear();
        }
        if let Some(number) = remembered.number {
            self.numbers.insert(set, number);
        }
    }

    fn payload(&mut self, kind: &EntryKind) {
        match kind {
            EntryKind::Inline(content) => self.bytes(content),
            EntryKind::Object(digest, size) => {
                self.buffer.extend_from_slice(&digest.0);
                self.number(*size);
            }
            EntryKind::LeftOut(size) => self.number(*size),
            EntryKind::Symlink(target) => self.bytes(target),
            EntryKind::CharDevice(major, minor) | EntryKind::BlockDevice(major, minor) => {
                self.number((*major).into());
                self.number((*minor).into());
            }
            EntryKind::Directory
            | EntryKind::Fifo
            | EntryKind::Hardlink(_)
            | EntryKind::Whiteout
            | EntryKind::Opaque => {}
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.buffer.extend_from_slice(bytes);
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.buffer.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.push(value as u8);
    }
}

fn tag_of(kind: &EntryKind) -> u8 {
    match kind {
        EntryKind::Directory => tag::DIRECTORY,
        EntryKind::Inline(_) => tag::INLINE,
        EntryKind::Object(..) => tag::OBJECT,
        EntryKind::LeftOut(_) => tag::LEFT_OUT,
        EntryKind::Symlink(_) => tag::SYMLINK,
        EntryKind::Hardlink(_) => tag::HARDLINK,
        EntryKind::CharDevice(..) => tag::CHAR_DEVICE,
        EntryKind::BlockDevice(..) => tag::BLOCK_DEVICE,
        EntryKind::Fifo => tag::FIFO,
        EntryKind::Whiteout => tag::WHITEOUT,
        EntryKind::Opaque => tag::OPAQUE,
    }
}
