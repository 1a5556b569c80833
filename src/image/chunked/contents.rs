//! The format of a list of a layer's files by the sha256 of their content, as the store keeps it beside the layer.
//!
//! ```text
//! magic
//! for each file: 1, sha256, size, fs-verity digest    or    2, sha256, size, the bytes
//!                number of chunks, for each of them: sha256, offset, length
//! 0, sha256 of all before
//! ```
//! Numbers are little-endian, of 8 bytes but for the number of chunks (4). A list is a hint: what it says of a file is
//! compared with the file itself ([`super::local`]), so one that lies costs time and no more.

use std::io::{self, Read, Write};
use std::ops::Range;

use super::toc::{Toc, TocFile};
use crate::image::entry::INLINE_MAX;
use crate::image::verity::VerityDigest;
use crate::oci::digest::{Digest, Hasher};

/// The first bytes, the last of which is the version.
const MAGIC: [u8; 8] = *b"cfscsiC\x01";
const END: u8 = 0;
const OBJECT: u8 = 1;
const INLINE: u8 = 2;
/// Bytes gathered before they are hashed and written.
const BUFFER: usize = 64 << 10;

/// A file of a layer that the store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentsEntry {
    /// The sha256 of its content.
    pub digest: Digest,
    /// Bytes of its content.
    pub size: u64,
    /// Where it is.
    pub content: StoredContent,
    /// Pieces of it: the sha256 of each, and its place in the file.
    pub chunks: Vec<(Digest, Range<u64>)>,
}

/// Where the store has a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredContent {
    /// A small file: its bytes.
    Inline(Box<[u8]>),
    /// An object.
    Object(VerityDigest),
}

/// Why bytes are no such list.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// They could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// They are something else.
    #[error("{0}")]
    Malformed(&'static str),
}

impl ContentsEntry {
    /// What a TOC says of a file that is stored as `content`.
    pub fn of(toc: &Toc, file: &TocFile, content: StoredContent) -> Self {
        let chunks = toc.chunks(file).iter();
        let chunks = chunks.filter_map(|chunk| Some((chunk.digest?, chunk.bytes.clone()))).collect();
        Self { digest: file.digest, size: file.size, content, chunks }
    }
}

/// Writes a list.
pub(in crate::image) struct ContentsWriter<W> {
    sink: W,
    buffer: Vec<u8>,
    hasher: Hasher,
}

impl<W: Write> ContentsWriter<W> {
    /// Starts a list.
    pub(in crate::image) fn new(sink: W) -> Self {
        Self { sink, buffer: MAGIC.to_vec(), hasher: Hasher::default() }
    }

