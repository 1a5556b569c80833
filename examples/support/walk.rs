//! Writes directories of this machine into image layers, in a fixed order, with optional edits.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::layout::LayerWriter;
use super::tarball::{Kind, Member};

/// Limits of a walk. It ends when a limit is reached; larger files are skipped.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub files: u64,
    pub bytes: u64,
    pub file_bytes: u64,
}

impl Limit {
    pub const NONE: Self = Self { files: u64::MAX, bytes: u64::MAX, file_bytes: u64::MAX };
}

/// Changes a member before it is written, and says what to append to a file's content.
pub type Edit<'a> = &'a dyn Fn(&mut Member) -> &'static [u8];

/// Keeps every member unchanged.
pub fn as_it_is(_: &mut Member) -> &'static [u8] {
    b""
}

/// Walks directories into one layer.
pub struct Walk<'a> {
    layer: &'a mut LayerWriter,
    edit: Edit<'a>,
    left: Limit,
    /// First names of files with several, by device and inode.
    linked: HashMap<(u64, u64), Vec<u8>>,
}

impl<'a> Walk<'a> {
    pub fn new(layer: &'a mut LayerWriter, limit: Limit, edit: Edit<'a>) -> Self {
        Self { layer, edit, left: limit, linked: HashMap::new() }
    }

    /// Adds everything below `directory` under the name `at` (relative; empty for the root).
    pub fn add(&mut self, directory: &Path, at: &Path) -> io::Result<()> {
        let mut names: Vec<_> = fs::read_dir(directory)?.collect::<Result<_, _>>()?;
        names.sort_by_key(std::fs::DirEntry::file_name);
        for entry in names {
            let (source, name) = (entry.path(), at.join(entry.file_name()));
            let metadata = fs::symlink_metadata(&source)?;
            if metadata.is_dir() {
                self.write(&name, &metadata, Kind::Directory, io::empty())?;
                self.add(&source, &name)?;
            } else if metadata.is_symlink() {
                let target = fs::read_link(&source)?.as_os_str().as_bytes().to_vec();
                self.write(&name, &metadata, Kind::Symlink(target), io::empty())?;
            } else if metadata.is_file() && metadata.len() <= self.left.file_bytes {
                if self.left.files == 0 || self.left.bytes < metadata.len() {
                    return Ok(());
                }
                self.file(&source, &name, &metadata)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, source: &Path, name: &Path, metadata: &Metadata) -> io::Result<()> {
        let identity = (metadata.dev(), metadata.ino());
        if let Some(first) = self.linked.get(&identity) {
            let first = Kind::Hardlink(first.clone());
            return self.write(name, metadata, first, io::empty());
        }
        self.left.files -= 1;
        self.left.bytes -= metadata.len();
        self.write(name, metadata, Kind::File, File::open(source)?)
    }

    fn write(&mut self, name: &Path, metadata: &Metadata, kind: Kind, content: impl Read) -> io::Result<()> {
        let size = if kind == Kind::File { metadata.len() } else { 0 };
        let mut member = Member {
            path: name.as_os_str().as_bytes().to_vec(),
            kind,
            mode: metadata.mode(),
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime: u64::try_from(metadata.mtime()).unwrap_or(0),
            size,
        };
        let appended = (self.edit)(&mut member);
        if member.kind == Kind::File {
            member.size += appended.len() as u64;
            // The edit may have renamed it, so the first name is what was written.
            if metadata.nlink() > 1 {
                self.linked.insert((metadata.dev(), metadata.ino()), member.path.clone());
            }
        }
        self.layer.append(&member, content.take(size).chain(appended))
    }
}
