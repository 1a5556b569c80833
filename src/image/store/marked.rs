//! The mark phase: everything that is needed.
//!
//! What an image record needs is in the records of its layers. What a mount, a volume record, a pin or a hold needs does
//! not depend on a record: a repair, a new node key or a torn record takes the image's record away, and the mount goes on
//! reading its objects. The composefs image lists them itself.
//!
//! Marking again reads only what has changed since, so that a sweep can do so in each of its slices: a directory to which no
//! name has come is not listed, a record that is the same is not read. Mounts and holds are read each time.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use super::contents::Contents;
use super::held::Held;
use super::holds::ReadSoFar;
use super::mounted::{Mounted, MountedImages, missing_mount, unreadable_mount};
use super::parts::Parts;
use super::parts::images::{Changed, Stamp};
use super::parts::volumes::VolumeImage;
use super::seen::Seen;
use super::{ImageRecord, StoreError};
use crate::image::composefs::ImageError;
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

/// What must stay. It only grows. Memory: some 50 bytes per object.
#[derive(Debug, Default)]
pub(super) struct Marked {
    objects: HashSet<VerityDigest>,
    layers: HashSet<Digest>,
    /// Composefs images all of whose objects are marked.
    composefs: HashSet<VerityDigest>,
    /// Image records that were read, and all that they need marked.
    images: HashMap<Digest, Stamp>,
    held: HeldThings,
    seen: Directories,
}

/// The directories as they were when all that they need was marked.
#[derive(Debug, Default)]
struct Directories {
    images: Seen,
    volumes: Seen,
    pins: Seen,
    staged: Seen,
    layers: Seen,
}

/// What holds keep, besides objects.
#[derive(Debug, Default)]
struct HeldThings {
    read: ReadSoFar,
    layers: HashSet<Digest>,
    manifests: HashSet<Digest>,
    composefs: HashSet<VerityDigest>,
    names: HashSet<Digest>,
}

impl Marked {
    pub(super) fn has_object(&self, digest: &VerityDigest) -> bool {
        self.objects.contains(digest)
    }

