//! Finds what a directory holds: names in order, what is kept of their metadata, and what cannot be pushed.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::error::PushError;
use super::item::{FileSource, Item, ItemKind, Stamp, shown};
use crate::durable_file::assert_may_block;
use crate::image::entry::{Meta, Mtime, Xattr};

/// What is kept of the metadata of files, and what becomes of links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanRules {
    /// Modification times.
    pub times: Times,
    /// Whether owners are kept; everything belongs to root otherwise.
    pub owners: bool,
    /// Whether a symbolic link is replaced by the file that it leads to.
    pub follow_links: bool,
    /// Whether the tree may hold files alone, as artifacts do: links are refused, and a file of two names is two files.
    pub files_only: bool,
    /// Most names.
    pub entries_max: u64,
}

/// Modification times of what is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// This one, in seconds since 1970.
    All(i64),
    /// Their own, but none later than this one (reproducible-builds.org, "SOURCE_DATE_EPOCH").
    Kept(Option<i64>),
}

impl Times {
    fn of(self, own: Mtime) -> Mtime {
        let at = |secs| Mtime { secs, nanos: 0 };
        match self {
            Self::All(secs) => at(secs),
            Self::Kept(Some(latest)) if own > at(latest) => at(latest),
            Self::Kept(_) => own,
        }
    }
}

/// Bytes of an attribute, and of the list of their names (xattr(7)).
const XATTR_MAX: usize = 64 << 10;

/// Finds everything below `root`, which is itself not part of the tree: parents first, names in order of their bytes.
/// Blocks.
///
/// # Errors
/// Something cannot be read, or cannot be in an image.
pub(super) fn scan(root: &Path, rules: &ScanRules) -> Result<Vec<Item>, PushError> {
    assert_may_block();
    let read = |source| PushError::Read { path: root.to_owned(), source };
    if !fs::metadata(root).map_err(read)?.is_dir() {
        return Err(PushError::NotADirectory { path: root.to_owned() });
    }
    let mut walk = Walk { rules, items: Vec::new(), names: HashMap::new(), buffer: vec![0; XATTR_MAX] };
    walk.directory(root, &[])?;
    let is_needed = |item: &Item| !rules.files_only || matches!(item.kind, ItemKind::File(_));
    if !walk.items.iter().any(is_needed) {
        return Err(PushError::Empty { path: root.to_owned() });
    }
    Ok(walk.items)
}

