//! What a file's content is in a composefs image: computed where an image is sealed at once.

use crate::image::entry::{EntryKind, INLINE_MAX};
use crate::image::verity::VerityHasher;

/// Takes a file's content as it is read.
pub(super) enum ContentHasher {
    /// Nobody asks.
    Nothing,
    Inline(Vec<u8>),
    Object(Box<VerityHasher>, u64),
}

impl ContentHasher {
    pub(super) fn new(size: u64, is_wanted: bool) -> Self {
        match size {
            _ if !is_wanted => Self::Nothing,
            small if small <= INLINE_MAX as u64 => Self::Inline(Vec::new()),
            size => Self::Object(Box::default(), size),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Nothing => {}
            Self::Inline(content) => content.extend_from_slice(bytes),
            Self::Object(hasher, _) => hasher.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Option<EntryKind> {
        match self {
            Self::Nothing => None,
            Self::Inline(content) => Some(EntryKind::Inline(content.into())),
            Self::Object(hasher, size) => Some(EntryKind::Object(hasher.finish(), size)),
        }
    }
}
