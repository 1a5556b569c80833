//! The table of contents: which files are in the layer, where their frames are, and what is in them.
//!
//! It is JSON (version 1), zstd-compressed. Of each entry is kept what content needs; names, owners and modes are those
//! of the tar, which the tar-split has. What is kept lies in memory as long as the layer is pulled: for each file its
//! name and some 90 bytes, for each chunk 56.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::io::{BufReader, Read};
use std::ops::Range;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::annotations::Positions;
use super::doubt::Doubt;
use crate::oci::digest::Digest;

/// What a layer's table of contents says of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toc {
    /// The regular files that are not empty, in the order of the tar.
    pub files: Vec<TocFile>,
    /// The chunks of all files, in their order.
    chunks: Vec<Chunk>,
    /// The sha256 of the compressed tar-split.
    pub tar_split: Digest,
}

/// A regular file that is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TocFile {
    /// Its name, as in the tar.
    pub name: Box<str>,
    /// Bytes of its content.
    pub size: u64,
    /// The sha256 of its content.
    pub digest: Digest,
    /// Where its frames are in the blob.
    pub frames: Range<u64>,
    /// Its chunks among those of all files; none if it is one piece.
    chunks: Range<usize>,
}

/// A piece of a file, which has frames of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where its frames are in the blob.
    pub frames: Range<u64>,
    /// Where its bytes are in the file.
    pub bytes: Range<u64>,
    /// The sha256 of its bytes; `None` if they are zeros.
    pub digest: Option<Digest>,
}

impl Toc {
    /// Reads the table from its compressed bytes: as many as `positions` say, with at most `entries_max` entries.
    ///
    /// # Errors
    /// They do not have the digest, or the table is not sound.
    pub fn read(packed: &[u8], positions: &Positions, entries_max: u64) -> Result<Self, Doubt> {
        if Digest::of(packed) != positions.toc_digest {
            return Err(Doubt::Digest("table of contents"));
        }
        let unsound = |error: &dyn fmt::Display| Doubt::Toc(error.to_string());
        let decoder = zstd::Decoder::with_buffer(packed).map_err(|error| unsound(&error))?;
        let json = BufReader::with_capacity(64 << 10, decoder.take(positions.toc.unpacked));
        // Frames of content end where the frame of the first table begins.
        let end = positions.toc.start.min(positions.tar_split.start).saturating_sub(8);
        Self::parse(json, end, entries_max)
    }

    /// Reads the table's JSON. All frames of files lie before `end`.
    ///
    /// # Errors
    /// The table is not sound.
    pub fn parse(json: impl Read, end: u64, entries_max: u64) -> Result<Self, Doubt> {
        let mut gathered = Gathered::new(end, entries_max);
        let mut parser = serde_json::Deserializer::from_reader(json);
        let read = Table(&mut gathered).deserialize(&mut parser).and_then(|head| parser.end().map(|()| head));
        let head = match (gathered.doubt.take(), read) {
            (Some(doubt), _) => return Err(doubt),
            (None, read) => read.map_err(|error| Doubt::Toc(error.to_string()))?,
        };
        gathered.close_file()?;
        if head.version != Some(1) {
            return Err(Doubt::Toc("it is not of version 1".to_owned()));
        }
        let tar_split =
            head.tar_split.ok_or_else(|| Doubt::Toc("it does not name its tar-split".to_owned()))?;
        let tar_split =
            tar_split.parse().map_err(|_| Doubt::Toc("the tar-split has no sha256 digest".to_owned()))?;
        Ok(Self { files: gathered.files, chunks: gathered.chunks, tar_split })
    }

    /// The pieces of a file; the whole file if it is not cut.
    pub fn chunks<'a>(&'a self, file: &TocFile) -> &'a [Chunk] {
        self.chunks.get(file.chunks.clone()).unwrap_or_default()
    }
}

/// An entry as it is written. What is not needed is skipped unread.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    r#type: Sort,
    #[serde(default)]
    name: String,
    size: Option<u64>,
    digest: Option<String>,
    offset: Option<u64>,
    end_offset: Option<u64>,
    chunk_offset: Option<u64>,
    chunk_digest: Option<String>,
    chunk_type: Option<String>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Sort {
    Reg,
    Chunk,
    #[serde(other)]
    Other,
}

/// What the entries have come to so far.
struct Gathered {
    files: Vec<TocFile>,
    chunks: Vec<Chunk>,
    /// Codes of the names of all entries: a name that comes twice means something else to every reader.
    names: HashSet<u64>,
    random: RandomState,
    entries: u64,
    entries_max: u64,
    end: u64,
    /// Why reading was stopped, which the parser's error would hide.
    doubt: Option<Doubt>,
}

fn doubt<T>(what: impl Into<String>) -> Result<T, Doubt> {
    Err(Doubt::Toc(what.into()))
}

impl Gathered {
    fn new(end: u64, entries_max: u64) -> Self {
        let (names, random) = (HashSet::new(), RandomState::new());
        Self {
            files: Vec::new(),
            chunks: Vec::new(),
            names,
            random,
            entries: 0,
            entries_max,
            end,
            doubt: None,
        }
    }