    pub(super) fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layers.contains(diff_id)
    }

    /// Whether a hold keeps what is recorded about an image.
    pub(super) fn holds_manifest(&self, manifest: &Digest) -> bool {
        self.held.manifests.contains(manifest)
    }

    /// Whether a hold keeps the record of a name.
    pub(super) fn holds_name(&self, file: &Digest) -> bool {
        self.held.names.contains(file)
    }

    /// Marks all that is needed and was not marked before. Exact under the store's exclusive lock.
    ///
    /// # Errors
    /// [`StoreError::Blocked`] if it is unknown what is needed.
    pub(super) fn add_all(
        &mut self,
        parts: &Parts,
        grace: Duration,
        mounted: &MountedImages<'_>,
    ) -> Result<(), StoreError> {
        // First: a holder ends its hold after a record, a mount or a volume keeps what it held.
        self.add_holds(parts)?;
        let mounted = mounted().map_err(StoreError::Blocked)?;
        self.if_changed(
            parts,
            |seen| &mut seen.images,
            &[parts.images.directory()],
            |marked| marked.add_images(parts),
        )?;
        self.add_mounted(parts.contents(), &mounted)?;
        let volumes = [parts.volumes.directory()];
        self.if_changed(parts, |seen| &mut seen.volumes, &volumes, |marked| marked.add_volumes(parts))?;
        let pins = [parts.pins.directory(), parts.prefetched.directory(), parts.first_digests.directory()];
        self.if_changed(parts, |seen| &mut seen.pins, &pins, |marked| marked.add_pinned(parts))?;
        let [staging, _] = parts.layers.directories();
        self.if_changed(parts, |seen| &mut seen.staged, &[staging], |marked| marked.add_staged(parts, grace))
    }

    /// Marks by `mark` if one of the directories has changed since that was last done.
    fn if_changed(
        &mut self,
        parts: &Parts,
        of: impl Fn(&mut Directories) -> &mut Seen,
        directories: &[&Path],
        mark: impl FnOnce(&mut Self) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut seen = std::mem::take(of(&mut self.seen));
        let read = seen.read_if_changed(parts.disk(), directories, || mark(self));
        *of(&mut self.seen) = seen;
        read.map(drop)
    }

    /// The pull that failed a moment ago is about to be tried again.
    fn add_staged(&mut self, parts: &Parts, grace: Duration) -> Result<(), StoreError> {
        for (diff_id, _) in parts.layers.staged()?.into_iter().filter(|(_, age)| *age < grace) {
            self.add_layer(parts.contents(), &diff_id)?;
        }
        Ok(())
    }

    /// Marks what the image records need; those marked already cost a stat(2).
    ///
    /// # Errors
    /// [`StoreError::Blocked`] if any of them, or a layer of theirs, cannot be read. The others have been marked.
    pub(super) fn add_images(&mut self, parts: &Parts) -> Result<(), StoreError> {
        let Changed { images, unreadable } = parts.images.list_changed(&self.images)?;
        let mut unknown: Vec<_> = unreadable.iter().map(StoreError::to_string).collect();
        for (record, stamp) in images {
            match self.add_image(parts.contents(), &record) {
                // Last: an image that failed half-way is tried again.
                Ok(()) => drop(self.images.insert(record.key(), stamp)),
                Err(error) => unknown.push(format!("image {}: {error}", record.key())),
            }
        }
        if unknown.is_empty() { Ok(()) } else { Err(StoreError::Blocked(unknown.join("; "))) }
    }

    fn add_image(&mut self, contents: Contents<'_>, record: &ImageRecord) -> Result<(), StoreError> {
        self.objects.extend(record.images().map(|own| own.image));
        let mut lost = false;
        for layer in &record.layers {
            match self.add_layer(contents, layer) {
                // The next pull makes the layer's record anew; mounts need what the composefs image names.
                Err(error) if error.is_lost_record() => {
                    tracing::warn!(%error, "keeping what the composefs image names");
                    lost = true;
                }
                added => added?,
            }
        }
        if lost {
            contents.each_object_of_composefs(record, |digest, _| self.add_object(digest))?;
        }
        self.composefs.extend(record.images().map(|own| own.image));
        Ok(())
    }

    /// Marks what living holders keep.
    ///
    /// # Errors
    /// [`StoreError::Blocked`] if a later release holds what this one does not know.
    pub(super) fn add_holds(&mut self, parts: &Parts) -> Result<(), StoreError> {
        let Self { objects, held, .. } = self;
        let HeldThings { read, layers, manifests, composefs, names } = held;
        parts.holds.for_each_new(read, |held| match held {
            Held::Object(digest) => drop(objects.insert(digest)),
            Held::Layer(diff_id) => drop(layers.insert(diff_id)),
            Held::Manifest(manifest) => drop(manifests.insert(manifest)),
            Held::Composefs(image) => drop(composefs.insert(image)),
            Held::Name(file) => drop(names.insert(file)),
        })?;
        // A thing may be held before it is there.
        for diff_id in self.held.layers.difference(&self.layers).copied().collect::<Vec<_>>() {
            match self.add_layer(parts.contents(), &diff_id) {
                // Who holds it finds that out.
                Err(error) if error.is_lost_record() => {}
                added => added?,
            }
        }
        for image in self.held.composefs.difference(&self.composefs).copied().collect::<Vec<_>>() {
            if let Err(error) = self.add_composefs(parts.contents(), &image)? {
                tracing::debug!(composefs = %image, %error, "an image that is held cannot be read");
                self.objects.insert(image);
            }
        }
        Ok(())
    }

    /// Marks what mounts need.
    ///
    /// # Errors
    /// [`StoreError::Blocked`] names a mounted image that cannot be read, or that was mounted from this store and is not
    /// in it: what it needs is unknown.
    fn add_mounted(&mut self, contents: Contents<'_>, mounted: &Mounted) -> Result<(), StoreError> {
        // Those of other stores too: the same image may be here.
        for image in mounted.all() {
            if let Err(why) = self.add_composefs(contents, &image)? {
                return Err(StoreError::Blocked(unreadable_mount(&image, &why)));
            }
            if mounted.here.contains(&image) && !contents.has_image(&image)? {
                return Err(StoreError::Blocked(missing_mount(&image)));
            }
        }
        Ok(())
    }

    /// Marks what volume records need of images that have no record.
    ///
    /// # Errors
    /// [`StoreError::Blocked`] if a volume record cannot be read, since it might name any image, or if the image that a
    /// volume shows has gone from the store.
    fn add_volumes(&mut self, parts: &Parts) -> Result<(), StoreError> {
        let mut unknown = Vec::new();
        let volumes = parts.volumes.list(&mut unknown)?;
        add_missing(parts, &volumes, &mut unknown)?;
        if !unknown.is_empty() {
            return Err(StoreError::Blocked(unknown.join("; ")));
        }
        let mut kept: BTreeSet<_> = volumes.iter().filter_map(|volume| volume.composefs).collect();
        // Containers may have mounts of these that nobody sees from here.
        kept.extend(
            volumes.iter().flat_map(|volume| &volume.earlier).filter_map(|earlier| earlier.composefs),
        );
        self.add_kept(parts, kept)
    }

    /// The same of pins and prefetches.
    fn add_pinned(&mut self, parts: &Parts) -> Result<(), StoreError> {
        let mut kept = BTreeSet::new();
        let prefetched = parts.prefetched.list()?.into_iter().map(|pin| pin.image);
        for pin in parts.pins.list()?.into_iter().chain(prefetched) {
            kept.extend(parts.first_digests.images_of(&pin)?);
        }
        self.add_kept(parts, kept)
    }

    fn add_kept(&mut self, parts: &Parts, kept: BTreeSet<VerityDigest>) -> Result<(), StoreError> {
        for image in kept {
            // Nothing shows it, or it would be among the mounted ones; so an image that is no good keeps nothing.
            if let Err(error) = self.add_composefs(parts.contents(), &image)? {
                tracing::warn!(composefs = %image, %error, "an image that is kept cannot be read");
            }
        }
        Ok(())
    }

    /// Marks a composefs image and what it names; once. The inner error says that it is no such image.
    fn add_composefs(
        &mut self,
        contents: Contents<'_>,
        image: &VerityDigest,
    ) -> Result<Result<(), ImageError>, StoreError> {
        if self.composefs.contains(image) || !contents.has_image(image)? {
            return Ok(Ok(()));
        }
        let named = match contents.named_by(image)? {
            Ok(named) => named,
            Err(error) => return Ok(Err(error)),
        };
        self.objects.extend(named);
        self.objects.insert(*image);
        self.composefs.insert(*image);
        Ok(Ok(()))
    }

    /// Marks the layers whose records are new since the others were removed: they may name what a sweep has listed.
    pub(super) fn add_new_layers(&mut self, parts: &Parts) -> Result<(), StoreError> {
        let add = |marked: &mut Self| {
            for diff_id in parts.layers.list()? {
                match marked.add_layer(parts.contents(), &diff_id) {
                    Err(error) if error.is_lost_record() => {}
                    added => added?,
                }
            }
            Ok::<(), StoreError>(())
        };
        self.if_changed(parts, |seen| &mut seen.layers, &parts.layers.directories(), add)
    }

    fn add_object(&mut self, digest: VerityDigest) {
        self.objects.insert(digest);
    }

    fn add_layer(&mut self, contents: Contents<'_>, diff_id: &Digest) -> Result<(), StoreError> {
        if self.layers.contains(diff_id) {
            return Ok(());
        }
        contents.each_object_of_layer(diff_id, |digest, _| self.add_object(digest))?;
        // A lost record is not marked, so it goes: its image marks what mounts need.
        self.layers.insert(*diff_id);
        Ok(())
    }
}

/// Adds to `unknown` the images that volumes show and that the store has no more: a repair may have removed a damaged
/// one. What such a mount needs is listed nowhere until the image is pulled again.
pub(super) fn add_missing(
    parts: &Parts,
    volumes: &[VolumeImage],
    unknown: &mut Vec<String>,
) -> Result<(), StoreError> {
    for volume in volumes.iter().filter(|volume| parts.volumes.is_current(volume)) {
        if let Some(image) = volume.composefs
            && !parts.contents().has_image(&image)?
        {
            unknown.push(format!(
                "a volume shows image {image} of manifest {}, which is not in the store, so what it needs is unknown; \
                 pull the image again, or delete the pods that use it",
                volume.image
            ));
        }
    }
    Ok(())
}
