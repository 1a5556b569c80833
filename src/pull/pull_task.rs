//! The body of a pull: from a manifest to a committed image, in a task that outlives its callers.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attendance::{Attendance, Ended};
use super::builders::{Builders, BuiltOf};
use super::error::About as _;
use super::evidence::Evidence;
use super::layers::{ImageLayers, LayerFetcher};
use super::manifest_path::ManifestPath;
use super::recipe::{self, Recipe, StoredPart};
use super::rights::Rights;
use super::room::{Reckoning, RoomCheck};
use super::turns::Tenant;
use super::{
    Combination, MakeRoom, Phase, Progress, PullError, PullLimits, PullMetrics, blocking, build, combine,
    mend, renew, stored_evidence, vary,
};
use crate::image::access::AccessRule;
use crate::image::seal::Seal;
use crate::image::store::{Held, Hold, ImageRecord, Store};
use crate::image::tree::{Rules, Stop};
use crate::metrics::Outcome;
use crate::oci::choice::Choice;
use crate::oci::digest::Digest;
use crate::oci::limits::{Budget, Cap};
use crate::oci::{Source, Sources, read_blob};

/// An image that must be fetched. The registry has given its manifest to the caller.
pub(super) struct PullTask {
    /// The reference as the user wrote it, for messages.
    pub image: String,
    /// The platform's manifest and what leads to it.
    pub path: Arc<ManifestPath>,
    /// What of it is wanted.
    pub choice: Choice,
    /// What it is judged by.
    pub evidence: Arc<Evidence>,
    /// Where its blobs are.
    pub source: Arc<dyn Source>,
    /// The rights of the caller that started the pull.
    pub rights: Rights,
}

impl PullTask {
    /// By what the store will know the image.
    pub(super) fn key(&self) -> Digest {
        self.choice.key(&self.path.digest)
    }
}

/// What a pull leaves behind for everybody who waited for it.
#[derive(Debug, Clone)]
pub(super) struct PulledImage {
    pub record: ImageRecord,
    /// Compressed bytes.
    pub fetched: u64,
    /// Keeps the image until each of them has done with it.
    pub hold: Hold,
}

/// What the tasks of all pulls of a node share.
#[derive(Debug)]
pub(super) struct PullContext {
    pub store: Arc<Store>,
    pub sources: Sources,
    pub rule: Arc<AccessRule>,
    pub layers: LayerFetcher,
    pub limits: PullLimits,
    /// Removes what may go, if anybody can.
    pub room: Option<Arc<dyn MakeRoom>>,
    /// Building holds a whole tree in memory.
    pub builders: Builders,
    pub metrics: PullMetrics,
}

impl PullContext {
    /// One pull, counted.
    pub(super) async fn run(
        &self,
        task: &Arc<PullTask>,
        progress: &Arc<Progress>,
    ) -> Result<PulledImage, PullError> {
        let timing = self.metrics.pull();
        let outcome = self.pull(task, progress).await;
        timing.end(Outcome::of(&outcome, PullError::kind));
        outcome
    }

    /// Does the work of a pull as long as somebody may want it; `None` if nobody does any more. What it has staged stays.
    pub(super) async fn while_wanted(
        &self,
        attendance: &Attendance,
        progress: &Progress,
        work: impl Future<Output = Result<PulledImage, PullError>>,
    ) -> Option<Result<PulledImage, PullError>> {
        let mut work = pin!(work);
        loop {
            // A prefetch that has gone does not come back as a kubelet does.
            let urgent = progress.urgency().is_urgent();
            let grace = if urgent { self.limits.grace } else { Duration::ZERO };
            let ended = tokio::select! {
                done = &mut work => return Some(done),
                ended = attendance.ended(grace) => ended,
            };
            if ended == Ended::Told {
                tracing::warn!("the pull is ended by the operator; what is complete stays for the next");
                return Some(Err(PullError::Cancelled(progress.image.clone())));
            }
            if progress.urgency().is_urgent() != urgent {
                // A pod has come and gone meanwhile, and has its own patience.
                continue;
            }
            // Somebody may come back while the pins are read.
            if !self.is_pinned(&progress.manifest).await && attendance.count() == 0 {
                let seconds = grace.as_secs();
                tracing::info!(seconds, "the pull is ended: nobody waits for it; what is complete stays");
                return None;
            }
        }
    }

    async fn is_pinned(&self, manifest: &Digest) -> bool {
        let (store, manifest) = (Arc::clone(&self.store), *manifest);
        let found = blocking("", move || store.pins().contains(&manifest)).await;
        // What cannot be read may hold a pin.
        !matches!(found, Ok(Ok(false)))
    }

