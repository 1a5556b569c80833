//! Reading a layer record.

use std::io::Read;

use sha2::{Digest as _, Sha256};

use super::{CHECKSUM_LENGTH, MAGIC, MAX_BYTES, RecordError, VERSION, tag};
use crate::image::entry::{Entry, EntryKind, INLINE_MAX, Meta, Mtime, is_clean};
use crate::image::verity::VerityDigest;

const BUFFER: usize = 64 << 10;

/// Reads a layer record: an iterator over its entries. A record is proven whole only when the
/// iterator has ended without an error. It buffers: the source needs no buffer.
pub struct RecordReader<R> {
    input: Input<R>,
    previous: Vec<u8>,
    count: u64,
    ended: bool,
    checksum: Option<[u8; CHECKSUM_LENGTH]>,
}

impl<R> std::fmt::Debug for RecordReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecordReader({} entries)", self.count)
    }
}

impl<R: Read> RecordReader<R> {
    /// Starts reading.
    ///
    /// # Errors
    /// [`RecordError::Damaged`] or [`RecordError::Version`] if this is no record that we can read.
    pub fn new(source: R) -> Result<Self, RecordError> {
        let mut input = Input::new(source);
        if input.array()? != MAGIC {
            return Err(input.damaged("it does not begin as a layer record does"));
        }
        match input.byte()? {
            VERSION => Ok(Self { input, previous: Vec::new(), count: 0, ended: false, checksum: None }),
            other => Err(RecordError::Version(other)),
        }
    }

    /// Whether the iterator has ended, well or not.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The checksum of the whole record, once the iterator has ended well.
    pub fn checksum(&self) -> Option<[u8; CHECKSUM_LENGTH]> {
        self.checksum
    }

    fn entry(&mut self) -> Result<Option<Entry>, RecordError> {
        let tag = self.input.byte()?;
        if tag == tag::END {
            return self.end().map(|()| None);
        }
        let shared = self.input.number()?;
        let shared = usize::try_from(shared).unwrap_or(usize::MAX);
        if shared > self.previous.len() {
            return Err(self.input.damaged("a path shares more than the previous one has"));
        }
        self.previous.truncate(shared);
        self.input.bytes_into(&mut self.previous)?;
        if !is_clean(&self.previous) {
            return Err(self.input.damaged("a path is not in its clean form"));
        }
        let path = self.previous.as_slice().into();
        let (meta, kind) = match tag {
            tag::WHITEOUT => (Meta::default(), EntryKind::Whiteout),
            tag::OPAQUE => (Meta::default(), EntryKind::Opaque),
            tag::HARDLINK => (Meta::default(), EntryKind::Hardlink(self.input.bytes()?)),
            _ => (self.meta()?, self.payload(tag)?),
        };
        self.count += 1;
        Ok(Some(Entry { path, meta, kind }))
    }

    fn end(&mut self) -> Result<(), RecordError> {
        if self.input.number()? != self.count {
            return Err(self.input.damaged("the number of entries is wrong"));
        }
        let hash = self.input.hash_so_far();
        if self.input.array()? != hash {
            return Err(self.input.damaged("the checksum is wrong"));
        }
        if self.input.has_more()? {
            return Err(self.input.damaged("something follows the end"));
        }
        self.checksum = Some(hash);
        Ok(())
    }

    fn meta(&mut self) -> Result<Meta, RecordError> {
        let input = &mut self.input;
        let mode = input.number32()?;
        let uid = input.number32()?;
        let gid = input.number32()?;
        let zigzag = input.number()?;
        let secs = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        let nanos = input.number32()?;
        if mode > 0o7777 || nanos >= 1_000_000_000 {
            return Err(input.damaged("a mode or a time is out of range"));
        }
        let mut xattrs = Vec::new();
        for _ in 0..input.number()? {
            xattrs.push((input.bytes()?, input.bytes()?));
        }
        Ok(Meta { mode, uid, gid, mtime: Mtime { secs, nanos }, xattrs })
    }

