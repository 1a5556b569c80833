//! What the composefs crate's writer makes of the same tree.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use composefs::erofs::format::FormatVersion;
use composefs::erofs::writer::{ValidatedFileSystem, mkfs_erofs_versioned};
use composefs::fsverity::Sha256HashValue;
use composefs::generic_tree::LeafId;
use composefs::tree::{self, Directory, FileSystem, Inode, LeafContent, RegularFile};

use crate::image::composefs::ImageError;
use crate::image::composefs::thread::in_own_thread;
use crate::image::tree::{CheckedTree, NodeId, NodeKind, Stat};

/// The bytes of the image by the composefs crate.
pub(super) fn written(tree: &CheckedTree) -> Result<Box<[u8]>, ImageError> {
    in_own_thread(|| {
        let valid = ValidatedFileSystem::new(filesystem(tree)?)
            .map_err(|error| ImageError::Unsupported { reason: format!("{error:#}") })?;
        Ok(mkfs_erofs_versioned(&valid, FormatVersion::V1))
    })
}

/// A directory being filled: its name in the parent, and the entries still to be added.
struct Frame<'a> {
    name: &'a [u8],
    dir: Directory<Sha256HashValue>,
    rest: Box<dyn Iterator<Item = (&'a [u8], NodeId)> + 'a>,
}

/// Copies a tree into the crate's, without recursion: layers decide how deep it is.
fn filesystem(tree: &CheckedTree) -> Result<FileSystem<Sha256HashValue>, ImageError> {
    let mut done = FileSystem::new(stat(tree, &tree.node(NodeId::ROOT).stat));
    let mut leaves: Vec<Option<LeafId>> = vec![None; tree.slots()];
    let mut stack = vec![frame(tree, b"", NodeId::ROOT)];
    while let Some(mut top) = stack.pop() {
        let Some((name, id)) = top.rest.next() else {
            // Full. The crate wants a directory whole when it is added to its parent.
            match stack.last_mut() {
                Some(parent) => {
                    parent.dir.insert(OsStr::from_bytes(top.name), Inode::Directory(Box::new(top.dir)));
                }
                None => done.root = top.dir,
            }
            continue;
        };
        if tree.children(id).is_some() {
            stack.push(top);
            stack.push(frame(tree, name, id));
            continue;
        }
        // Another name of an inode is a hard link to the leaf of the first.
        let leaf = match leaves[id.index()] {
            Some(leaf) => leaf,
            None => done.push_leaf(stat(tree, &tree.node(id).stat), content(&tree.node(id).kind)?),
        };
        leaves[id.index()] = Some(leaf);
        top.dir.insert(OsStr::from_bytes(name), Inode::leaf(leaf));
        stack.push(top);
    }
    Ok(done)
}

fn frame<'a>(tree: &'a CheckedTree, name: &'a [u8], id: NodeId) -> Frame<'a> {
    let children = tree.children(id).into_iter().flatten();
    let rest = Box::new(children.map(|(name, child)| (&**name, *child)));
    Frame { name, dir: Directory::new(stat(tree, &tree.node(id).stat)), rest }
}

fn stat(tree: &CheckedTree, stat: &Stat) -> tree::Stat {
    let xattrs = tree.xattrs(stat.xattrs).iter();
    tree::Stat {
        st_mode: stat.mode.into(),
        st_uid: stat.uid,
        st_gid: stat.gid,
        st_mtim_sec: stat.mtime.secs,
        st_mtim_nsec: stat.mtime.nanos,
        xattrs: xattrs.map(|(name, value)| (OsStr::from_bytes(name).into(), value.clone())).collect(),
    }
}

fn content(kind: &NodeKind) -> Result<LeafContent<Sha256HashValue>, ImageError> {
    Ok(match kind {
        NodeKind::Inline(bytes) => LeafContent::Regular(RegularFile::Inline(bytes.clone())),
        NodeKind::Object(digest, size) => LeafContent::Regular(RegularFile::External(digest.0.into(), *size)),
        NodeKind::Symlink(target) => LeafContent::Symlink(OsStr::from_bytes(target).into()),
        NodeKind::CharDevice(number) => LeafContent::CharacterDevice((*number).into()),
        NodeKind::BlockDevice(number) => LeafContent::BlockDevice((*number).into()),
        NodeKind::Fifo => LeafContent::Fifo,
        // The caller treats directories, and no name of a checked tree leads to the others.
        NodeKind::Directory(_) | NodeKind::LeftOut | NodeKind::Pending | NodeKind::Free => {
            return Err(ImageError::Unsupported { reason: "an inode without content".to_owned() });
        }
    })
}
