//! Extended attributes. Each distinct set is held once: most inodes have none, and many share theirs.

use std::collections::HashMap;
use std::sync::Arc;

use crate::image::entry::Xattr;

/// Extended attributes sorted by name.
pub(in crate::image) type Xattrs = [Xattr];

/// Attributes that one inode may have. From 129 on, the composefs project's two writers differ in which ones
/// they store as shared, and the format adds up to six of its own.
const MAX_COUNT: usize = 120;
/// Longest name in bytes on Linux (`XATTR_NAME_MAX`).
const MAX_NAME: usize = 255;
/// Bytes that the attributes of one inode may take in an image: what the composefs project's tools accept from
/// foreign input.
const MAX_BYTES: usize = 32767;
/// Bytes that the format adds for an inode with attributes.
const HEADER: usize = 12;
/// Bytes that the format adds for each attribute, alignment included.
const ENTRY: usize = 7;

/// Names a set of extended attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::image) struct XattrsId(u32);

impl XattrsId {
    /// The empty set.
    pub(super) const NONE: Self = Self(0);

    /// Position in [`CheckedTree::xattr_sets`](super::CheckedTree::xattr_sets).
    pub(in crate::image) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Distinct sets of extended attributes.
#[derive(Debug)]
pub(super) struct XattrTable {
    sets: Vec<Arc<Xattrs>>,
    ids: HashMap<Arc<Xattrs>, XattrsId>,
}

impl XattrTable {
    pub(super) fn new() -> Self {
        Self { sets: vec![Arc::from([])], ids: HashMap::new() }
    }

    pub(super) fn get(&self, id: XattrsId) -> &Xattrs {
        &self.sets[id.0 as usize]
    }

    /// Every set, by id.
    pub(super) fn sets(&self) -> &[Arc<Xattrs>] {
        &self.sets
    }

    /// Frees what only new sets need.
    pub(super) fn shrink(&mut self) {
        self.ids = HashMap::new();
        self.sets.shrink_to_fit();
    }

    /// The id of a set, and the bytes by which the table grew.
    pub(super) fn intern(&mut self, set: Vec<Xattr>) -> (XattrsId, usize) {
        if set.is_empty() {
            return (XattrsId::NONE, 0);
        }
        let set: Arc<Xattrs> = set.into();
        if let Some(id) = self.ids.get(&set) {
            return (*id, 0);
        }
        let id = XattrsId(self.sets.len() as u32);
        let bytes = size(&set);
        self.ids.insert(set.clone(), id);
        self.sets.push(set);
        (id, bytes)
    }
}

fn size(set: &Xattrs) -> usize {
    set.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// Checks a set against the limits of the format. The error says what is wrong.
pub(super) fn check(set: &Xattrs) -> Result<(), String> {
    if set.len() > MAX_COUNT {
        return Err(format!("{} attributes, and {MAX_COUNT} are allowed", set.len()));
    }
    for (name, _) in set {
        if name.is_empty() || name.len() > MAX_NAME || name.contains(&0) {
            let shown = String::from_utf8_lossy(name);
            return Err(format!("the name {shown:?} is not 1 to {MAX_NAME} bytes without NUL"));
        }
    }
    let bytes = HEADER + size(set) + set.len() * ENTRY;
    // An inode without attributes has no header either.
    if !set.is_empty() && bytes > MAX_BYTES {
        return Err(format!("they take {bytes} bytes, and {MAX_BYTES} are allowed"));
    }
    // Sorted, so that equal sets are found; each once, as in a filesystem.
    if set.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
        return Err("the names are not in order, each once".to_owned());
    }
    Ok(())
}
