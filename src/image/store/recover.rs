//! Repairing a store when it is opened.

use std::time::{Duration, Instant};

use super::disk::Disk;
use super::lock::Exclusive;
use super::marked::Marked;
use super::open::later_if_unwritable;
use super::parts::Parts;
use super::useless::Useless;
use super::{Store, StoreError, sweep};

/// More than any repair takes.
const A_DAY: Duration = Duration::from_secs(86_400);

impl Store {
    /// Repairs what must be repaired before the store is used, and waits for its exclusive lock if need be. Where there
    /// is only tidying up to do, it is left to a later opening if the store is in use.
    pub(super) fn repair(&self) -> Result<(), StoreError> {
        let parts = &self.parts;
        let torn = !parts.objects.markers().of_other_boots()?.is_empty();
        let all = if torn {
            // What is held may be what has to be repaired.
            self.store_lock.exclusive_once(self.patience, || Ok(!parts.holds.any_living()?))?
        } else {
            match self.store_lock.exclusive(self.tidy_patience) {
                Ok(all) => all,
                // Another process uses the store, which it found in order.
                Err(StoreError::Busy { .. }) => return Ok(()),
                Err(other) => return Err(other),
            }
        };
        later_if_unwritable("remove leftovers", sweep::remove_leftovers(&self.disk, parts))?;
        // Nobody believes them where they are, either.
        later_if_unwritable("put bad records aside", parts.images.set_bad_aside())?;
        // The markers stay, and as long as they do nothing is written.
        later_if_unwritable("remove unsynced objects", distrust_unsynced(&self.disk, parts, &all))
    }
}

/// After a power cut in a pull: removes what no image needs, since no sync may have covered it.
///
/// If a record cannot be read, it is unknown what it needs. Then what the others do not need is
/// read and compared with its name instead, and only what is wrong goes.
fn distrust_unsynced(disk: &Disk, parts: &Parts, all: &Exclusive) -> Result<(), StoreError> {
    let objects = &parts.objects;
    let markers = objects.markers().of_other_boots()?;
    if markers.is_empty() {
        return Ok(());
    }
    let mut marked = Marked::default();
    let readable = marked.add_images(parts);
    if let Err(error) = &readable {
        tracing::warn!(%error, "after a power cut: reading unsynced objects instead of removing them");
    } else {
        let (swept, _) = parts.layers.sweep(|diff_id| marked.has_layer(diff_id), Instant::now() + A_DAY)?;
        if swept > 0 {
            parts.layers.sync_removed()?;
        }
        parts.images.sweep_torn()?;
        let mut useless = Useless::default();
        sweep::sweep_records(parts, &marked, &mut useless)?;
        useless.remove_until(Instant::now() + A_DAY);
        sweep::sweep_records(parts, &marked, &mut useless)?;
    }
    let mut removed = 0u64;
    for digest in objects.list_unless(|digest| marked.has_object(digest))? {
        if readable.is_ok() || !objects.is_whole(&digest)? {
            removed += u64::from(objects.remove(&digest)?);
        }
    }
    tracing::info!(removed, "after a power cut: removed objects that no sync had covered");
    // What was removed must not come back without the marker. Not by way of the markers, which may note a failed sync:
    // that is what is repaired here.
    disk.step("sync the filesystem of", disk.root(), || Ok(rustix::fs::syncfs(&all.lock)?))?;
    objects.markers().remove_foreign(&markers)
}