    fn add(&mut self, entry: Entry) -> Result<(), Doubt> {
        self.entries += 1;
        if self.entries > self.entries_max {
            return Err(Doubt::TooLarge {
                what: "table of contents",
                bytes: self.entries,
                limit: self.entries_max,
            });
        }
        // Go's encoder writes it for bytes that are not UTF-8, and then two names may look like one.
        if entry.name.contains('\u{fffd}') {
            return Err(Doubt::Unfit("names that are not UTF-8"));
        }
        if entry.r#type == Sort::Chunk {
            return self.add_chunk(&entry);
        }
        self.close_file()?;
        if !self.names.insert(self.random.hash_one(entry.name.trim_end_matches('/'))) {
            return Err(Doubt::Unfit("two entries of one name"));
        }
        match entry.r#type {
            Sort::Reg if entry.size.unwrap_or(0) > 0 => self.add_file(entry),
            _ => Ok(()),
        }
    }

    fn add_file(&mut self, entry: Entry) -> Result<(), Doubt> {
        let (Some(size), Some(digest), Some(start), Some(end)) =
            (entry.size, &entry.digest, entry.offset, entry.end_offset)
        else {
            return doubt(format!("{:?} lacks its digest or its place", entry.name));
        };
        let Ok(digest) = digest.parse() else {
            return doubt(format!("{:?} has no sha256 digest", entry.name));
        };
        let before = self.files.last().map_or(0, |file| file.frames.end);
        if start < before || end <= start || end > self.end {
            return doubt(format!("{:?} lies where it cannot", entry.name));
        }
        let first = self.chunks.len();
        let zeros = is_zeros(&entry);
        if zeros || entry.chunk_digest.is_some() {
            let digest = chunk_digest(&entry)?;
            self.chunks.push(Chunk { frames: start..end, bytes: 0..size, digest });
        }
        let chunks = first..self.chunks.len();
        self.files.push(TocFile { name: entry.name.into(), size, digest, frames: start..end, chunks });
        Ok(())
    }

    fn add_chunk(&mut self, entry: &Entry) -> Result<(), Doubt> {
        let fail = || doubt(format!("a chunk of {:?} does not follow what is before it", entry.name));
        let Some(file) = self.files.last_mut().filter(|file| *file.name == *entry.name) else {
            return fail();
        };
        let open = !file.chunks.is_empty() && file.chunks.end == self.chunks.len();
        let Some(last) = self.chunks.last_mut().filter(|_| open) else { return fail() };
        let (Some(start), Some(at)) = (entry.offset, entry.chunk_offset) else { return fail() };
        if start <= last.frames.start || start >= file.frames.end || at <= last.bytes.start || at >= file.size
        {
            return fail();
        }
        (last.frames.end, last.bytes.end) = (start, at);
        let digest = chunk_digest(entry)?;
        self.chunks.push(Chunk { frames: start..file.frames.end, bytes: at..file.size, digest });
        file.chunks.end = self.chunks.len();
        Ok(())
    }

    /// A file with a single chunk is one piece.
    fn close_file(&mut self) -> Result<(), Doubt> {
        if let Some(file) = self.files.last_mut()
            && file.chunks.len() == 1
            && self.chunks.len() == file.chunks.end
            && self.chunks.last().is_some_and(|chunk| chunk.digest.is_some())
        {
            self.chunks.pop();
            file.chunks.end = file.chunks.start;
        }
        Ok(())
    }
}

fn is_zeros(entry: &Entry) -> bool {
    entry.chunk_type.as_deref() == Some("zeros")
}

fn chunk_digest(entry: &Entry) -> Result<Option<Digest>, Doubt> {
    match (&entry.chunk_digest, is_zeros(entry)) {
        (_, true) => Ok(None),
        (Some(digest), false) => {
            let parsed = digest.parse();
            parsed
                .map(Some)
                .map_err(|_| Doubt::Toc(format!("a chunk of {:?} has no sha256 digest", entry.name)))
        }
        (None, false) => doubt(format!("a chunk of {:?} has no digest", entry.name)),
    }
}

/// The members of the table besides its entries.
#[derive(Default)]
struct Head {
    version: Option<u64>,
    tar_split: Option<String>,
}

/// Reads the table without building it.
struct Table<'a>(&'a mut Gathered);

impl<'de> DeserializeSeed<'de> for Table<'_> {
    type Value = Head;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Head, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Table<'_> {
    type Value = Head;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of contents")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head, A::Error> {
        let mut head = Head::default();
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "version" => head.version = map.next_value()?,
                "tarSplitDigest" => head.tar_split = map.next_value()?,
                "entries" => map.next_value_seed(Entries(&mut *self.0))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(head)
    }
}

struct Entries<'a>(&'a mut Gathered);

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(entry) = entries.next_element()? {
            if let Err(doubt) = self.0.add(entry) {
                self.0.doubt = Some(doubt);
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