    fn payload(&mut self, tag: u8) -> Result<EntryKind, RecordError> {
        let input = &mut self.input;
        Ok(match tag {
            tag::DIRECTORY => EntryKind::Directory,
            tag::FIFO => EntryKind::Fifo,
            tag::SYMLINK => EntryKind::Symlink(input.bytes()?),
            tag::CHAR_DEVICE => EntryKind::CharDevice(input.number32()?, input.number32()?),
            tag::BLOCK_DEVICE => EntryKind::BlockDevice(input.number32()?, input.number32()?),
            tag::INLINE => match input.bytes()? {
                content if content.len() <= INLINE_MAX => EntryKind::Inline(content),
                _ => return Err(input.damaged("an inline file is too long")),
            },
            tag::OBJECT => EntryKind::Object(VerityDigest(input.array()?), input.number()?),
            _ => return Err(input.damaged("an entry is of no known kind")),
        })
    }
}

impl<R: Read> Iterator for RecordReader<R> {
    type Item = Result<Entry, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.entry().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

/// The bytes of a record, hashed as they are consumed.
struct Input<R> {
    source: R,
    buffer: Box<[u8]>,
    /// What of the buffer is filled and not yet consumed.
    start: usize,
    end: usize,
    /// What of the buffer is consumed but not yet hashed begins here.
    unhashed: usize,
    hash: Sha256,
    /// Where in the record the buffer begins.
    base: u64,
}

impl<R: Read> Input<R> {
    fn new(source: R) -> Self {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Self { source, buffer, start: 0, end: 0, unhashed: 0, hash: Sha256::new(), base: 0 }
    }

    fn damaged(&self, what: &'static str) -> RecordError {
        RecordError::Damaged { offset: self.base + self.start as u64, what }
    }

    /// Hashes what was consumed.
    fn catch_up(&mut self) {
        self.hash.update(self.buffer.get(self.unhashed..self.start).unwrap_or_default());
        self.unhashed = self.start;
    }

    fn hash_so_far(&mut self) -> [u8; 32] {
        self.catch_up();
        self.hash.clone().finalize().into()
    }

    /// Makes sure that there is an unconsumed byte; false at the end of the source.
    fn has_more(&mut self) -> Result<bool, RecordError> {
        if self.start == self.end {
            self.catch_up();
            self.base += self.end as u64;
            (self.start, self.end, self.unhashed) = (0, 0, 0);
            self.end = loop {
                match self.source.read(&mut self.buffer) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    other => break other?,
                }
            };
        }
        Ok(self.end > 0)
    }

    /// At least one unconsumed byte.
    fn available(&mut self) -> Result<&[u8], RecordError> {
        if !self.has_more()? {
            return Err(self.damaged("it ends too early"));
        }
        Ok(self.buffer.get(self.start..self.end).unwrap_or_default())
    }

    fn byte(&mut self) -> Result<u8, RecordError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let mut array = [0; N];
        let mut filled = 0;
        while filled < N {
            let bytes = self.available()?;
            let count = bytes.len().min(N - filled);
            array[filled..filled + count].copy_from_slice(&bytes[..count]);
            filled += count;
            self.start += count;
        }
        Ok(array)
    }

    fn number(&mut self) -> Result<u64, RecordError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.damaged("a number is too large"))
    }

    fn number32(&mut self) -> Result<u32, RecordError> {
        let value = self.number()?;
        u32::try_from(value).map_err(|_| self.damaged("a number is too large"))
    }

    fn bytes(&mut self) -> Result<Box<[u8]>, RecordError> {
        let mut bytes = Vec::new();
        self.bytes_into(&mut bytes)?;
        Ok(bytes.into_boxed_slice())
    }

    fn bytes_into(&mut self, into: &mut Vec<u8>) -> Result<(), RecordError> {
        let mut missing = match usize::try_from(self.number()?) {
            Ok(length) if length <= MAX_BYTES => length,
            _ => return Err(self.damaged("a length is too large")),
        };
        into.reserve(missing.min(BUFFER));
        while missing > 0 {
            let bytes = self.available()?;
            let count = bytes.len().min(missing);
            into.extend_from_slice(&bytes[..count]);
            missing -= count;
            self.start += count;
        }
        Ok(())
    }
}
