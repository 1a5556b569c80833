//! What must stay: the roots that the store can see, and those that its caller names.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::gc::{Candidate, Inventory, Need};
use super::held::Held;
use super::marked::add_missing;
use super::mounted::{Mounted, MountedImages, missing_mount, unreadable_mount};
use super::parts::Parts;
use super::parts::images::Listing;
use super::worth::Valuation;
use super::{ImageRecord, Space, StoreError};
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

/// What needs images, whatever is recorded about them. Exact under the store's exclusive lock.
#[derive(Debug, Default)]
pub(super) struct Needs {
    held: HashSet<Digest>,
    held_images: BTreeSet<VerityDigest>,
    mounted: Mounted,
    /// From any store.
    shown: BTreeSet<VerityDigest>,
    volumes: HashSet<Digest>,
    pins: HashSet<Digest>,
    prefetched: HashSet<Digest>,
    /// Why it is not known what is needed; empty if it is.
    pub(super) unknown: Vec<String>,
}

impl Needs {
    pub(super) fn read(parts: &Parts, mounted: &MountedImages<'_>) -> Result<Self, StoreError> {
        let mut needs = Self::default();
        // First: a holder ends its hold after a mount or a volume keeps what it held.
        parts.holds.for_each_new(&mut HashMap::new(), |held| match held {
            Held::Manifest(manifest) => drop(needs.held.insert(manifest)),
            Held::Composefs(image) => drop(needs.held_images.insert(image)),
            // The sweep keeps them.
            Held::Object(_) | Held::Layer(_) | Held::Name(_) => {}
        })?;
        needs.mounted = mounted().map_err(StoreError::Blocked)?;
        needs.shown = needs.mounted.all();
        let volumes = parts.volumes.list(&mut needs.unknown)?;
        add_missing(parts, &volumes, &mut needs.unknown)?;
        for volume in volumes {
            needs.volumes.insert(volume.image);
            // What was shown before a reboot is nowhere open.
            let earlier = if parts.volumes.is_current(&volume) { volume.earlier } else { Vec::new() };
            needs.volumes.extend(volume.members.into_iter().chain(earlier).map(|member| member.image));
        }
        needs.pins = parts.pins.list()?.into_iter().collect();
        needs.prefetched = parts.prefetched.list()?.into_iter().map(|pin| pin.image).collect();
        Ok(needs)
    }

    /// Whether a pull, a publish or a command holds what is called so.
    pub(super) fn holds(&self, manifest: &Digest) -> bool {
        self.held.contains(manifest)
    }

    /// What needs the image; one reason is enough.
    pub(super) fn of(&self, image: &ImageRecord) -> Option<Need> {
        self.all_of(image).next()
    }

    /// All that needs the image.
    pub(super) fn all_of(&self, image: &ImageRecord) -> impl Iterator<Item = Need> {
        let manifest = &image.key();
        let held = || self.held.contains(manifest) || image.is_any_of(&self.held_images);
        let needs = [
            image.is_any_of(&self.shown).then_some(Need::Mount),
            self.volumes.contains(manifest).then_some(Need::Volume),
            held().then_some(Need::Hold),
            self.pins.contains(manifest).then_some(Need::Pin),
            self.prefetched.contains(manifest).then_some(Need::Prefetch),
        ];
        needs.into_iter().flatten()
    }

    /// Notes mounts without a record: they keep what their images list. Before any record goes it must be sure that these
    /// can be read.
    pub(super) fn note_unreadable_mounts(
        &mut self,
        parts: &Parts,
        listing: &Listing,
    ) -> Result<(), StoreError> {
        let known: HashSet<VerityDigest> =
            listing.images.iter().flat_map(|image| image.record.images()).map(|own| own.image).collect();
        for image in &self.shown {
            if !parts.contents().has_image(image)? {
                if self.mounted.here.contains(image) {
                    self.unknown.push(missing_mount(image));
                }
            } else if !known.contains(image)
                && let Err(why) = parts.contents().named_by(image)?
            {
                self.unknown.push(unreadable_mount(image, &why));
            }
        }
        Ok(())
    }
}

/// Whether a pull that is gone has left something: a hold without a holder, or a staged layer that is older than `grace`
/// and that nobody holds. What was left without such a trace is found by the next thorough sweep.
pub(super) fn has_leftovers(parts: &Parts, grace: Duration) -> Result<bool, StoreError> {
    if parts.holds.any_dead()? {
        return Ok(true);
    }
    let mut held = HashSet::new();
    parts.holds.for_each_new(&mut HashMap::new(), |thing| {
        if let Held::Layer(diff_id) = thing {
            held.insert(diff_id);
        }
    })?;
    Ok(parts.layers.staged()?.into_iter().any(|(diff_id, age)| age >= grace && !held.contains(&diff_id)))
}

/// Everything that the garbage collector's decision depends on. `valuation` says what each image's removal frees, and when
/// that was so; nothing for those not in it. What is read beside pulls may change: [`Needs`] are read again before anything is removed.
pub(super) fn take(
    parts: &Parts,
    mounted: &MountedImages<'_>,
    valuation: &Valuation,
    space: Space,
) -> Result<Inventory, StoreError> {
    let mut needs = Needs::read(parts, mounted)?;
    let listing = parts.images.list()?;
    needs.note_unreadable_mounts(parts, &listing)?;
    let mut unknown: Vec<String> = listing.unreadable.iter().map(ToString::to_string).collect();
    unknown.append(&mut needs.unknown);
    let images = listing.images.iter().map(|image| {
        let manifest = image.record.key();
        let (worth, frees) = valuation.of(&manifest);
        Candidate { manifest, last_used: image.last_used, needed: needs.of(&image.record), worth, frees }
    });
    Ok(Inventory { images: images.collect(), unknown, space, now: valuation.now })
}
