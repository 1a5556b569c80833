//! The sweep: removing what no image needs.
//!
//! Marking and listing run under a lease, beside pulls and publishes. Removing needs the store alone, and
//! takes it for [`SLICE`] at a time, so that a publish never waits longer than that; what was committed
//! or staged between two slices is marked before the next one begins. Within a slice: names, layers and
//! blobs first, then objects, so that a crash in between leaves no record without its objects.

use std::collections::BTreeSet;
use std::fs::File;
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::marked::Marked;
use super::markers::Markers;
use super::parts::Parts;
use super::parts::objects::StoredObjects;
use super::{Store, StoreError};
use crate::image::verity::VerityDigest;

/// How long the store is taken at a time.
const SLICE: Duration = Duration::from_millis(200);
/// How long others get it in between; longer than they sleep between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// Tells which composefs images are mounted, or why that cannot be known.
pub type MountedImages<'a> = dyn Fn() -> Result<BTreeSet<VerityDigest>, String> + 'a;

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
    /// Removes everything that no image record, mount, volume record or pin needs, but for staged layers younger than
    /// `grace`. `mounted` tells which composefs images are mounted; it is asked while nobody can mount one. Blocking.
    ///
    /// # Errors
    /// [`StoreError::Blocked`] if a record or a mounted image cannot be read, [`StoreError::Busy`] if a lease lasts longer than
    /// [`super::Options::patience`] (the sweep may be partly done), and those of the filesystem.
    pub fn sweep(&self, grace: Duration, mounted: &MountedImages<'_>) -> Result<Swept, StoreError> {
        let parts = &self.parts;
        let mut marked = Marked::default();
        let garbage = {
            let _lease = self.lease_blocking()?;
            mark(&mut marked, parts, grace)?;
            parts.objects.list_unless(|digest| marked.has_object(digest))?
        };
        let mut rest = garbage.into_iter().peekable();
        let mut swept = Swept::default();
        loop {
            let all = self.store_lock.exclusive(self.patience)?;
            mark(&mut marked, parts, grace)?;
            let mounted = mounted().map_err(StoreError::Blocked)?;
            marked.add_mounted(parts.contents(), &mounted)?;
            swept.layers += sweep_records(parts, &marked)?;
            let end = Instant::now() + SLICE;
            while let Some(digest) = rest.next_if(|_| Instant::now() < end) {
                // It may have come into use since it was listed.
                if !marked.has_object(&digest) {
                    sweep_object(&parts.objects, &digest, &mut swept)?;
                }
            }
            if rest.peek().is_none() {
                remove_leftovers(&self.disk, parts)?;
                return forget_writers(parts.objects.markers(), &all.lock).map(|()| swept);
            }
            drop(all);
            std::thread::sleep(PAUSE);
        }
    }
}

fn mark(marked: &mut Marked, parts: &Parts, grace: Duration) -> Result<(), StoreError> {
    marked.add_images(&parts.images, parts.contents())?;
    marked.add_kept(parts)?;
    marked.add_staged(&parts.layers, parts.contents(), grace)
}

/// Removes the records that lead nowhere; returns how many of layers. Needs the store's exclusive lock.
pub(super) fn sweep_records(parts: &Parts, marked: &Marked) -> Result<u64, StoreError> {
    let Parts { images, layers, .. } = parts;
    images.sweep_torn()?;
    // Where it cannot be seen whether there is an image, these cost a question to the registry.
    let has_image = |manifest: &_| images.contains(manifest).unwrap_or(false);
    parts.first_digests.sweep(has_image)?;
    parts.names.sweep(has_image)?;
    let swept = layers.sweep(|diff_id| marked.has_layer(diff_id))?;
    parts.access.sweep_images(|manifest| images.contains(manifest))?;
    parts.evidence.sweep(|manifest| images.contains(manifest))?;
    parts.access.sweep_blobs(|blob| Ok(layers.of_blob(blob)?.is_some()))?;
    Ok(swept)
}

fn sweep_object(objects: &StoredObjects, digest: &VerityDigest, swept: &mut Swept) -> Result<(), StoreError> {
    let allocated = objects.all().stat(digest)?.map_or(0, |stat| stat.allocated);
    if objects.remove(digest)? {
        swept.objects += 1;
        swept.bytes += allocated;
    }
    Ok(())
}

/// Removes temporary files of dead writers and the staging of other boots. Needs the store's exclusive lock.
pub(super) fn remove_leftovers(disk: &Disk, parts: &Parts) -> Result<(), StoreError> {
    disk.remove_leftovers()?;
    parts.layers.remove_other_boots()?;
    Ok(parts.objects.all().remove_temporaries()?)
}

/// Removes the markers of writers that are gone. What they wrote is removed by now, or is synced
/// here. Needs the store's exclusive lock.
fn forget_writers(markers: &Markers, lock: &File) -> Result<(), StoreError> {
    let abandoned = markers.abandoned()?;
    if abandoned.is_empty() {
        return Ok(());
    }
    markers.sync_filesystem(lock)?;
    markers.remove(abandoned)
}
