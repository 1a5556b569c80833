//! Garbage collection: carries out the plan of [`super::gc`], then sweeps.

use std::collections::{BTreeSet, HashMap};

use super::gc::{self, CollectionPlan, Policy};
use super::inventory::{self, Needs};
use super::lock::Collecting;
use super::mounted::MountedImages;
use super::{ImageRecord, Store, StoreError, Swept, usage};
use crate::metrics::Outcome;
use crate::oci::digest::Digest;

/// A garbage collection to make.
pub struct CollectRequest<'a> {
    /// What to remove.
    pub policy: Policy,
    /// Tells which composefs images are mounted. Called while none can be mounted that is not held.
    pub mounted: &'a MountedImages<'a>,
    /// Only report what would be removed.
    pub dry_run: bool,
}

/// What a garbage collection removed, or would.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    /// The images, in the order of their removal.
    pub images: Vec<ImageRecord>,
    /// What went with them, and what no image had needed before; zero in a dry run.
    pub swept: Swept,
}

impl std::fmt::Debug for CollectRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CollectRequest")
            .field("policy", &self.policy)
            .field("dry_run", &self.dry_run)
            .finish()
    }
}

impl Store {
    /// Removes images by `request`, and everything that no image needs. Blocking.
    ///
    /// By watermarks, leftovers of failed pulls go before any image does, and nothing is looked at as long
    /// as there is room.
    ///
    /// # Errors
    /// [`StoreError::Blocked`] if it is unknown what is needed, [`StoreError::Busy`] if another collection
    /// lasts longer than [`super::Options::patience`], and those of the filesystem. Whatever was done by then is
    /// consistent, and the next collection goes on from there.
    pub fn collect(&self, request: &CollectRequest<'_>) -> Result<Collected, StoreError> {
        let timing = self.metrics.collection();
        let outcome = self.collect_now(request);
        if let (Ok(done), false) = (&outcome, request.dry_run) {
            self.metrics.collected(done);
        }
        timing.end(Outcome::of(&outcome, StoreError::kind));
        outcome
    }

    fn collect_now(&self, request: &CollectRequest<'_>) -> Result<Collected, StoreError> {
        let (grace, mounted) = (request.policy.min_age(), request.mounted);
        if let Policy::Watermarks { high, .. } = request.policy
            && !self.space()?.exceeds(high)
        {
            // The usual round: there is room, and nothing is read.
            return Ok(Collected::default());
        }
        let collecting = self.store_lock.collecting(self.patience)?;
        let mut swept = Swept::default();
        let mut frees = HashMap::new();
        if let Policy::Watermarks { .. } = request.policy {
            if !request.dry_run {
                swept = self.sweep_collecting(&collecting, grace, mounted)?;
            }
            let needed = self.needed(request)?;
            frees = usage::frees(&self.parts.images, self.parts.contents(), &needed)?;
        }
        let images = self.remove_images(&collecting, request, &frees)?;
        if !request.dry_run {
            let more = self.sweep_collecting(&collecting, grace, mounted)?;
            swept.layers += more.layers;
            swept.objects += more.objects;
            swept.bytes += more.bytes;
        }
        Ok(Collected { images, swept })
    }

    /// The images that may not go. An estimate: it is made again before any goes.
    fn needed(&self, request: &CollectRequest<'_>) -> Result<BTreeSet<Digest>, StoreError> {
        let inventory = inventory::take(&self.parts, request.mounted, &HashMap::new(), self.space()?)?;
        let needed = inventory.images.iter().filter(|image| image.needed.is_some());
        Ok(needed.map(|image| image.manifest).collect())
    }

    /// Plans, and removes the records of what goes. Only for the removal, nothing can be noted in a hold.
    fn remove_images(
        &self,
        _collecting: &Collecting,
        request: &CollectRequest<'_>,
        frees: &HashMap<Digest, gc::Amount>,
    ) -> Result<Vec<ImageRecord>, StoreError> {
        let inventory = inventory::take(&self.parts, request.mounted, frees, self.space()?)?;
        let manifests = match gc::plan(&inventory, &request.policy) {
            CollectionPlan::Done => return Ok(Vec::new()),
            CollectionPlan::Run(manifests) => manifests,
            CollectionPlan::Refuse(why) => return Err(StoreError::Blocked(why)),
        };
        let planned: HashMap<_, _> =
            inventory.images.iter().map(|image| (image.manifest, image.last_used)).collect();
        let (images, mut removed) = (&self.parts.images, Vec::new());
        let all = self.store_lock.exclusive(self.patience)?;
        let needs = Needs::read(&self.parts, request.mounted)?;
        if !needs.unknown.is_empty() {
            return Err(StoreError::Blocked(needs.unknown.join("; ")));
        }
        for manifest in manifests {
            let image = match images.stored(&manifest) {
                Ok(Some(image)) => image,
                // Gone or torn since the inventory: there is no image to remove.
                Ok(None) | Err(StoreError::Torn { .. }) => continue,
                Err(error) => return Err(error),
            };
            // It may have come into use since it was planned, and gone out of it again.
            if needs.of(&image.record).is_some() || planned.get(&manifest) != Some(&image.last_used) {
                continue;
            }
            if !request.dry_run {
                images.remove(&manifest)?;
                tracing::info!(image.digest = %manifest, names = ?image.record.names, "image removed");
            }
            removed.push(image.record);
        }
        drop(all);
        // Before any layer or object goes: a record that came back after a power cut would name what is gone.
        images.sync()?;
        Ok(removed)
    }
}
