//! The sets of extended attributes that a record has named lately. Most entries of a layer with attributes have the same
//! ones, which then stand in the record once.
//!
//! Writer and reader keep the same sets by the same rule, so that a number says which one is meant. When the next one
//! would make them too large, all are forgotten.

use std::sync::Arc;

use crate::image::entry::Xattr;

/// What the sets may take in memory, in bytes. A larger set is never remembered.
const MAX_BYTES: usize = 1 << 20;
/// What an attribute takes in memory besides name and value, and a set besides its attributes.
const OVERHEAD: usize = 64;

/// The sets, numbered in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct RecentSets {
    sets: Vec<Arc<[Xattr]>>,
    bytes: usize,
}

/// What became of a set that came for the first time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Remembered {
    /// Whether those before it are forgotten.
    pub(super) forgot: bool,
    /// Its number; `None` for one that is too large.
    pub(super) number: Option<usize>,
}

impl RecentSets {
    pub(super) fn get(&self, number: usize) -> Option<&[Xattr]> {
        self.sets.get(number).map(|set| &**set)
    }

    pub(super) fn remember(&mut self, set: &Arc<[Xattr]>) -> Remembered {
        let size =
            set.iter().map(|(name, value)| OVERHEAD + name.len() + value.len()).sum::<usize>() + OVERHEAD;
        if size > MAX_BYTES {
            return Remembered { forgot: false, number: None };
        }
        let forgot = self.bytes + size > MAX_BYTES;
        if forgot {
            *self = Self::default();
        }
        self.bytes += size;
        self.sets.push(Arc::clone(set));
        Remembered { forgot, number: Some(self.sets.len() - 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(bytes: usize) -> Arc<[Xattr]> {
        Arc::from([(b"user.a".as_slice().into(), vec![7; bytes].into_boxed_slice())])
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = RecentSets::default();
        let huge = recent.remember(&set(MAX_BYTES));
        assert_eq!(huge, Remembered { forgot: false, number: None });
        let mut forgotten = 0;
        for number in 0..5000 {
            let remembered = recent.remember(&set(number));
            assert_eq!(recent.get(remembered.number.unwrap()).unwrap(), &*set(number));
            forgotten += usize::from(remembered.forgot);
            assert!(recent.bytes <= MAX_BYTES && recent.sets.len() * OVERHEAD <= MAX_BYTES);
        }
        // 12.5 MB of values.
        assert!((12..20).contains(&forgotten), "{forgotten}");
        assert_eq!(recent.get(recent.sets.len()), None);
    }
}
