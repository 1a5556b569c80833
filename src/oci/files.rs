//! Files that may change: read once, and compared later by `stat`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::digest::{Digest, Hasher};

/// The largest key, certificate, trusted root or file of credentials, in bytes.
const FILE_MAX: u64 = 4 << 20;

/// What tells two versions of a file apart. A replaced file has another inode (also behind the swapped links of a
/// ConfigMap); a file written in place has another ctime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Stamp {
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

    /// The stamp of the file at `path` now.
    fn at(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::of(&metadata))
    }
}

/// The files that one thing is made of, such as a policy, as they were read.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// The opened files in order; `None` if opening failed.
    stamps: Vec<(PathBuf, Option<Stamp>)>,
    hasher: Hasher,
}

impl Files {
    /// Reads a file and keeps its stamp.
    pub(crate) fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let read = read(path);
        // Also after a failure: when the file appears, it is read again.
        self.stamps.push((path.to_owned(), read.as_ref().ok().map(|(stamp, _)| *stamp)));
        let (_, bytes) = read?;
        // Lengths separate the parts, so that two lists of files never give the same bytes.
        let name = path.as_os_str().as_encoded_bytes();
        for part in [name, &bytes] {
            self.hasher.update(&(part.len() as u64).to_le_bytes());
            self.hasher.update(part);
        }
        Ok(bytes)
    }

    /// The names in a directory, sorted, without those that begin with a dot. A change shows when a name comes or goes.
    ///
    /// # Errors
    /// It cannot be read, or has more than `max` of them.
    pub(crate) fn list(&mut self, directory: &Path, max: usize) -> io::Result<Vec<OsString>> {
        self.stamps.push((directory.to_owned(), Stamp::at(directory).ok()));
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let name = entry?.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if names.len() == max {
                let why = format!("it has more than {max} entries");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
            }
            names.push(name);
        }
        names.sort();
        Ok(names)
    }

    /// Whether there is a directory at `path`. A change shows when it comes or goes, or a name in it does.
    ///
    /// # Errors
    /// It cannot be told, or there is something else.
    pub(crate) fn has_directory(&mut self, path: &Path) -> io::Result<bool> {
        let found = std::fs::metadata(path);
        self.stamps.push((path.to_owned(), found.as_ref().ok().map(Stamp::of)));
        match found {
            Ok(found) if found.is_dir() => Ok(true),
            Ok(_) => Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether any of the files has changed.
    pub(crate) fn changed(&self) -> bool {
        self.stamps.iter().any(|(path, then)| Stamp::at(path).ok() != *then)
    }

    /// Digest over the names and contents of all files.
    pub(crate) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }
}

/// Reads a regular file of bounded size. The stamp is taken before the bytes, so that a change in between is noticed
/// later.
fn read(path: &Path) -> io::Result<(Stamp, Vec<u8>)> {
    // Nonblocking, because opening a FIFO would otherwise block whoever reads it for ever.
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    let file = File::from(file);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed shows that the file is too large, even if it grows meanwhile.
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is larger than 4 MiB"));
    }
    Ok((Stamp::of(&metadata), bytes))
}
