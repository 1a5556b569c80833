//! The sweep: removing what no image reaches.
//!
//! Marking and listing run under a lease, beside pulls and publishes. Removing needs the store alone, and
//! takes it for [`SLICE`] at a time, so that a publish never waits longer than that; what was committed
//! or staged between two slices is marked before the next one begins. Within a slice: names, layers and
//! blobs first, then objects, so that a crash in between leaves no record without its objects.

use std::time::{Duration, Instant};

use super::layout::digest_of;
use super::mark::Reach;
use super::{Store, StoreError, dirty, names};
use crate::image::verity::VerityDigest;

/// How long the store is taken at a time.
const SLICE: Duration = Duration::from_millis(200);
/// How long others get it in between; longer than they sleep between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// What a sweep removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Layer records, synced and staged.
    pub layers: u64,
    /// Objects.
    pub objects: u64,
    /// Disk space of those objects in bytes.
    pub bytes: u64,
}

impl Store {
    /// Removes everything that no image record reaches, but for staged layers younger than `grace`.
    /// Blocking.
    ///
    /// # Errors
    /// [`StoreError::Blocked`] if a record cannot be read, [`StoreError::Busy`] if a lease lasts longer than
    /// [`super::Options::patience`] (the sweep may be partly done), and those of the filesystem.
    pub fn sweep(&self, grace: Duration) -> Result<Swept, StoreError> {
        let mut reach = Reach::default();
        let garbage = {
            let _lease = self.lease_blocking()?;
            reach.add_images(self)?;
            reach.add_staged(self, grace)?;
            self.unreached(&reach)?
        };
        let mut rest = garbage.into_iter().peekable();
        let mut swept = Swept::default();
        loop {
            let all = self.store_lock.exclusive(self.patience)?;
            reach.add_images(self)?;
            reach.add_staged(self, grace)?;
            self.sweep_records(&reach, &mut swept)?;
            let end = Instant::now() + SLICE;
            while let Some(digest) = rest.next_if(|_| Instant::now() < end) {
                if !reach.has_object(&digest) {
                    self.sweep_object(&digest, &mut swept)?;
                }
            }
            if rest.peek().is_none() {
                self.remove_leftovers()?;
                return self.forget_writers(&all.lock).map(|()| swept);
            }
            drop(all);
            std::thread::sleep(PAUSE);
        }
    }

    /// The objects that are not marked.
    pub(super) fn unreached(&self, reach: &Reach) -> Result<Vec<VerityDigest>, StoreError> {
        let mut garbage = Vec::new();
        self.objects.for_each(|digest| {
            if !reach.has_object(&digest) {
                garbage.push(digest);
            }
            Ok::<(), StoreError>(())
        })?;
        Ok(garbage)
    }

    /// Removes names, layers and blobs that lead nowhere. Exclusive.
    pub(super) fn sweep_records(&self, reach: &Reach, swept: &mut Swept) -> Result<(), StoreError> {
        self.sweep_torn_images()?;
        self.sweep_digests()?;
        self.sweep_names()?;
        for directory in [self.layout.staging(), self.layout.layers()] {
            let mut removed = 0;
            for name in self.disk.list(&directory)? {
                if digest_of(&name, "").is_none_or(|diff_id| !reach.has_layer(&diff_id)) {
                    removed += u64::from(self.disk.remove(&directory.join(name))?);
                }
            }
            if removed > 0 {
                // A layer that came back after a power cut would name objects that did not.
                self.disk.sync_directory(&directory)?;
                swept.layers += removed;
            }
        }
        self.sweep_blobs()?;
        self.sweep_marks()
    }

    fn sweep_torn_images(&self) -> Result<(), StoreError> {
        let images = self.layout.images();
        for name in self.disk.list(&images)? {
            if digest_of(&name, ".torn").is_some() {
                self.disk.remove(&images.join(name))?;
            }
        }
        Ok(())
    }

    fn sweep_names(&self) -> Result<(), StoreError> {
        for name in self.disk.list(&self.layout.names())? {
            let path = self.layout.names().join(name);
            let record = self.disk.read(&path)?.as_deref().and_then(|bytes| names::parse(bytes, &self.key));
            if record.is_none_or(|record| !self.layout.image(&record.manifest).exists()) {
                self.disk.remove(&path)?;
            }
        }
        Ok(())
    }

    fn sweep_blobs(&self) -> Result<(), StoreError> {
        for name in self.disk.list(&self.layout.blobs())? {
            let known = match digest_of(&name, "") {
                Some(blob) => self.known_layer(&blob)?.is_some(),
                None => false,
            };
            if !known {
                self.disk.remove(&self.layout.blobs().join(name))?;
            }
        }
        Ok(())
    }

    fn sweep_object(&self, digest: &VerityDigest, swept: &mut Swept) -> Result<(), StoreError> {
        let allocated = self.objects.stat(digest)?.map_or(0, |stat| stat.allocated);
        if self.remove_object(digest)? {
            swept.objects += 1;
            swept.bytes += allocated;
        }
        Ok(())
    }

    pub(super) fn remove_object(&self, digest: &VerityDigest) -> Result<bool, StoreError> {
        self.disk.step("remove an object of", self.layout.root(), || Ok(()))?;
        Ok(self.objects.remove(digest)?)
    }

    /// Removes the markers of writers that are gone. What they wrote is removed by now, or will be synced
    /// here. Exclusive.
    fn forget_writers(&self, lock: &std::fs::File) -> Result<(), StoreError> {
        let abandoned = dirty::abandoned(&self.disk, &self.layout)?;
        if abandoned.is_empty() {
            return Ok(());
        }
        self.sync_filesystem(lock)?;
        abandoned.into_iter().try_for_each(|marker| marker.remove(&self.disk))
    }
}
