//! Examining one object: whether it still holds what its name says, read in full.
//!
//! With fs-verity the kernel checks what it reads from the disk, so a bad block shows as a read error.
//! Without it only the hash over the content tells. Cached pages count as read: what the disk holds below
//! them shows only when they are read again.

use std::fs::File;
use std::io::Read as _;

use rustix::io::Errno;

use super::directory::Objects;
use super::error::ObjectError;
use crate::image::verity::{VerityDigest, VerityHasher};
use crate::kind::Kind;
use crate::sys::page_cache::cached_pages;
use crate::sys::verity::measure_verity;

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;

/// What is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Corruption {
    /// The object is not there.
    #[error("is missing")]
    Missing,
    /// The object cannot be read. With fs-verity a tampered block shows this way.
    #[error("cannot be read at byte {offset} ({errno})")]
    Unreadable {
        /// Where reading stopped, in bytes.
        offset: u64,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The object holds other content.
    #[error("holds other content, with the digest {0}")]
    Differs(VerityDigest),
    /// A link, a directory, a pipe or the like has its name.
    #[error("is no file: something else has its name")]
    NotAFile,
    /// The store requires fs-verity, and this object has none.
    #[error("has no fs-verity")]
    NoVerity,
}

impl Corruption {
    /// Whether there is nothing, rather than something wrong.
    pub(in crate::image) fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }
}

impl Objects {
    /// As [`Objects::examine`], for who reads everything: what was not in the page cache does not stay in it, so that
    /// pods keep theirs. Before Linux 6.5 that cannot be told, and the cache ages by itself.
    ///
    /// # Errors
    /// As [`Objects::examine`].
    pub(in crate::image) fn examine_cold(
        &self,
        digest: &VerityDigest,
    ) -> Result<(u64, Option<Corruption>), ObjectError> {
        let file = if self.is_odd(digest)? { None } else { self.get(digest).ok() };
        let was_cold = file.as_ref().is_some_and(|file| cached_pages(file) == Ok(0));
        let examined = self.examine(digest);
        if let Some(file) = file.filter(|_| was_cold) {
            // Advice: what a pod has mapped meanwhile stays.
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
        examined
    }

    /// Reads one object in full and says what is wrong with it, if anything. Blocking.
    ///
    /// # Errors
    /// The object could not be examined, for example because too many files are open. This error says nothing
    /// about the object.
    pub fn examine(&self, digest: &VerityDigest) -> Result<(u64, Option<Corruption>), ObjectError> {
        // Opening a pipe or a device may block or do something.
        if self.is_odd(digest)? {
            return Ok((0, Some(Corruption::NotAFile)));
        }
        let file = match self.get(digest) {
            Ok(file) => File::from(file),
            Err(error) if error.kind() == Kind::NotFound => return Ok((0, Some(Corruption::Missing))),
            Err(error) => return Err(error),
        };
        // Costs no read, so it comes before the hash.
        if self.requires_verity() {
            match measure_verity(&file) {
                Ok(found) if found == digest.0 => {}
                Ok(found) => return Ok((0, Some(Corruption::Differs(VerityDigest(found))))),
                Err(_) => return Ok((0, Some(Corruption::NoVerity))),
            }
        }
        let (read, found) = hash(file);
        Ok(match found {
            Ok(found) if found == *digest => (read, None),
            Ok(found) => (read, Some(Corruption::Differs(found))),
            Err(errno) => (read, Some(Corruption::Unreadable { offset: read, errno })),
        })
    }
}

/// Hashes a file to its end. Also returns how many bytes could be read.
fn hash(mut file: File) -> (u64, Result<VerityDigest, Errno>) {
    let mut hasher = VerityHasher::default();
    let mut buffer = vec![0; CHUNK];
    let mut read = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return (read, Ok(hasher.finish())),
            Ok(count) => {
                hasher.update(buffer.get(..count).unwrap_or_default());
                read += count as u64;
            }
            // A signal arrived: read again.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return (read, Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))),
        }
    }
}
