//! Objects of other stores on this machine (`--object-source`): taken instead of being written.
//!
//! A source is a directory with files at `xx/<62 hex>`, named by sha256 fs-verity digest: the objects of an ostree or
//! bootc host's composefs repository, of composefs-rs, of `mkcomposefs --digest-store`. Nothing that it says is believed:
//! * The kernel measures the file ([`measure_verity`]). With fs-verity its content can never change again, whoever owns it.
//! * All of it is read once before it is linked. The measure is what the file must hold; a block that has rotted shows only
//!   when it is read, and a repair must not take the same file again.
//!
//! `adopt` then makes an object of it.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::image::verity::VerityDigest;
use crate::sys::verity::measure_verity;

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;

/// The other stores, in the order in which they are asked.
#[derive(Debug, Default)]
pub(in crate::image) struct ObjectSources(Vec<Source>);

/// One of them.
#[derive(Debug)]
pub(super) struct Source {
    directory: OwnedFd,
    path: PathBuf,
    /// What has not failed for good so far: then a file is not read in vain.
    links: AtomicBool,
    shares: AtomicBool,
    /// Whether it was said that files have another label than ours.
    said_labels: AtomicBool,
}

impl ObjectSources {
    /// Opens the directories; of a repository, its directory `objects`. One that cannot be used is named in the log and left
    /// out: what it has is then written, as without it.
    pub(in crate::image) fn open(paths: &[PathBuf]) -> Self {
        let mut sources = Vec::new();
        for path in paths {
            match open_directory(path) {
                Ok((directory, path)) => {
                    let [links, shares, said_labels] = [true, true, false].map(AtomicBool::new);
                    sources.push(Source { directory, path, links, shares, said_labels });
                }
                Err(errno) => {
                    let source = path.display();
                    tracing::warn!(%source, %errno, "an object source cannot be opened: nothing is taken from it until the next start");
                }
            }
        }
        Self(sources)
    }

    /// Those that something can be had of.
    pub(super) fn of_use(&self) -> impl Iterator<Item = &Source> {
        self.0.iter().filter(|source| source.is_of_use())
    }

    /// Says that nothing is taken from them, because of `why`.
    pub(in crate::image) fn give_up(self, why: &str) -> Self {
        for source in &self.0 {
            tracing::warn!(source = %source.path.display(), why, "an object source is not used: objects are linked only where the kernel measures them");
        }
        Self::default()
    }
}

/// The directory of objects at `path`.
fn open_directory(path: &Path) -> Result<(OwnedFd, PathBuf), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let below = path.join("objects");
    match rustix::fs::open(&below, flags, Mode::empty()) {
        Ok(directory) => Ok((directory, below)),
        Err(Errno::NOENT | Errno::NOTDIR) => {
            Ok((rustix::fs::open(path, flags, Mode::empty())?, path.to_owned()))
        }
        Err(errno) => Err(errno),
    }
}

impl Source {
    /// Whether its files may be linked, as far as is known.
    pub(super) fn links(&self) -> bool {
        self.links.load(Ordering::Relaxed)
    }

    /// Whether its files may share their blocks, as far as is known.
    pub(super) fn shares(&self) -> bool {
        self.shares.load(Ordering::Relaxed)
    }

    fn is_of_use(&self) -> bool {
        self.links() || self.shares()
    }

    /// Notes that a file could not be linked.
    pub(super) fn links_not(&self, errno: Errno) {
        self.failed(&self.links, errno, &[Errno::XDEV, Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS]);
    }

    /// Notes that a file could not share its blocks.
    pub(super) fn shares_not(&self, errno: Errno) {
        self.failed(&self.shares, errno, &[Errno::XDEV, Errno::OPNOTSUPP, Errno::NOTTY]);
    }

    /// One way of taking objects has failed: for good, if for these reasons, which is said if it was the last way.
    fn failed(&self, way: &AtomicBool, errno: Errno, for_good: &[Errno]) {
        let source = self.path.display();
        tracing::debug!(%source, %errno, "an object of another store cannot be taken this way");
        if for_good.contains(&errno) && way.swap(false, Ordering::Relaxed) && !self.is_of_use() {
            tracing::warn!(%source, %errno, "an object source is of no use: its files can neither be linked into the store nor share blocks with it, as on another filesystem, or without CAP_DAC_READ_SEARCH");
        }
    }

    /// Notes that a file has another SELinux label than our objects.
    pub(super) fn is_labelled_otherwise(&self) {
        if !self.said_labels.swap(true, Ordering::Relaxed) {
            let source = self.path.display();
            tracing::warn!(%source, "files of an object source have another SELinux label than the store's objects, and are not linked");
        }
    }

    /// The file of this name that is this object, measured; `None` if there is none.
    pub(super) fn find(&self, name: &str, digest: &VerityDigest, size: u64) -> Option<File> {
        // A pipe in its place would be waited for.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&self.directory, name, flags, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_file || u64::try_from(stat.st_size) != Ok(size) || measure_verity(&file) != Ok(digest.0) {
            return None;
        }
        Some(File::from(file))
    }

    /// Whether all of a file can be read.
    pub(super) fn is_sound(&self, file: &File, name: &str) -> bool {
        match read_whole(file) {
            Ok(()) => true,
            Err(error) => {
                let object = self.path.join(name);
                tracing::warn!(object = %object.display(), %error, "an object of another store is damaged: it is not taken, and its owner should repair it");
                false
            }
        }
    }
}

/// Reads a file to its end. With fs-verity, the kernel checks every block that comes from the disk.
fn read_whole(mut file: &File) -> std::io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_named_by_its_root_or_by_its_objects() {
        let repository = tempfile::tempdir().unwrap();
        let (_, path) = open_directory(repository.path()).unwrap();
        assert_eq!(path, repository.path());
        std::fs::create_dir(repository.path().join("objects")).unwrap();
        let (_, path) = open_directory(repository.path()).unwrap();
        assert_eq!(path, repository.path().join("objects"));
        assert_eq!(open_directory(&repository.path().join("none")).unwrap_err(), Errno::NOENT);
    }
}