struct Walk<'a> {
    rules: &'a ScanRules,
    items: Vec<Item>,
    /// The first name of each file that has several.
    names: HashMap<(u64, u64), Box<[u8]>>,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    fn directory(&mut self, at: &Path, below: &[u8]) -> Result<(), PushError> {
        let read = |source| PushError::Read { path: at.to_owned(), source };
        let entries = fs::read_dir(at).map_err(read)?;
        let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_vec()));
        let mut names = names.collect::<Result<Vec<_>, _>>().map_err(read)?;
        names.sort_unstable();
        for name in names {
            let mut path = below.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            if name.starts_with(b".wh.") {
                return Err(PushError::Marker { path: shown(&path) });
            }
            self.entry(&at.join(std::ffi::OsStr::from_bytes(&name)), path)?;
        }
        Ok(())
    }

    fn entry(&mut self, at: &Path, path: Vec<u8>) -> Result<(), PushError> {
        let read = |source| PushError::Read { path: at.to_owned(), source };
        let mut stat = fs::symlink_metadata(at).map_err(read)?;
        let mut source = at.to_owned();
        if stat.is_symlink() && self.rules.follow_links {
            let dangling = |_| PushError::Dangling { path: shown(&path) };
            source = fs::canonicalize(at).map_err(dangling)?;
            stat = fs::metadata(&source).map_err(dangling)?;
            if !stat.is_file() {
                return Err(PushError::Dangling { path: shown(&path) });
            }
        }
        let kind = self.kind(&stat, source, &path)?;
        let meta = self.meta(at, &stat, &kind)?;
        let is_directory = kind == ItemKind::Directory;
        // Artifacts have no directories but those on the way to their files.
        if !(is_directory && self.rules.files_only) {
            self.items.push(Item { path: path.as_slice().into(), meta, kind });
        }
        if self.items.len() as u64 > self.rules.entries_max {
            let (found, limit) = (self.items.len() as u64, self.rules.entries_max);
            return Err(PushError::TooMany { found, what: "names", limit });
        }
        if is_directory { self.directory(at, &path) } else { Ok(()) }
    }

    fn kind(&mut self, stat: &Metadata, source: PathBuf, path: &[u8]) -> Result<ItemKind, PushError> {
        let special = |what| Err(PushError::Special { path: shown(path), what });
        let sort = stat.file_type();
        if sort.is_dir() {
            Ok(ItemKind::Directory)
        } else if sort.is_symlink() {
            if self.rules.files_only {
                return Err(PushError::Link { path: shown(path) });
            }
            let read = |error| PushError::Read { path: source.clone(), source: error };
            let target = fs::read_link(&source).map_err(read)?;
            Ok(ItemKind::Symlink(target.into_os_string().into_vec().into()))
        } else if sort.is_file() {
            if stat.nlink() > 1 && !self.rules.files_only {
                let first = self.names.entry((stat.dev(), stat.ino())).or_insert_with(|| path.into());
                if **first != *path {
                    return Ok(ItemKind::Hardlink(first.clone()));
                }
            }
            Ok(ItemKind::File(FileSource { path: source, stamp: Stamp::of(stat) }))
        } else if sort.is_socket() {
            special("socket")
        } else if sort.is_fifo() {
            special("named pipe")
        } else if sort.is_block_device() {
            special("block device")
        } else {
            special("character device")
        }
    }

    fn meta(&mut self, at: &Path, stat: &Metadata, kind: &ItemKind) -> Result<Meta, PushError> {
        let own = Mtime { secs: stat.mtime(), nanos: u32::try_from(stat.mtime_nsec()).unwrap_or_default() };
        let (uid, gid) = if self.rules.owners { (stat.uid(), stat.gid()) } else { (0, 0) };
        let is_bare = self.rules.files_only || matches!(kind, ItemKind::Symlink(_) | ItemKind::Hardlink(_));
        let xattrs = if is_bare { Vec::new() } else { self.xattrs(at)? };
        Ok(Meta { mode: stat.mode() & 0o7777, uid, gid, mtime: self.rules.times.of(own), xattrs })
    }

    /// The attributes that mean something on another machine, sorted by name: what volumes show
    /// ([`crate::image::tree::Rules::Faithful`]).
    fn xattrs(&mut self, at: &Path) -> Result<Vec<Xattr>, PushError> {
        use rustix::io::Errno;
        let read = |error: Errno| PushError::Read { path: at.to_owned(), source: error.into() };
        let size = match rustix::fs::llistxattr(at, &mut self.buffer) {
            Ok(size) => size,
            Err(Errno::NOTSUP) => 0,
            Err(error) => return Err(read(error)),
        };
        let listed = self.buffer.get(..size).unwrap_or_default().to_vec();
        let names = listed.split(|byte| *byte == 0).filter(|name| is_kept(name));
        let mut found = Vec::new();
        for name in names {
            match rustix::fs::lgetxattr(at, name, &mut self.buffer) {
                Ok(size) => found.push((name.into(), self.buffer.get(..size).unwrap_or_default().into())),
                // It went meanwhile, and the file's time of change says so.
                Err(Errno::NODATA) => {}
                Err(error) => return Err(read(error)),
            }
        }
        found.sort();
        Ok(found)
    }
}

fn is_kept(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_") || name == b"security.capability"
}

#[cfg(test)]
mod tests;
