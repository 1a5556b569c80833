//! Garbage collection: carries out the plan of [`super::gc`], then sweeps.

use std::collections::{BTreeSet, HashMap};

use super::gc::{self, CollectionPlan, Policy};
use super::sweep::MountedImages;
use super::{ImageRecord, Store, StoreError, Swept, inventory, usage};
use crate::metrics::Outcome;
use crate::oci::digest::Digest;

/// A garbage collection to make.
pub struct CollectRequest<'a> {
    /// What to remove.
    pub policy: Policy,
    /// Tells which composefs images are mounted. Called while none can be mounted.
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
    /// [`StoreError::Blocked`] if it is unknown what is needed, [`StoreError::Busy`] if a pull or publish lasts
    /// longer than [`super::Options::patience`], and those of the filesystem. Whatever was done by then is
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
        let grace = request.policy.min_age();
        let mut swept = Swept::default();
        let mut frees = HashMap::new();
        if let Policy::Watermarks { high, .. } = request.policy {
            // The usual round: there is room, and nothing is read.
            if !self.space()?.exceeds(high) {
                return Ok(Collected::default());
            }
            if !request.dry_run {
                swept = self.sweep(grace, request.mounted)?;
            }
            let needed = self.needed(request)?;
            let _lease = self.lease_blocking()?;
            frees = usage::frees(&self.parts.images, self.parts.contents(), &needed)?;
        }
        let images = self.remove_images(request, &frees)?;
        if !request.dry_run {
            let more = self.sweep(grace, request.mounted)?;
            swept.layers += more.layers;
            swept.objects += more.objects;
            swept.bytes += more.bytes;
        }
        Ok(Collected { images, swept })
    }

    /// The images that may not go. An estimate: it is made again once no other process uses the store.
    fn needed(&self, request: &CollectRequest<'_>) -> Result<BTreeSet<Digest>, StoreError> {
        let mounted = (request.mounted)().map_err(StoreError::Blocked)?;
        let inventory = inventory::take(&self.parts, &mounted, &HashMap::new(), self.space()?)?;
        let needed = inventory.images.iter().filter(|image| image.needed.is_some());
        Ok(needed.map(|image| image.manifest).collect())
    }

    /// Plans, and removes the records of what goes. The store is taken for this moment only.
    fn remove_images(
        &self,
        request: &CollectRequest<'_>,
        frees: &HashMap<Digest, gc::Amount>,
    ) -> Result<Vec<ImageRecord>, StoreError> {
        let _all = self.store_lock.exclusive(self.patience)?;
        let mounted = (request.mounted)().map_err(StoreError::Blocked)?;
        let inventory = inventory::take(&self.parts, &mounted, frees, self.space()?)?;
        let manifests = match gc::plan(&inventory, &request.policy) {
            CollectionPlan::Done => return Ok(Vec::new()),
            CollectionPlan::Run(manifests) => manifests,
            CollectionPlan::Refuse(why) => return Err(StoreError::Blocked(why)),
        };
        let mut removed = Vec::new();
        for manifest in manifests {
            // Torn since the inventory: there is no image to remove.
            let Some(record) = self.parts.images.get(&manifest)? else { continue };
            if !request.dry_run {
                self.parts.images.remove(&manifest)?;
                tracing::info!(image.digest = %manifest, names = ?record.names, "image removed");
            }
            removed.push(record);
        }
        // Before any layer or object goes: a record that came back after a power cut would name what is gone.
        self.parts.images.sync()?;
        Ok(removed)
    }
}
