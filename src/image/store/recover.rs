//! Repairing a store when it is opened.

use std::fs;
use std::io::Read as _;
use std::time::Duration;

use super::disk::try_lock;
use super::lease::Exclusive;
use super::mark::Reach;
use super::{Store, StoreError, dirty};
use crate::image::verity::{VerityDigest, VerityHasher};
use rustix::fs::FlockOperation;

/// How long to wait for the store where there is only tidying up to do: longer than a program that is being started
/// keeps the descriptors, and with them the locks, of the process that starts it.
const TIDY: Duration = Duration::from_millis(50);

impl Store {
    /// Repairs what must be repaired before anybody may use the store, waiting for that if need be, and
    /// tidies up if nobody else is using the store.
    pub(super) fn repair(&self) -> Result<(), StoreError> {
        let torn = !dirty::of_other_boots(&self.disk, &self.layout)?.is_empty();
        let unsealed = self.lacks_verity();
        let patience = if torn || unsealed { self.patience } else { TIDY };
        let all = match self.store_lock.exclusive(patience) {
            Ok(all) => all,
            Err(StoreError::Busy { .. }) if !torn && !unsealed => return Ok(()),
            Err(other) => return Err(other),
        };
        self.remove_leftovers()?;
        self.set_bad_images_aside()?;
        self.distrust_unsynced(&all)?;
        self.enable_verity_everywhere(&all)
    }

    /// Removes temporary files of dead writers and the staging of other boots. Exclusive.
    pub(super) fn remove_leftovers(&self) -> Result<(), StoreError> {
        for name in self.disk.list(&self.layout.tmp())? {
            let path = self.layout.tmp().join(name);
            // Its writer needs no lease, so it may well be alive.
            let Ok(file) = fs::File::open(&path) else { continue };
            let lock = FlockOperation::NonBlockingLockExclusive;
            if try_lock(&file, lock).map_err(|error| self.disk.error("lock", &path, error))? {
                self.disk.remove(&path)?;
            }
        }
        let staging = self.layout.directory("staging");
        for name in self.disk.list(&staging)? {
            if name != self.layout.boot_id() {
                let path = staging.join(name);
                self.disk.step("remove", &path, || fs::remove_dir_all(&path))?;
            }
        }
        Ok(self.objects.remove_temporaries()?)
    }

    /// After a power cut in a pull: removes what no image reaches, since no sync may have covered it.
    ///
    /// If a record cannot be read, it is unknown what it reaches; then what the others do not reach is
    /// read and compared with its name instead, and only what is wrong goes.
    fn distrust_unsynced(&self, all: &Exclusive) -> Result<(), StoreError> {
        let markers = dirty::of_other_boots(&self.disk, &self.layout)?;
        if markers.is_empty() {
            return Ok(());
        }
        let mut reach = Reach::default();
        let readable = reach.add_images(self);
        if let Err(error) = &readable {
            tracing::warn!(%error, "after a power cut: reading unsynced objects instead of removing them");
        } else {
            self.sweep_records(&reach, &mut super::Swept::default())?;
        }
        let mut removed = 0u64;
        for digest in self.unreached(&reach)? {
            if readable.is_ok() || !self.is_whole(&digest)? {
                removed += u64::from(self.remove_object(&digest)?);
            }
        }
        tracing::info!(removed, "after a power cut: removed objects that no sync had covered");
        // What was removed must not come back without the marker.
        self.disk
            .step("sync the filesystem of", self.layout.root(), || Ok(rustix::fs::syncfs(&all.lock)?))?;
        markers.iter().try_for_each(|marker| self.disk.remove(marker).map(drop))?;
        self.disk.sync_directory(&self.layout.dirty())
    }

    /// Whether an object's content hashes to its name.
    fn is_whole(&self, digest: &VerityDigest) -> Result<bool, StoreError> {
        let mut file = fs::File::from(self.objects.get(digest)?);
        let mut hasher = VerityHasher::default();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finish() == *digest),
                Ok(count) => hasher.update(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // A sealed file with damaged blocks.
                Err(_) => return Ok(false),
            }
        }
    }
}
