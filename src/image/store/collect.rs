//! Garbage collection: carries out the plan of [`super::gc`], then sweeps.

use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::gc::{self, Inventory, Policy};
use super::inventory;
use super::mounted::MountedImages;
use super::rounds::{Look, Round, Rounds};
use super::worth::Valuation;
use super::{ImageRecord, Removal, Space, Store, StoreError, Swept, worth};
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
    /// Why each of them went, in the same order.
    pub removals: Vec<Removal>,
    /// What went with them, and what no image had needed before; zero in a dry run.
    pub swept: Swept,
    /// Whether the filesystem is still fuller than the watermark at which removal begins.
    pub above_mark: bool,
}

impl Collected {
    fn removed(&mut self, images: Vec<(ImageRecord, Removal)>) {
        (self.images, self.removals) = images.into_iter().unzip();
    }
}

impl CollectRequest<'_> {
    fn what(&self) -> (&Policy, &MountedImages<'_>, bool) {
        (&self.policy, self.mounted, self.dry_run)
    }
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
            Policy::Watermarks { high, idle_bytes, .. } => {
                self.collect_by_watermarks(request, (high, idle_bytes), 0)
            }
            Policy::Unneeded { .. } => {
                let collecting = self.store_lock.collecting(self.patience)?;
                let mut done = Collected::default();
                // Only who looks wants to know what it would free.
                let valuation = if request.dry_run {
                    let (_, needed) = self.look(request, Space::default(), 100)?;
                    worth::value(&self.parts.images, self.parts.contents(), &needed)?
                } else {
                    Valuation::none()
                };
                done.removed(self.remove_images(&collecting, request.what(), &valuation, self.space()?)?);
                if !request.dry_run {
                    let age = request.policy.min_age();
                    done.swept = self.sweep_collecting(&collecting, age, request.mounted)?;
                    done.swept.bytes += self.parts.partials.remove_idle(age)?;
                }
                Ok(done)
            }
        }
    }

    /// A round by these marks, as if so many bytes more were in use.
    pub(super) fn collect_by_watermarks(
        &self,
        request: &CollectRequest<'_>,
        (high, idle_bytes): (u8, Option<u64>),
        incoming: u64,
    ) -> Result<Collected, StoreError> {
        let mut done = Collected::default();
        let space = || Ok::<_, StoreError>(self.space()?.with(incoming));
        let mut before = space()?;
        if before.exceeds(high) && !request.dry_run {
            // What only saves bytes on the wire goes before any image.
            done.swept.bytes += self.parts.partials.remove_idle(Duration::ZERO)?;
            before = space()?;
        }
        let full = before.exceeds(high);
        // Images cannot take more than what is in use.
        let most = idle_bytes.filter(|most| self.space().is_ok_and(|space| space.used.bytes > *most));
        if !full && most.is_none() {
            // The usual round: there is room, and nothing is read.
            return Ok(done);
        }
        let collecting = self.store_lock.collecting(self.patience)?;
        if !request.dry_run {
            self.parts.images.touch_future(SystemTime::now())?;
        }
        let (look, needed) = self.look(request, before, high)?;
        let surplus = !look.idle.is_empty() && self.has_surplus(&needed, most)?;
        if !full && !surplus {
            return Ok(done);
        }
        // Where there is room, what pulls have left may wait for them.
        let round = if full { self.rounds().next(&look, Instant::now()) } else { Round::Images };
        let sweep = |swept: &mut Swept| {
            let more = self.sweep_collecting(&collecting, request.policy.min_age(), request.mounted)?;
            *swept += more;
            Ok::<(), StoreError>(())
        };
        if round == Round::Sweep && !request.dry_run {
            sweep(&mut done.swept)?;
        }
        // Room for a pull that will be tried again is no room for anybody else.
        let now = if self.rounds().leftovers_come_back(Instant::now()) { before } else { space()? };
        if surplus || ((round != Round::Skip || request.dry_run) && now.exceeds(high)) {
            let valuation = worth::value(&self.parts.images, self.parts.contents(), &needed)?;
            done.removed(self.remove_images(&collecting, request.what(), &valuation, now)?);
        }
        if request.dry_run {
            return Ok(done);
        }
        if !done.images.is_empty() {
            sweep(&mut done.swept)?;
        }
        if round != Round::Skip && full {
            let removed = (done.images.len(), done.swept.objects);
            self.rounds().ended(look, round == Round::Sweep, removed, Instant::now());
        }
        done.above_mark = space()?.exceeds(high);
        Ok(done)
    }

    /// Whether what nothing needs takes more than `most`. Reads the records of layers if the images are not those of the last
    /// time.
    fn has_surplus(&self, needed: &BTreeSet<Digest>, most: Option<u64>) -> Result<bool, StoreError> {
        let Some(most) = most else { return Ok(false) };
        let images: BTreeSet<Digest> = self.parts.images.manifests()?.into_iter().collect();
        let known = self.rounds().idle_bytes(&images, needed);
        let taken = match known {
            Some(taken) => taken,
            None => worth::value(&self.parts.images, self.parts.contents(), needed)?.idle_bytes(),
        };
        if known.is_none() {
            self.rounds().measured(images, needed.clone(), taken);
        }
        Ok(taken > most)
    }

    /// What a round would find with this room, and the images that may not go. An estimate: it is made again before any goes.
    fn look(
        &self,
        request: &CollectRequest<'_>,
        space: Space,
        high: u8,
    ) -> Result<(Look, BTreeSet<Digest>), StoreError> {
        let (parts, policy) = (&self.parts, &request.policy);
        let Inventory { images, unknown, now, .. } =
            inventory::take(parts, request.mounted, &Valuation::none(), space)?;
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
}
