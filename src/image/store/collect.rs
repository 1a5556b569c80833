//! Garbage collection: carries out the plan of [`super::gc`], then sweeps.

use std::collections::{BTreeSet, HashMap};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::gc::{self, CollectionPlan, Inventory, Policy};
use super::inventory::{self, Needs};
use super::lock::Collecting;
use super::mounted::MountedImages;
use super::rounds::{Look, Round, Rounds};
use super::{ImageRecord, Space, Store, StoreError, Swept, usage};
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
    /// Whether the filesystem is still fuller than the watermark at which removal begins.
    pub above_mark: bool,
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
    /// By watermarks, leftovers of failed pulls go before any image does, and nothing is looked at as long as there is
    /// room, or as a round of this process would find what the last one found in vain.
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
        if let (Policy::Watermarks { .. }, false) = (request.policy, request.dry_run) {
            // A round fails only once it is needed.
            self.metrics.no_room(outcome.as_ref().map_or(true, |done| done.above_mark));
        }
        timing.end(Outcome::of(&outcome, StoreError::kind));
        outcome
    }

    fn collect_now(&self, request: &CollectRequest<'_>) -> Result<Collected, StoreError> {
        if !request.dry_run {
            self.parts.partials.remove_expired()?;
        }
        match request.policy {
            Policy::Watermarks { high, .. } => self.collect_by_watermarks(request, high),
            Policy::Unneeded { .. } => {
                let collecting = self.store_lock.collecting(self.patience)?;
                let images = self.remove_images(&collecting, request, &HashMap::new(), self.space()?)?;
                let mut swept = Swept::default();
                if !request.dry_run {
                    let age = request.policy.min_age();
                    swept = self.sweep_collecting(&collecting, age, request.mounted)?;
                    swept.bytes += self.parts.partials.remove_idle(age)?;
                }
                Ok(Collected { images, swept, above_mark: false })
            }
        }
    }

    fn collect_by_watermarks(&self, request: &CollectRequest<'_>, high: u8) -> Result<Collected, StoreError> {
        let mut done = Collected::default();
        let mut before = self.space()?;
        if before.exceeds(high) && !request.dry_run {
            // What only saves bytes on the wire goes before any image.
            done.swept.bytes += self.parts.partials.remove_idle(Duration::ZERO)?;
            before = self.space()?;
        }
        if !before.exceeds(high) {
            // The usual round: there is room, and nothing is read.
            return Ok(done);
        }
        let collecting = self.store_lock.collecting(self.patience)?;
        if !request.dry_run {
            self.parts.images.touch_future(SystemTime::now())?;
        }
        let (look, needed) = self.look(request, high)?;
        let round = self.rounds().next(&look, Instant::now());
        let sweep = |swept: &mut Swept| {
            let more = self.sweep_collecting(&collecting, request.policy.min_age(), request.mounted)?;
            *swept += more;
            Ok::<(), StoreError>(())
        };
        if round == Round::Sweep && !request.dry_run {
            sweep(&mut done.swept)?;
        }
        // Room for a pull that will be tried again is no room for anybody else.
        let space = if self.rounds().leftovers_come_back(Instant::now()) { before } else { self.space()? };
        if (round != Round::Skip || request.dry_run) && space.exceeds(high) {
            let frees = usage::frees(&self.parts.images, self.parts.contents(), &needed)?;
            done.images = self.remove_images(&collecting, request, &frees, space)?;
        }
        if request.dry_run {
            return Ok(done);
        }
        if !done.images.is_empty() {
            sweep(&mut done.swept)?;
        }
        if round != Round::Skip {
            let removed = (done.images.len(), done.swept.objects);
            self.rounds().ended(look, round == Round::Sweep, removed, Instant::now());
        }
        done.above_mark = self.space()?.exceeds(high);
        Ok(done)
    }

    /// What a round would find, and the images that may not go. An estimate: it is made again before any goes.
    fn look(&self, request: &CollectRequest<'_>, high: u8) -> Result<(Look, BTreeSet<Digest>), StoreError> {
        let (parts, policy) = (&self.parts, &request.policy);
        let Inventory { images, unknown, space, now } =
            inventory::take(parts, request.mounted, &HashMap::new(), self.space()?)?;
        if !unknown.is_empty() {
            return Err(StoreError::Blocked(unknown.join("; ")));
        }
        let needed = images.iter().filter(|image| image.needed.is_some()).map(|image| image.manifest);
        let idle = images.iter().filter(|image| gc::may_go(image, now, policy.min_age()));
        let look = Look {
            idle: idle.map(|image| (image.manifest, !gc::may_go(image, now, policy.recent()))).collect(),
            leftovers: inventory::has_leftovers(parts, policy.min_age())?,
            excess: space.excess(high),
        };
        Ok((look, needed.collect()))
    }

    fn rounds(&self) -> MutexGuard<'_, Rounds> {
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plans, and removes the records of what goes. Only for the removal, nothing can be noted in a hold.
    fn remove_images(
        &self,
        _collecting: &Collecting,
        request: &CollectRequest<'_>,
        frees: &HashMap<Digest, gc::Amount>,
        space: Space,
    ) -> Result<Vec<ImageRecord>, StoreError> {
        let inventory = inventory::take(&self.parts, request.mounted, frees, space)?;
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
        if !request.dry_run {
            // While nothing can be noted: who pins an image again holds it first.
            let may_go = |image: &Digest| Ok(!needs.holds(image) && images.get(image)?.is_none());
            self.parts.pins.forget_ended(may_go)?;
        }
        drop(all);
        // Before any layer or object goes: a record that came back after a power cut would name what is gone.
        images.sync()?;
        Ok(removed)
    }
}
