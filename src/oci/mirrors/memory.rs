//! What one source remembers: which digests the registry has confirmed, and which places served wrong bytes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::oci::digest::Digest;

/// The most digests of each sort. An image has at most some hundred; beyond it, they are asked for again.
const DIGESTS_MAX: usize = 4096;

/// The memory of one source, which is as old as one request.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    confirmed: HashSet<Digest>,
    /// Which places the last stream of a blob came from.
    served: HashMap<Digest, BTreeSet<usize>>,
    wrong: HashMap<Digest, BTreeSet<usize>>,
}

impl Memory {
    pub(super) fn is_confirmed(&self, digest: &Digest) -> bool {
        self.inner().confirmed.contains(digest)
    }

    pub(super) fn confirm(&self, digest: Digest) {
        let mut inner = self.inner();
        if inner.confirmed.len() >= DIGESTS_MAX {
            inner.confirmed.clear();
        }
        inner.confirmed.insert(digest);
    }

    /// A new stream of the blob begins.
    pub(super) fn begin(&self, blob: Digest) {
        let mut inner = self.inner();
        if inner.served.len() >= DIGESTS_MAX {
            inner.served.clear();
        }
        inner.served.insert(blob, BTreeSet::new());
    }

    /// The stream of the blob goes on at `place`.
    pub(super) fn serves(&self, blob: Digest, place: usize) {
        self.inner().served.entry(blob).or_default().insert(place);
    }

    /// The places whose bytes of the blob are not to be trusted.
    pub(super) fn wrong(&self, blob: &Digest) -> BTreeSet<usize> {
        self.inner().wrong.get(blob).cloned().unwrap_or_default()
    }

    /// The last stream of the blob had wrong bytes. Whether one of the places `wanted` is left that may have the right
    /// ones; `own` are those of the registry itself, which are suspected only if nobody else served.
    pub(super) fn accuse(&self, blob: &Digest, own: &BTreeSet<usize>, wanted: &BTreeSet<usize>) -> bool {
        let mut inner = self.inner();
        let served = inner.served.remove(blob).unwrap_or_default();
        let others: BTreeSet<_> = served.difference(own).copied().collect();
        let accused = if others.is_empty() { served } else { others };
        if inner.wrong.len() >= DIGESTS_MAX {
            inner.wrong.clear();
        }
        let wrong = inner.wrong.entry(*blob).or_default();
        let before = wrong.len();
        wrong.extend(accused);
        // Each round accuses somebody new, so there are no more rounds than places.
        wrong.len() > before && wanted.difference(wrong).next().is_some()
    }

    fn inner(&self) -> MutexGuard<'_, Remembered> {
        // Each change is complete before the lock is given back, so a poisoned one is consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accusation_leaves_fewer_places() {
        let (memory, blob) = (Memory::default(), Digest::of(b"x"));
        let (own, all) = (BTreeSet::from([2]), BTreeSet::from([0, 1, 2]));
        memory.begin(blob);
        assert!(!memory.accuse(&blob, &own, &all), "nobody served");
        memory.begin(blob);
        memory.serves(blob, 0);
        memory.serves(blob, 2);
        assert!(memory.accuse(&blob, &own, &all));
        assert_eq!(memory.wrong(&blob), BTreeSet::from([0]), "the registry is not suspected beside a mirror");
        memory.begin(blob);
        memory.serves(blob, 0);
        assert!(!memory.accuse(&blob, &own, &all), "nothing new");
        memory.begin(blob);
        memory.serves(blob, 1);
        assert!(memory.accuse(&blob, &own, &all));
        memory.begin(blob);
        memory.serves(blob, 2);
        assert!(!memory.accuse(&blob, &own, &all));
    }
}
