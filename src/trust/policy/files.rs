//! Files that may change: read once, and known again by what `stat` says of them.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::oci::digest::{Digest, Hasher};

/// A key, certificate or trusted root larger than this is refused, in bytes.
const FILE_MAX: u64 = 4 << 20;

/// What tells two versions of a file apart. A replaced file has another inode (a ConfigMap's links lead to
/// another file), one written in place another time of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// What is at `path` now.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::of(&metadata))
    }
}

/// The files of one policy as they were read.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// What was opened, in order; `None` where that failed.
    stamps: Vec<(PathBuf, Option<Stamp>)>,
    hasher: Hasher,
}

impl Files {
    /// Reads a file and remembers it.
    pub(super) fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let read = read(path);
        self.stamps.push((path.to_owned(), read.as_ref().ok().map(|(stamp, _)| *stamp)));
        let (_, bytes) = read?;
        // With lengths, so that no two lists of files have the same bytes.
        let name = path.as_os_str().as_encoded_bytes();
        for part in [name, &bytes] {
            self.hasher.update(&(part.len() as u64).to_le_bytes());
            self.hasher.update(part);
        }
        Ok(bytes)
    }

    /// Whether any of the files is another one now.
    pub(super) fn changed(&self) -> bool {
        self.stamps.iter().any(|(path, then)| Stamp::at(path).ok() != *then)
    }

    /// Digest over the names and contents of all files.
    pub(super) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }
}

/// Reads a regular file of bounded size. The stamp is older than the bytes: a change between the two is seen.
fn read(path: &Path) -> io::Result<(Stamp, Vec<u8>)> {
    // Without blocking: a FIFO must not stop every mount of the node.
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    let file = File::from(file);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is larger than 4 MiB"));
    }
    Ok((Stamp::of(&metadata), bytes))
}