    /// Appends a file.
    ///
    /// # Errors
    /// Those of the sink.
    pub(in crate::image) fn push(&mut self, entry: &ContentsEntry) -> io::Result<()> {
        let (tag, content): (u8, &[u8]) = match &entry.content {
            StoredContent::Object(object) => (OBJECT, &object.0),
            StoredContent::Inline(bytes) => (INLINE, bytes),
        };
        self.buffer.push(tag);
        self.buffer.extend_from_slice(entry.digest.as_bytes());
        self.buffer.extend_from_slice(&entry.size.to_le_bytes());
        self.buffer.extend_from_slice(content);
        self.buffer.extend_from_slice(&(entry.chunks.len() as u32).to_le_bytes());
        for (digest, bytes) in &entry.chunks {
            self.buffer.extend_from_slice(digest.as_bytes());
            self.buffer.extend_from_slice(&bytes.start.to_le_bytes());
            self.buffer.extend_from_slice(&(bytes.end - bytes.start).to_le_bytes());
        }
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Ends the list. Returns the sink and the list's checksum.
    ///
    /// # Errors
    /// Those of the sink.
    pub(in crate::image) fn finish(mut self) -> io::Result<(W, Digest)> {
        self.buffer.push(END);
        self.flush()?;
        let checksum = self.hasher.finish();
        self.sink.write_all(checksum.as_bytes())?;
        Ok((self.sink, checksum))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hasher.update(&self.buffer);
        self.sink.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// Reads a list. It is whole only once [`ContentsReader::next_entry`] has ended without an error.
pub(in crate::image) struct ContentsReader<R> {
    source: R,
    hasher: Hasher,
}

impl<R: Read> ContentsReader<R> {
    /// Starts reading; the source is to be buffered.
    ///
    /// # Errors
    /// It is no such list.
    pub(in crate::image) fn new(source: R) -> Result<Self, ContentsError> {
        let mut reader = Self { source, hasher: Hasher::default() };
        match reader.array()? == MAGIC {
            true => Ok(reader),
            false => Err(ContentsError::Malformed("it does not begin as a list of contents does")),
        }
    }

    /// The next file; at the end the checksum of the list.
    ///
    /// # Errors
    /// The list is malformed.
    pub(in crate::image) fn next_entry(&mut self) -> Result<Result<ContentsEntry, Digest>, ContentsError> {
        let [tag] = self.array()?;
        if tag == END {
            let found = self.hasher.clone().finish();
            return match self.array()? == *found.as_bytes() {
                true => Ok(Err(found)),
                false => Err(ContentsError::Malformed("the checksum is wrong")),
            };
        }
        let (digest, size) = (Digest::from_bytes(self.array()?), self.number()?);
        let content = match tag {
            OBJECT => StoredContent::Object(VerityDigest(self.array()?)),
            INLINE if size <= INLINE_MAX as u64 => {
                let mut bytes = vec![0; size as usize];
                self.fill(&mut bytes)?;
                StoredContent::Inline(bytes.into())
            }
            _ => return Err(ContentsError::Malformed("an entry is of no known kind")),
        };
        let (count, mut chunks) = (u32::from_le_bytes(self.array()?), Vec::new());
        // Without `with_capacity`: the number is only a claim.
        for _ in 0..count {
            let (digest, start, length) = (Digest::from_bytes(self.array()?), self.number()?, self.number()?);
            match start.checked_add(length).filter(|end| *end <= size) {
                Some(end) => chunks.push((digest, start..end)),
                None => return Err(ContentsError::Malformed("a chunk is not within its file")),
            }
        }
        Ok(Ok(ContentsEntry { digest, size, content, chunks }))
    }

    fn number(&mut self) -> Result<u64, ContentsError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ContentsError> {
        let mut array = [0; N];
        self.fill(&mut array)?;
        Ok(array)
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<(), ContentsError> {
        self.source.read_exact(into)?;
        self.hasher.update(into);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<ContentsEntry> {
        let object = StoredContent::Object(VerityDigest::of(b"content"));
        let chunk = |bytes: Range<u64>| (Digest::of(&bytes.start.to_le_bytes()), bytes);
        let entry = |name: &[u8], size, content, chunks| ContentsEntry {
            digest: Digest::of(name),
            size,
            content,
            chunks,
        };
        vec![
            entry(b"a", 1000, object.clone(), vec![]),
            entry(b"b", 3, StoredContent::Inline((*b"abc").into()), vec![]),
            entry(b"c", 90_000, object, vec![chunk(0..40_000), chunk(70_000..90_000)]),
        ]
    }

    fn written(entries: &[ContentsEntry]) -> Vec<u8> {
        let mut writer = ContentsWriter::new(Vec::new());
        entries.iter().for_each(|entry| writer.push(entry).unwrap());
        writer.finish().unwrap().0
    }

    fn read(bytes: &[u8]) -> Result<(Vec<ContentsEntry>, Digest), ContentsError> {
        let (mut reader, mut entries) = (ContentsReader::new(bytes)?, Vec::new());
        loop {
            match reader.next_entry()? {
                Ok(entry) => entries.push(entry),
                Err(checksum) => return Ok((entries, checksum)),
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for entries in [entries(), vec![]] {
            let mut writer = ContentsWriter::new(Vec::new());
            entries.iter().for_each(|entry| writer.push(entry).unwrap());
            let (bytes, checksum) = writer.finish().unwrap();
            assert_eq!(read(&bytes).unwrap(), (entries, checksum));
        }
    }

    #[test]
    fn any_damage_is_found() {
        let whole = written(&entries());
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(read(&damaged).is_err(), "{at}");
        }
    }
}
