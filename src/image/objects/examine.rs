//! Examining one object: whether it still holds what its name says, read in full.
//!
//! Where the store seals, the kernel checks what it reads from the disk, so a bad block shows as a read error;
//! elsewhere only the hash over the content tells. Pages that are cached count as read: what the disk holds
//! below them is seen when they are read again.

use std::fs::File;
use std::io::Read as _;

use rustix::io::Errno;

use super::{ObjectError, Objects};
use crate::image::verity::{VerityDigest, VerityHasher};
use crate::kind::Kind;
use crate::sys::verity::measure_verity;

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;

/// What is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Corruption {
    /// It is not there.
    #[error("is missing")]
    Missing,
    /// It cannot be read; with fs-verity that is how a tampered block shows.
    #[error("cannot be read at byte {offset} ({errno})")]
    Unreadable {
        /// Where reading stopped, in bytes.
        offset: u64,
        /// The kernel's answer.
        errno: Errno,
    },
    /// It holds something else.
    #[error("holds other content, with the digest {0}")]
    Differs(VerityDigest),
    /// The store seals its objects, and this one is not.
    #[error("is not sealed by fs-verity")]
    Unsealed,
}

impl Objects {
    /// Reads one object in full and says what is wrong with it, if anything. Blocking.
    ///
    /// # Errors
    /// It could not be examined: too many open files, for example. That says nothing about the object.
    pub fn examine(&self, digest: &VerityDigest) -> Result<(u64, Option<Corruption>), ObjectError> {
        let file = match self.get(digest) {
            Ok(file) => File::from(file),
            Err(error) if error.kind() == Kind::NotFound => return Ok((0, Some(Corruption::Missing))),
            Err(error) => return Err(error),
        };
        if self.seals() {
            match measure_verity(&file) {
                Ok(found) if found == digest.0 => {}
                Ok(found) => return Ok((0, Some(Corruption::Differs(VerityDigest(found))))),
                Err(_) => return Ok((0, Some(Corruption::Unsealed))),
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

/// Hashes a file to its end; also says how many bytes could be read.
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
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return (read, Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))),
        }
    }
}
