//! What a caller and its request show each other while the caller waits.

use std::sync::{Arc, OnceLock};

use super::Progress;
use crate::oci::{Source, Wait};
use crate::pull::attendance::Waiter;

/// Where a caller that waits for a request sees what the request is doing. Empty at first.
#[derive(Debug, Clone, Default)]
pub struct Watch(Arc<Watched>);

#[derive(Debug, Default)]
struct Watched {
    waiter: Option<Waiter>,
    pull: OnceLock<Arc<Progress>>,
    source: OnceLock<Arc<dyn Source>>,
}

impl Watch {
    /// That of a caller who waits for this.
    pub fn of(waiter: Waiter) -> Self {
        Self(Arc::new(Watched { waiter: Some(waiter), ..Watched::default() }))
    }

    /// For whom the caller waits, if it has said so.
    pub(in crate::pull) fn waiter(&self) -> Option<&Waiter> {
        self.0.waiter.as_ref()
    }

    /// The pull's counters, once the request has joined one.
    pub fn get(&self) -> Option<&Arc<Progress>> {
        self.0.pull.get()
    }

    /// What the request waits for because its registry limits the rate, if it does.
    pub fn waits(&self) -> Option<Wait> {
        self.0.source.get()?.waits()
    }

    pub(in crate::pull) fn set_source(&self, source: &Arc<dyn Source>) {
        // One request asks one registry with one credential, so the first source is as good as any later one.
        let _ = self.0.source.set(Arc::clone(source));
    }

    pub(in crate::pull) fn set_progress(&self, progress: &Arc<Progress>) {
        // A request that joins a second pull within one call keeps the counters of the first.
        let _ = self.0.pull.set(Arc::clone(progress));
    }
}
