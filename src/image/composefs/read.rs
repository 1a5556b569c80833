//! The tree of an image, read back from its bytes: what a mount of it would show, entry by entry.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use composefs::erofs::reader::erofs_to_filesystem;
use composefs::fsverity::{FsVerityHashValue as _, Sha256HashValue};
use composefs::generic_tree::LeafId;
use composefs::tree::{Directory, FileSystem, Inode, LeafContent, RegularFile, Stat};

use super::error::ImageError;
use super::thread::in_own_thread;
use crate::image::entry::{EntryKind, LayerEntry, Meta, Mtime};
use crate::image::verity::VerityDigest;

/// Symbolic links that the path of a directory may go through, as in Linux (MAXSYMLINKS).
const MAX_LINKS: usize = 40;

type Fs = FileSystem<Sha256HashValue>;
type Dir = Directory<Sha256HashValue>;

/// Calls `visit` for everything below the directory `path` of an image, with paths relative to that: the directory
/// itself first, a directory before what is in it, and further names of an inode as hard links to the first. `path` is
/// relative, empty for the root; symbolic links on it are followed inside the image, as when a directory is mounted.
///
/// The bytes are checked as far as the format goes; that they are the right ones is for the caller to know.
///
/// # Errors
/// The bytes are not a composefs image, or there is no such directory. The inner error is that of `visit`, which ends
/// the walk.
pub fn each_entry<E: Send>(
    image: &[u8],
    path: &[u8],
    visit: impl FnMut(LayerEntry) -> Result<(), E> + Send,
) -> Result<Result<(), E>, ImageError> {
    in_own_thread(|| {
        let tree: Fs = erofs_to_filesystem(image)
            .map_err(|error| ImageError::Corrupt { reason: format!("{error:#}") })?;
        let top = directory(&tree, path)?;
        walk(&tree, top, visit)
    })
}

/// A directory being walked: the length of its path, and its entries still to come.
struct Frame<'a> {
    length: usize,
    rest: Box<dyn Iterator<Item = (&'a OsStr, &'a Inode<Sha256HashValue>)> + 'a>,
}

fn walk<E>(
    tree: &Fs,
    top: &Dir,
    mut visit: impl FnMut(LayerEntry) -> Result<(), E>,
) -> Result<Result<(), E>, ImageError> {
    let names = tree.nlinks();
    // Only of inodes with several names.
    let mut first: Vec<Option<Box<[u8]>>> = vec![None; names.len()];
    let mut path = Vec::new();
    let entry = |path: &[u8], meta, kind| LayerEntry { path: path.into(), meta, kind };
    if let Err(error) = visit(entry(b"", meta(&top.stat), EntryKind::Directory)) {
        return Ok(Err(error));
    }
    let mut stack = vec![Frame { length: 0, rest: Box::new(top.sorted_entries()) }];
    while let Some(frame) = stack.last_mut() {
        path.truncate(frame.length);
        let Some((name, inode)) = frame.rest.next() else {
            stack.pop();
            continue;
        };
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        let visited = match inode {
            Inode::Directory(dir) => {
                stack.push(Frame { length: path.len(), rest: Box::new(dir.sorted_entries()) });
                visit(entry(&path, meta(&dir.stat), EntryKind::Directory))
            }
            Inode::Leaf(LeafId(index), _) => match first.get(*index) {
                Some(Some(target)) => {
                    visit(entry(&path, Meta::default(), EntryKind::Hardlink(target.clone())))
                }
                _ => {
                    let leaf = tree.leaves.get(*index).ok_or_else(|| damaged("a name without an inode"))?;
                    if names.get(*index).is_some_and(|names| *names > 1)
                        && let Some(slot) = first.get_mut(*index)
                    {
                        *slot = Some(path.as_slice().into());
                    }
                    visit(entry(&path, meta(&leaf.stat), content(&leaf.content)?))
                }
            },
        };
        if let Err(error) = visited {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

/// The directory that a path leads to, inside the image whatever it goes through.
fn directory<'a>(tree: &'a Fs, path: &[u8]) -> Result<&'a Dir, ImageError> {
    let refused =
        |problem| ImageError::NoDirectory { path: String::from_utf8_lossy(path).into_owned(), problem };
    // From the root to the current one: `..` of a link goes back along them, and stops at the root.
    let mut dirs = vec![&tree.root];
    let mut todo: Vec<Vec<u8>> = names(path);
    let mut links = 0;
    while let Some(name) = todo.pop() {
        let at = dirs.last().copied().unwrap_or(&tree.root);
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                if dirs.len() > 1 {
                    dirs.pop();
                }
                continue;
            }
            _ => {}
        }
        match at.lookup(OsStr::from_bytes(&name)) {
            None => return Err(refused("does not exist")),
            Some(Inode::Directory(dir)) => dirs.push(dir),
            Some(Inode::Leaf(LeafId(index), _)) => {
                let content = tree.leaves.get(*index).map(|leaf| &leaf.content);
                let Some(LeafContent::Symlink(target)) = content else {
                    return Err(refused("is not a directory"));
                };
                links += 1;
                if links > MAX_LINKS {
                    return Err(refused("goes through too many symbolic links"));
                }
                if target.as_bytes().starts_with(b"/") {
                    dirs.truncate(1);
                }
                todo.extend(names(target.as_bytes()));
            }
        }
    }
    Ok(dirs.last().copied().unwrap_or(&tree.root))
}

/// The names of a path, the last one first.
fn names(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect()
}

fn meta(stat: &Stat) -> Meta {
    let xattrs = stat.xattrs.iter().map(|(name, value)| (name.as_bytes().into(), value.clone()));
    Meta {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Mtime { secs: stat.st_mtim_sec, nanos: stat.st_mtim_nsec },
        xattrs: xattrs.collect(),
    }
}

fn content(content: &LeafContent<Sha256HashValue>) -> Result<EntryKind, ImageError> {
    Ok(match content {
        LeafContent::Regular(RegularFile::Inline(bytes)) => EntryKind::Inline(bytes.clone()),
        LeafContent::Regular(RegularFile::External(digest, size)) => {
            EntryKind::Object(self::digest(digest), *size)
        }
        LeafContent::Regular(RegularFile::ExternalNoVerity(..) | RegularFile::Sparse(_)) => {
            return Err(damaged("a file without a digest"));
        }
        LeafContent::Symlink(target) => EntryKind::Symlink(target.as_bytes().into()),
        LeafContent::CharacterDevice(number) => {
            let (major, minor) = numbers(*number);
            EntryKind::CharDevice(major, minor)
        }
        LeafContent::BlockDevice(number) => {
            let (major, minor) = numbers(*number);
            EntryKind::BlockDevice(major, minor)
        }
        LeafContent::Fifo => EntryKind::Fifo,
        LeafContent::Socket => return Err(damaged("a socket")),
    })
}

/// Major and minor number as the kernel keeps them on disk (`new_decode_dev`, include/linux/kdev_t.h).
fn numbers(encoded: u64) -> (u32, u32) {
    let number = encoded as u32;
    ((number & 0xf_ff00) >> 8, (number & 0xff) | ((number >> 12) & 0xf_ff00))
}

/// From the crate's digest to ours.
pub(super) fn digest(id: &Sha256HashValue) -> VerityDigest {
    VerityDigest::from_hex(&id.to_hex()).unwrap_or(VerityDigest([0; 32]))
}

fn damaged(what: &str) -> ImageError {
    ImageError::Corrupt { reason: format!("it has {what}") }
}
