//! What of a layer the store has: looked up by sha256, and believed only once it has been read.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};

use super::contents::{ContentsEntry, StoredContent};
use super::toc::Toc;
use crate::image::objects::Objects;
use crate::image::verity::VerityDigest;
use crate::oci::digest::{Digest, Hasher};

/// Bytes read at a time.
const BUFFER: usize = 256 << 10;

/// A file or a piece of one that the store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// A small file, which lies in layer records and images themselves.
    Inline(Box<[u8]>),
    /// So many bytes of an object, from this byte on.
    Object(VerityDigest, u64),
}

/// What was found of the files and chunks of a TOC, by the sha256 of their bytes. Never more than the TOC names.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Whole files.
    pub files: HashMap<Digest, Local>,
    /// Chunks.
    pub chunks: HashMap<Digest, Local>,
}

/// What is wanted of a TOC: sizes by the sha256 of the bytes.
#[derive(Debug)]
pub struct Wanted {
    files: HashMap<Digest, u64>,
    chunks: HashMap<Digest, u64>,
}

impl Wanted {
    /// All of a layer.
    pub fn of(toc: &Toc) -> Self {
        let files = toc.files.iter().map(|file| (file.digest, file.size)).collect();
        let chunks = toc.files.iter().flat_map(|file| toc.chunks(file));
        let chunks = chunks.filter_map(|chunk| Some((chunk.digest?, chunk.bytes.end - chunk.bytes.start)));
        Self { files, chunks: chunks.collect() }
    }

    /// Adds to `found` what a file of the store gives.
    pub fn take(&self, entry: &ContentsEntry, found: &mut Found) {
        if self.files.get(&entry.digest) == Some(&entry.size) {
            found.files.entry(entry.digest).or_insert_with(|| match &entry.content {
                StoredContent::Inline(bytes) => Local::Inline(bytes.clone()),
                StoredContent::Object(object) => Local::Object(*object, 0),
            });
        }
        let StoredContent::Object(object) = entry.content else { return };
        for (digest, bytes) in &entry.chunks {
            if self.chunks.get(digest) == Some(&(bytes.end - bytes.start)) {
                found.chunks.entry(*digest).or_insert(Local::Object(object, bytes.start));
            }
        }
    }
}

impl Found {
    /// Adds what `other` has found; what is here already stays.
    pub fn merge(&mut self, other: Self) {
        for (mine, new) in [(&mut self.files, other.files), (&mut self.chunks, other.chunks)] {
            for (digest, local) in new {
                mine.entry(digest).or_insert(local);
            }
        }
    }

    /// Whether every file of the TOC was found whole.
    pub fn has_all_files(&self, wanted: &Wanted) -> bool {
        self.files.len() == wanted.files.len()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.chunks.is_empty()
    }

    /// Reads all that was found, and keeps what has the sha256 by which it was found. Chunks of files that are here whole
    /// are not needed, and not kept. Blocking.
    #[must_use]
    pub fn verified(mut self, toc: &Toc, objects: &Objects) -> Self {
        let wanted = Wanted::of(toc);
        let mut buffer = vec![0; BUFFER];
        self.files.retain(|digest, local| {
            let size = wanted.files.get(digest).copied().unwrap_or(0);
            holds(local, size, true, digest, objects, &mut buffer)
        });
        let missing = toc.files.iter().filter(|file| !self.files.contains_key(&file.digest));
        let mut chunks = HashMap::new();
        for digest in missing.flat_map(|file| toc.chunks(file)).filter_map(|chunk| chunk.digest) {
            let Some(local) = self.chunks.remove(&digest) else { continue };
            let size = wanted.chunks.get(&digest).copied().unwrap_or(0);
            if holds(&local, size, false, &digest, objects, &mut buffer) {
                chunks.insert(digest, local);
            }
        }
        Self { files: self.files, chunks }
    }
}

/// Whether bytes that the store has are those with this digest; `whole` if there may be no more of the object.
fn holds(
    local: &Local,
    size: u64,
    whole: bool,
    digest: &Digest,
    objects: &Objects,
    buffer: &mut [u8],
) -> bool {
    match local {
        Local::Inline(bytes) => bytes.len() as u64 == size && Digest::of(bytes) == *digest,
        Local::Object(object, offset) => {
            let hashed = hash(object, *offset, size, whole, objects, buffer);
            // Damaged or gone: fetched like any other.
            hashed.is_ok_and(|found| found == *digest)
        }
    }
}

fn hash(
    object: &VerityDigest,
    offset: u64,
    size: u64,
    whole: bool,
    objects: &Objects,
    buffer: &mut [u8],
) -> io::Result<Digest> {
    let mut file = open(object, offset, objects)?;
    if whole && file.metadata()?.len() != size {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let (mut hasher, mut left) = (Hasher::default(), size);
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = file.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hasher.update(&buffer[..count]);
        left -= count as u64;
    }
    Ok(hasher.finish())
}

/// Opens an object at one of its bytes.
pub(super) fn open(object: &VerityDigest, offset: u64, objects: &Objects) -> io::Result<File> {
    let mut file = File::from(objects.get(object).map_err(io::Error::other)?);
    if offset > 0 {
        file.seek(SeekFrom::Start(offset))?;
    }
    Ok(file)
}
