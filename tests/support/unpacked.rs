//! A directory that somebody else has unpacked, as entries: what it takes to compare it with a tree.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use composefs_csi::image::entry::{Entry, EntryKind, Meta, Mtime};
use composefs_csi::image::verity::VerityDigest;

/// Everything below `root` and itself, parents first, names in order.
pub fn entries(root: &Path) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut first_names: HashMap<(u64, u64), Box<[u8]>> = HashMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(at) = todo.pop() {
        let stat = fs::symlink_metadata(&at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
        let path: Box<[u8]> = at.strip_prefix(root).expect("below the root").as_os_str().as_bytes().into();
        if stat.is_dir() {
            let mut below: Vec<PathBuf> =
                fs::read_dir(&at).expect("readable").map(|entry| entry.expect("readable").path()).collect();
            below.sort();
            todo.extend(below.into_iter().rev());
        }
        let first = first_names.get(&(stat.dev(), stat.ino())).filter(|_| !stat.is_dir());
        let kind = match first {
            Some(first) => EntryKind::Hardlink(first.clone()),
            None => kind(&at, &stat),
        };
        first_names.entry((stat.dev(), stat.ino())).or_insert_with(|| path.clone());
        entries.push(Entry { path, meta: meta(&at, &stat), kind });
    }
    entries
}

fn kind(path: &Path, stat: &fs::Metadata) -> EntryKind {
    let (major, minor) = (rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()));
    match stat.file_type() {
        kind if kind.is_dir() => EntryKind::Directory,
        kind if kind.is_symlink() => {
            EntryKind::Symlink(fs::read_link(path).expect("a link").as_os_str().as_bytes().into())
        }
        kind if kind.is_fifo() => EntryKind::Fifo,
        kind if kind.is_char_device() => EntryKind::CharDevice(major, minor),
        kind if kind.is_block_device() => EntryKind::BlockDevice(major, minor),
        _ => {
            let content = fs::read(path).expect("readable");
            match content.len() {
                ..=64 => EntryKind::Inline(content.into()),
                size => EntryKind::Object(VerityDigest::of(&content), size as u64),
            }
        }
    }
}

fn meta(path: &Path, stat: &fs::Metadata) -> Meta {
    let mut names = vec![0; 65536];
    let size = rustix::fs::llistxattr(path, &mut names).expect("attributes can be listed");
    let names = names[..size].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut xattrs: Vec<_> = names
        .map(|name| {
            let mut value = vec![0; 65536];
            let size = rustix::fs::lgetxattr(path, name, &mut value).expect("an attribute");
            (Box::from(name), Box::from(&value[..size]))
        })
        .collect();
    xattrs.sort();
    let mtime = Mtime { secs: stat.mtime(), nanos: stat.mtime_nsec() as u32 };
    Meta { mode: stat.mode() & 0o7777, uid: stat.uid(), gid: stat.gid(), mtime, xattrs }
}
