//! Reading a layer record.

use std::io::Read;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::error::RecordError;
use super::format::{CHECKSUM_LENGTH, FIRST_SET, MAGIC, MAX_BYTES, NEW_SET, NO_SET, VERSION, VERSION_1};
use super::sets::RecentSets;
use super::tag;
use crate::image::entry::{EntryKind, INLINE_MAX, LayerEntry, Meta, Mtime, Xattr, is_clean};
use crate::image::verity::VerityDigest;

/// Bytes read at a time.
const BUFFER: usize = 64 << 10;

/// Reads a layer record: an iterator over its entries. The record is known to be whole only when the
/// iterator has ended without an error. It buffers, so the source needs no buffer.
pub struct RecordReader<R> {
    input: Input<R>,
    /// The path of the last entry.
    previous: Vec<u8>,
    /// The attribute sets that a number may mean; `None` where every entry has its own (version 1).
    recent: Option<RecentSets>,
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
    /// [`RecordError::Damaged`] or [`RecordError::Version`] if this is no record that this release reads.
    pub fn new(source: R) -> Result<Self, RecordError> {
        let mut input = Input::new(source);
        if input.array()? != MAGIC {
            return Err(input.damaged("it does not begin as a layer record does"));
        }
        let recent = match input.byte()? {
            VERSION => Some(RecentSets::default()),
            VERSION_1 => None,
            other => return Err(RecordError::Version(other)),
        };
        Ok(Self { input, previous: Vec::new(), recent, count: 0, ended: false, checksum: None })
    }

    /// Whether the iterator has ended, well or not.
    pub(in crate::image) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The checksum of the whole record, once the iterator has ended well.
    pub(in crate::image) fn checksum(&self) -> Option<[u8; CHECKSUM_LENGTH]> {
        self.checksum
    }

    fn entry(&mut self) -> Result<Option<LayerEntry>, RecordError> {
        let tag = self.input.byte()?;
        if tag == tag::END {
            return self.end().map(|()| None);
        }
        let shared = self.input.number()?;
        let shared = usize::try_from(shared).unwrap_or(usize::MAX);
        // Also covers a number that does not fit the type.
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
        Ok(Some(LayerEntry { path, meta, kind }))
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
        Ok(Meta { mode, uid, gid, mtime: Mtime { secs, nanos }, xattrs: self.xattrs()? })
    }

    fn xattrs(&mut self) -> Result<Vec<Xattr>, RecordError> {
        let Self { input, recent, .. } = self;
        let Some(recent) = recent else { return input.set() };
        match input.number()? {
            NO_SET => Ok(Vec::new()),
            NEW_SET => {
                let set = input.set()?;
                recent.remember(&Arc::from(set.as_slice()));
                Ok(set)
            }
            number => {
                let known = usize::try_from(number - FIRST_SET).ok().and_then(|number| recent.get(number));
                known
                    .map(<[Xattr]>::to_vec)
                    .ok_or_else(|| input.damaged("it names an attribute set that it does not have"))
            }
        }
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
            tag::LEFT_OUT => EntryKind::LeftOut(input.number()?),
            _ => return Err(input.damaged("an entry is of no known kind")),
        })
    }
}

impl<R: Read> Iterator for RecordReader<R> {
    type Item = Result<LayerEntry, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        // An error ends the iterator, too: the position behind it means nothing.
        let next = self.entry().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

/// The bytes of a record, hashed as they are consumed.
struct Input<R> {
    source: R,
    buffer: Box<[u8]>,
    /// The part of the buffer that is filled and not yet consumed.
    start: usize,
    end: usize,
    /// Start of the part that is consumed but not yet hashed. Long runs are hashed at once.
    unhashed: usize,
    hash: Sha256,
    /// Position of the buffer in the record.
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

    /// Hashes what was consumed since the last call.
    fn catch_up(&mut self) {
        self.hash.update(self.buffer.get(self.unhashed..self.start).unwrap_or_default());
        self.unhashed = self.start;
    }

    fn hash_so_far(&mut self) -> [u8; 32] {
        self.catch_up();
        self.hash.clone().finalize().into()
    }

    /// Refills an empty buffer. False at the end of the source.
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
            // Bits beyond the 64th.
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

    fn set(&mut self) -> Result<Vec<Xattr>, RecordError> {
        let mut set = Vec::new();
        // Without `with_capacity`: the number is only a claim.
        for _ in 0..self.number()? {
            set.push((self.bytes()?, self.bytes()?));
        }
        Ok(set)
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
        // The length is only a claim until the bytes are there.
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
