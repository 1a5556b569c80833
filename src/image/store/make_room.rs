//! Room for a pull that is about to begin.

use super::gc::Policy;
use super::mounted::MountedImages;
use super::{CollectRequest, Collected, Store, StoreError};
use crate::metrics::Outcome;

impl Store {
    /// Bytes that can be written before pulls stop.
    ///
    /// # Errors
    /// Those of statvfs(3).
    pub fn spare(&self) -> Result<u64, StoreError> {
        Ok(self.space()?.spare(self.min_free))
    }

    /// The same if nothing were in use.
    ///
    /// # Errors
    /// Those of statvfs(3).
    pub fn capacity(&self) -> Result<u64, StoreError> {
        Ok(self.space()?.emptied().spare(self.min_free))
    }

    /// Removes images that nothing needs until `bytes` can be written, or no more may go: in the order and with the ages of
    /// `policy`, whatever its marks are. Blocking.
    ///
    /// # Errors
    /// Those of [`Store::collect`].
    pub fn make_room(
        &self,
        bytes: u64,
        policy: &Policy,
        mounted: &MountedImages<'_>,
    ) -> Result<Collected, StoreError> {
        let mark = 100_u8.saturating_sub(self.min_free);
        let (min_age, recent) = (policy.min_age(), policy.recent());
        let policy = Policy::Watermarks { high: mark, low: mark, min_age, recent, idle_bytes: None };
        let request = CollectRequest { policy, mounted, dry_run: false };
        let timing = self.metrics.collection();
        let outcome = self.collect_by_watermarks(&request, (mark, None), bytes);
        if let Ok(done) = &outcome {
            self.metrics.collected(done);
        }
        timing.end(Outcome::of(&outcome, StoreError::kind));
        outcome
    }
}
