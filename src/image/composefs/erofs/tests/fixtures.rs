//! Trees from entries as they are, and the comparison.

use super::oracle;
use super::*;
use crate::image::entry::{LayerEntry, Meta};
use crate::image::tree::{Combiner, Stop};
use crate::oci::limits::ImageLimits;

pub fn entry(path: impl AsRef<[u8]>, kind: EntryKind) -> LayerEntry {
    let mtime = Mtime { secs: 1_700_000_000, nanos: 0 };
    let meta = Meta { mode: 0o644, uid: 0, gid: 0, mtime, xattrs: vec![] };
    LayerEntry { path: path.as_ref().into(), meta, kind }
}

pub fn dir(path: impl AsRef<[u8]>) -> LayerEntry {
    let mut dir = entry(path, EntryKind::Directory);
    dir.meta.mode = 0o755;
    dir
}

/// A regular file. Some objects have much of their digests in common.
pub fn file(path: impl AsRef<[u8]>, size: u64, seed: u8) -> LayerEntry {
    if size <= 64 {
        return entry(path, EntryKind::Inline(vec![seed; size as usize].into()));
    }
    let mut digest = [seed / 4; 32];
    digest[31] = seed;
    entry(path, EntryKind::Object(VerityDigest(digest), size))
}

/// The same with one more attribute, unless it has it.
pub fn with_xattr(mut entry: LayerEntry, name: &str, value: &[u8]) -> LayerEntry {
    if entry.meta.xattrs.iter().all(|(other, _)| **other != *name.as_bytes()) {
        entry.meta.xattrs.push((name.as_bytes().into(), value.into()));
        entry.meta.xattrs.sort();
    }
    entry
}

/// The tree of these entries, without any rule about them: as if they came from an image.
pub fn tree(entries: &[LayerEntry]) -> CheckedTree {
    let mut combiner = Combiner::new(ImageLimits::DEFAULT, &Stop::default());
    combiner.begin("the test's", b"");
    entries.iter().for_each(|entry| combiner.add(entry.clone()).unwrap());
    combiner.finish()
}

/// Our image of a tree must be the crate's.
pub fn check(entries: &[LayerEntry]) {
    compare(&tree(entries), &tree(entries)).unwrap_or_else(|difference| panic!("{difference}"));
}

/// The same for property tests. The second tree is ours.
pub fn compare(tree: &CheckedTree, ours: &CheckedTree) -> Result<(), String> {
    let theirs = oracle::written(tree).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let layout = Layout::of(ours).map_err(|error| error.to_string())?;
    let Ok(()) = Emitter::new(ours, &layout, |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok::<_, Infallible>(())
    })
    .run();
    if *bytes == *theirs {
        return Ok(());
    }
    let at = bytes.iter().zip(&theirs).position(|(one, other)| one != other);
    let around = |bytes: &[u8]| at.map(|at| bytes[at & !31..bytes.len().min((at & !31) + 64)].to_vec());
    Err(format!(
        "{} bytes of ours and {} of the crate's differ at {at:?}:\n{:02x?}\n{:02x?}",
        bytes.len(),
        theirs.len(),
        around(&bytes),
        around(&theirs)
    ))
}