    async fn pull(&self, task: &Arc<PullTask>, progress: &Arc<Progress>) -> Result<PulledImage, PullError> {
        let started = Instant::now();
        let (image, key) = (task.image.as_str(), task.key());
        let hold = self.store.hold();
        let (store, held, asked) = (Arc::clone(&self.store), hold.clone(), Arc::clone(task));
        let here = move || {
            // From here on what is found or made of the image stays. Nothing is locked while the registry is waited for.
            held.keep_blocking(&[Held::Manifest(key)]).about(&asked.image)?;
            // Between planning and now another pull may have ended.
            let found = store.images().get_or_set_aside(&key).about(&asked.image)?;
            let Some(record) = found else { return Ok(None) };
            if !asked.rights.is_from_here(&key)? {
                return Ok(None);
            }
            // It is made whole by what comes.
            if store.quarantine_of(&key).about(&asked.image)?.is_some() {
                return Ok(None);
            }
            held.keep_blocking(&Held::of(&record)).about(&asked.image)?;
            Ok::<_, PullError>(Some(record))
        };
        if let Some(record) = blocking(image, here).await?? {
            return Ok(PulledImage { record, fetched: 0, hold });
        }
        let recipe = self.recipe(task).await?;
        progress.leave_out_others(recipe.parts.iter().map(|part| part.number));
        self.check_room(task, &recipe, progress).await?;
        let record = match self.make(task, &recipe, &hold, progress).await {
            Err(error) if error.wants_whole_layers() => {
                tracing::info!(%error, "a link leads to what was left out; the layers are taken in whole");
                self.make(task, &recipe.whole(), &hold, progress).await?
            }
            made => made?,
        };
        // Only now have all of the image's bytes come from the origin, which is believed about it from here on.
        let (rights, held) = (task.rights.clone(), hold.clone());
        let (store, name) = (Arc::clone(&self.store), task.image.clone());
        let end = move || {
            mend::settle(&store, &held, &record, &name)?;
            rights.record_origin(&held, &key).map(|()| record)
        };
        let record = blocking(image, end).await??;
        let fetched = progress.fetched();
        tracing::info!(
            composefs = %record.image,
            choice = (!task.choice.is_all()).then(|| task.choice.to_string()),
            fetched_bytes = fetched,
            files_bytes = record.bytes,
            inodes = record.inodes,
            seconds = started.elapsed().as_secs_f64(),
            "pulled"
        );
        Ok(PulledImage { record, fetched, hold })
    }

    /// Makes room for a pull, and refuses what cannot fit.
    async fn check_room(
        &self,
        task: &PullTask,
        recipe: &Recipe,
        progress: &Progress,
    ) -> Result<(), PullError> {
        let by = Reckoning {
            percent: self.limits.min_unpacked,
            compresses: self.store.may_take_less(),
            in_parts: self.layers.fetches_in_parts(),
        };
        let check = RoomCheck {
            store: Arc::clone(&self.store),
            maker: self.room.clone().filter(|_| progress.urgency().is_urgent()),
            rights: task.rights.clone(),
            parts: recipe.parts.clone(),
            image: task.image.clone(),
            by,
        };
        check.run().await
    }

    /// Fetches the parts, and builds the image of them.
    async fn make(
        &self,
        task: &Arc<PullTask>,
        recipe: &Recipe,
        hold: &Hold,
        progress: &Arc<Progress>,
    ) -> Result<ImageRecord, PullError> {
        let (image, key) = (task.image.as_str(), task.key());
        let layers = ImageLayers {
            image,
            source: &*task.source,
            rights: &task.rights,
            hold,
            progress,
            budget: Arc::new(Budget::of(&self.limits.image)),
        };
        let found = self.layers.fetch_all(&layers, &recipe.parts).await?;
        let (store, held, asked) = (Arc::clone(&self.store), hold.clone(), Arc::clone(task));
        let parts = recipe.stored(&found);
        let stored = parts.clone();
        let elsewhere = move || {
            // The evidence comes before the image, so that the image never is without.
            let (about, image) = ((key, asked.rights.origin().name()), &asked.image);
            stored_evidence::keep(&store, &held, &asked.evidence, about, image)?;
            // If the image is here from elsewhere, all of its layers were proven, and nothing is left to be built.
            let found = store.images().get_or_set_aside(&key).about(image)?;
            let found = found.filter(|record| StoredPart::of(record) == stored);
            let Some(record) = found else { return Ok(None) };
            held.keep_blocking(&Held::of(&record)).about(image)?;
            let lacks_image = mend::lacks_image(&store, &record, image)?;
            // This release would not make the same again of what another one has made.
            if lacks_image && record.is_outdated() && !store.volumes().may_show(&key).about(image)? {
                return Ok(None);
            }
            Ok::<_, PullError>(Some((record, lacks_image)))
        };
        match blocking(image, elsewhere).await?? {
            Some((record, false)) => Ok(record),
            Some((record, true)) => self.rebuild(task, record, hold).await,
            None => self.build(task, (parts, recipe.platform.clone()), hold, progress).await,
        }
    }

