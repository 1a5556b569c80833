//! What lies in the store's directories and is not the store's: left alone, and named in the log once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Names that are remembered, so that a directory full of them fills neither the log nor the memory.
const MAX: usize = 100;

/// The names that were logged. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(in crate::image) struct Strangers(Arc<Mutex<BTreeSet<PathBuf>>>);

impl Strangers {
    /// Notes that `path` is not the store's. Returns whether that was logged now.
    pub(in crate::image) fn note(&self, path: &Path) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = seen.len() < MAX && seen.insert(path.to_owned());
        if is_new {
            let last = seen.len() == MAX;
            tracing::warn!(path = %path.display(), last, "not the store's; left alone. Remove it, or move it elsewhere");
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_named_once_and_not_without_end() {
        let strangers = Strangers::default();
        assert!(strangers.note(Path::new("/s/a")) && strangers.note(Path::new("/s/b")));
        assert!(!strangers.clone().note(Path::new("/s/a")));
        let named = (0..1000).filter(|i| strangers.note(&PathBuf::from(format!("/s/{i}")))).count();
        assert_eq!(named, MAX - 2);
    }
}
