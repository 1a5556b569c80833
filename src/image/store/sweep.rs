//! The sweep: removing what no image needs.
//!
//! Everything is read and listed beside pulls and publishes. Removing needs that nothing is noted in a hold, for a
//! [`Slice`] at a time. Each slice first marks what has come into use since the one before, and reads no more than that. The
//! first ones remove layer records; a record that comes later is marked. So objects go only once no record names them, and a
//! crash in between leaves no record without its objects.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::lock::Collecting;
use super::marked::Marked;
use super::markers::Markers;
use super::mounted::MountedImages;
use super::parts::Parts;
use super::parts::objects::StoredObjects;
use super::slice::Slice;
use super::useless::Useless;
use super::{Store, StoreError};
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

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

impl std::ops::AddAssign for Swept {
    fn add_assign(&mut self, other: Self) {
        self.layers += other.layers;
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}

impl Store {
    /// Removes everything that no image record, mount, volume record, pin or hold needs, but for staged layers younger
    /// than `grace`. `mounted` tells which composefs images are mounted; it is asked while nobody can mount one that it
    /// does not hold. Blocking.
    ///
    /// # Errors
    /// [`StoreError::Blocked`] if a record or a mounted image cannot be read, [`StoreError::Busy`] if another collection
    /// lasts longer than [`super::Options::patience`], and those of the filesystem; the sweep may be partly done.
    pub fn sweep(&self, grace: Duration, mounted: &MountedImages<'_>) -> Result<Swept, StoreError> {
        self.sweep_collecting(&self.store_lock.collecting(self.patience)?, grace, mounted)
    }

    pub(super) fn sweep_collecting(
        &self,
        _collecting: &Collecting,
        grace: Duration,
        mounted: &MountedImages<'_>,
    ) -> Result<Swept, StoreError> {
        let parts = &self.parts;
        // Before anything is written that it may have to sync.
        let lock = self.store_lock.open_lock()?;
        let dead = parts.holds.dead()?;
        let (mut marked, mut useless) = (Marked::default(), Useless::default());
        if let Err(error) = marked.add_all(parts, grace, mounted) {
            // Pulls change the store meanwhile. What counts is what the slices find.
            tracing::debug!(%error, "marking beside pulls");
        }
        sweep_records(parts, &marked, &mut useless)?;
        let mut rest = parts.objects.list_unless(|digest| marked.has_object(digest))?.into_iter().peekable();
        let (mut swept, mut layers_are_swept) = (Swept::default(), false);
        loop {
            let all = self.store_lock.exclusive(self.patience)?;
            let slice = Slice::begin();
            marked.add_all(parts, grace, mounted)?;
            if layers_are_swept {
                marked.add_new_layers(parts)?;
                let end = slice.end();
                useless.remove_until(end);
                if !useless.is_empty() {
                    sweep_records(parts, &marked, &mut useless)?;
                }
                while let Some(digest) = rest.next_if(|_| Instant::now() < end) {
                    // It may have come into use since it was listed.
                    if !marked.has_object(&digest) {
                        sweep_object(&parts.objects, &digest, &mut swept)?;
                    }
                }
                if rest.peek().is_none() && useless.is_empty() {
                    remove_leftovers(&self.disk, parts)?;
                    break;
                }
                drop(all);
            } else {
                let (removed, none_left) =
                    parts.layers.sweep(|diff_id| marked.has_layer(diff_id), slice.end())?;
                swept.layers += removed;
                layers_are_swept = none_left;
                if none_left {
                    parts.images.sweep_torn()?;
                }
                drop(all);
                if none_left && swept.layers > 0 {
                    // Before any of their objects goes.
                    parts.layers.sync_removed()?;
                }
            }
            slice.pause();
        }
        forget_writers(parts.objects.markers(), &lock)?;
        parts.holds.remove(&dead).map(|()| swept)
    }
}

/// Finds the records that lead nowhere, and then removes them. Needs the store's exclusive lock for that.
pub(super) fn sweep_records(parts: &Parts, marked: &Marked, useless: &mut Useless) -> Result<(), StoreError> {
    let Parts { images, layers, .. } = parts;
    let with_record: HashSet<Digest> = images.manifests()?.into_iter().collect();
    let known = |manifest: &Digest| with_record.contains(manifest) || marked.holds_manifest(manifest);
    parts.first_digests.sweep(useless, known)?;
    parts.names.sweep(useless, |file| marked.holds_name(file), known)?;
    // While they are looked for, the layers that are not marked are still here.
    let looking = useless.is_looking();
    let has_layer = |blob: &Digest| {
        Ok(layers.of_blob(blob)?.is_some_and(|diff_id| !looking || marked.has_layer(&diff_id)))
    };
    layers.sweep_blobs(useless, has_layer)?;
    layers.sweep_contents(useless, has_layer)?;
    parts.access.sweep_images(useless, known)?;
    parts.evidence.sweep(useless, known)?;
    parts.access.sweep_blobs(useless, has_layer)
}

fn sweep_object(objects: &StoredObjects, digest: &VerityDigest, swept: &mut Swept) -> Result<(), StoreError> {
    let allocated = objects.all().stat(digest)?.map_or(0, |stat| stat.allocated);
    if objects.remove(digest)? {
        swept.objects += 1;
        swept.bytes += allocated;
    }
    Ok(())
}

/// Removes temporary files of dead writers, the staging of other boots and partial blobs that are not kept. Needs the store's exclusive lock.
pub(super) fn remove_leftovers(disk: &Disk, parts: &Parts) -> Result<(), StoreError> {
    disk.remove_leftovers()?;
    parts.layers.remove_other_boots()?;
    parts.partials.remove_expired()?;
    // The temporary name of an object says nothing about its writer, who may be about to rename it.
    if parts.holds.any_living()? { Ok(()) } else { Ok(parts.objects.all().remove_temporaries()?) }
}

/// Removes the markers of writers that are gone. What they wrote is removed by now, or is synced here.
fn forget_writers(markers: &Markers, opened_before: &std::fs::File) -> Result<(), StoreError> {
    let abandoned = markers.abandoned()?;
    if abandoned.is_empty() {
        return Ok(());
    }
    markers.sync_filesystem(opened_before)?;
    markers.remove(abandoned)
}