    /// Checks the announced sizes, and reads the config.
    async fn recipe(&self, task: &PullTask) -> Result<Recipe, PullError> {
        let (caps, manifest) = (&self.limits.image, &task.path.manifest);
        let exceeds = |exceeded| PullError::Limit { image: task.image.clone(), exceeded };
        // What is larger than the cap before it is unpacked is refused before it is fetched.
        let announced = recipe::layers(manifest).map(|layer| layer.descriptor.size);
        let announced = announced.fold(0, u64::saturating_add);
        if announced > caps.image_bytes && task.choice.is_all() {
            return Err(exceeds(Cap::ImageBytes.exceeded(announced, caps.image_bytes)));
        }
        let (config, max) = (&manifest.config, caps.config_bytes);
        if config.size > max as u64 {
            return Err(exceeds(Cap::ConfigBytes.exceeded(config.size, max)));
        }
        let bytes = read_blob(&*task.source, config, max).await.about(&task.image)?;
        let recipe = Recipe::parse(manifest, &bytes).about(&task.image)?;
        let recipe = recipe.chosen(&task.choice).about(&task.image)?;
        // Of a part the same is known only now.
        let announced = recipe.parts.iter().map(|part| part.blob.size).fold(0, u64::saturating_add);
        if announced > caps.image_bytes {
            return Err(exceeds(Cap::ImageBytes.exceeded(announced, caps.image_bytes)));
        }
        Ok(recipe)
    }

    /// Makes the composefs images of an image again that are damaged.
    async fn rebuild(
        &self,
        task: &Arc<PullTask>,
        record: ImageRecord,
        hold: &Hold,
    ) -> Result<ImageRecord, PullError> {
        let (store, hold, limits) = (Arc::clone(&self.store), hold.clone(), self.limits.image);
        let (parts, image) = (StoredPart::of(&record), task.image.clone());
        let rebuild = move |stop: &Stop| {
            mend::rebuild(&store, &hold, &record, (&limits, stop), &image).map(|()| record)
        };
        self.builders.run(task.rights.tenant(), (parts, BuiltOf::Parts), &task.image, rebuild).await
    }

    async fn build(
        &self,
        task: &Arc<PullTask>,
        (parts, platform): (Vec<StoredPart>, Option<String>),
        hold: &Hold,
        progress: &Arc<Progress>,
    ) -> Result<ImageRecord, PullError> {
        progress.enter(Phase::Waiting);
        let (store, hold, image) = (Arc::clone(&self.store), hold.clone(), task.image.clone());
        let progress = Arc::clone(progress);
        let work = build::Work {
            manifest: task.path.digest,
            choice: task.choice.clone(),
            parts: parts.clone(),
            platform,
            name: image.clone(),
            // The seal is that of the whole.
            seal: Seal::of(&task.path.manifest).about(&image)?.filter(|_| task.choice.is_all()),
            rules: self.limits.rules(),
            limits: self.limits.image,
        };
        let build =
            move |stop: &Stop| build::build(&store, &hold, work, stop, &|phase| progress.enter(phase));
        self.builders.run(task.rights.tenant(), (parts, BuiltOf::Parts), &image, build).await
    }

    /// Builds another image of the same layers.
    pub(super) async fn vary(
        &self,
        record: ImageRecord,
        rules: Rules,
        tenant: Tenant,
        image: String,
    ) -> Result<PulledImage, PullError> {
        let hold = self.store.hold();
        let (store, limits, name) = (Arc::clone(&self.store), self.limits.image, image.clone());
        let parts = StoredPart::of(&record);
        let build = move |stop: &Stop| {
            let record = vary::vary(&store, &hold, &record, rules, (&limits, stop), &name)?;
            Ok(PulledImage { record, fetched: 0, hold })
        };
        self.builders.run(tenant, (parts, BuiltOf::Parts), &image, build).await
    }

    /// Puts images that are here into one.
    pub(super) async fn combine(
        &self,
        wanted: Arc<Combination>,
        tenant: Tenant,
    ) -> Result<PulledImage, PullError> {
        let hold = self.store.hold();
        let (store, limits, parts) = (Arc::clone(&self.store), self.limits.image, wanted.parts());
        let image = wanted.name.clone();
        let build = move |stop: &Stop| {
            let record = combine::combine(&store, &hold, &wanted, (&limits, stop))?;
            mend::settle(&store, &hold, &record, &wanted.name)?;
            Ok(PulledImage { record, fetched: 0, hold })
        };
        self.builders.run(tenant, (parts, BuiltOf::Images), &image, build).await
    }

    /// Builds an image again that another release built.
    pub(super) async fn renew(
        &self,
        old: ImageRecord,
        tenant: Tenant,
        image: String,
    ) -> Result<PulledImage, PullError> {
        let hold = self.store.hold();
        let (store, limits, name) = (Arc::clone(&self.store), self.limits, image.clone());
        let (parts, rules) = (StoredPart::of(&old), (limits.rules(), limits.image));
        let build = move |stop: &Stop| {
            let record = renew::renew(&store, &hold, old, rules, stop, &name)?;
            Ok(PulledImage { record, fetched: 0, hold })
        };
        self.builders.run(tenant, (parts, BuiltOf::Parts), &image, build).await
    }
}
