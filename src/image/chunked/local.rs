//! What of a layer the store has: looked up by sha256, and believed only once it has been read.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::contents::{ContentsEntry, StoredContent};
use super::toc::Toc;
use crate::image::objects::Objects;
use crate::image::verity::VerityDigest;
use crate::oci::digest::{Digest, Hasher};

/// Bytes read at a time.
const BUFFER: usize = 256 << 10;
/// Files that are read at the same time.
const READERS: usize = 8;

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
    pub fn verified(self, toc: &Toc, objects: &Objects) -> Self {
        let wanted = Wanted::of(toc);
        let size = |digest: &Digest, of: &HashMap<Digest, u64>| of.get(digest).copied().unwrap_or(0);
        let files = self.files.into_iter().map(|(digest, local)| {
            let size = size(&digest, &wanted.files);
            Claim { digest, local, size, whole: true }
        });
        let files = proven(files.collect(), objects);
        let missing = toc.files.iter().filter(|file| !files.contains_key(&file.digest));
        let mut chunks = self.chunks;
        let chunks = missing.flat_map(|file| toc.chunks(file)).filter_map(|chunk| {
            let digest = chunk.digest?;
            let local = chunks.remove(&digest)?;
            Some(Claim { digest, local, size: size(&digest, &wanted.chunks), whole: false })
        });
        let chunks = proven(chunks.collect(), objects);
        Self { files, chunks }
    }
}

/// What a list says of the store: that these are so many bytes with this sha256.
struct Claim {
    digest: Digest,
    local: Local,
    size: u64,
    /// There are no more of them in the object.
    whole: bool,
}

/// The claims that hold. Several are read at a time: the files are small, and a disk answers many as fast as one.
fn proven(claims: Vec<Claim>, objects: &Objects) -> HashMap<Digest, Local> {
    let (next, holds): (AtomicUsize, Vec<AtomicBool>) =
        (AtomicUsize::new(0), claims.iter().map(|_| AtomicBool::new(false)).collect());
    let read = || {
        let mut buffer = vec![0; BUFFER];
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let (Some(claim), Some(holds)) = (claims.get(number), holds.get(number)) else { break };
            holds.store(claim.holds(objects, &mut buffer), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..READERS.min(claims.len()) {
            // With fewer threads it takes longer.
            let _ = std::thread::Builder::new().name("layer-verify".to_owned()).spawn_scoped(scope, read);
        }
        read();
    });
    let held = claims.into_iter().zip(holds).filter(|(_, holds)| holds.load(Ordering::Relaxed));
    held.map(|(claim, _)| (claim.digest, claim.local)).collect()
}

impl Claim {
    fn holds(&self, objects: &Objects, buffer: &mut [u8]) -> bool {
        match &self.local {
            Local::Inline(bytes) => bytes.len() as u64 == self.size && Digest::of(bytes) == self.digest,
            Local::Object(object, offset) => {
                let hashed = hash(object, *offset, (self.size, self.whole), objects, buffer);
                // Damaged or gone: fetched like any other.
                hashed.is_ok_and(|found| found == self.digest)
            }
        }
    }
}

fn hash(
    object: &VerityDigest,
    offset: u64,
    (size, whole): (u64, bool),
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
