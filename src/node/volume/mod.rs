//! Volumes on this node: published, staged, measured, put in order again after a crash.
//!
//! Decisions are [`plan`]'s, pure; [`execute`] looks and carries out; [`record`] keeps one file per volume.
//! [`Volumes`] ties them to the images and to the calls, with these rules:
//! * one call per volume at a time ([`guard`]); a second is told to try again;
//! * what touches the disk or the mount table is one blocking closure that owns the volume's guard and the
//!   image's lease, so that a call whose future is dropped never leaves a mount half made;
//! * a pull is waited for, never owned: it goes on without the call.
//!
//! Nothing here knows of gRPC.

pub mod error;
pub mod execute;
pub mod guard;
pub mod levels;
pub mod metrics;
pub mod news;
pub mod plan;
pub mod record;
pub mod recover;
pub mod statistics;
pub mod target;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::error::Elapsed;
use tracing::Span;

pub use error::VolumeError;

use self::execute::Hands;
use self::guard::{Guards, VolumeGuard};
use self::levels::Levels;
use self::metrics::VolumeMetrics;
use self::news::Reports;
use self::plan::{Image, Plan, Seen, Wanted};
use self::record::{Pinned, Records, Requested};
use self::target::TargetPath;
use crate::image::digest::Digest;
use crate::image::platform::Platform;
use crate::image::pull::{Caller, ImageRequest, Images, PullError, Ready, Watch};
use crate::image::source::Credentials;
use crate::image::store::Integrity;
use crate::kind::Kind;
use crate::metrics::Outcome;
use crate::node::damage::Damages;
use crate::node::keychain::{Asker, Keychain};
use crate::node::mount::Mounter;
use crate::volume::access::Access;
use crate::volume::attributes::Attributes;
use crate::volume::id::VolumeId;
use crate::volume::layouts::Layouts;

/// A pull that is done sooner is not worth saying that it has begun. Later it is looked at as often.
const NOTICE: Duration = Duration::from_millis(500);

/// The volumes of this node. Clones share them.
#[derive(Debug, Clone)]
pub struct Volumes(Arc<Parts>);

/// What the volumes stand on.
#[derive(Debug)]
pub struct Parts {
    /// Who makes images available.
    pub images: Arc<dyn Images>,
    /// Who mounts them.
    pub mounter: Arc<dyn Mounter>,
    /// Where volumes are recorded.
    pub records: Records,
    /// The boot that is running (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// How far the bytes that pods read are checked on this node.
    pub levels: Levels,
    /// The node's own platform.
    pub platform: Platform,
    /// Which directories volumes may name as images.
    pub layouts: Layouts,
    /// Who works on what. Empty at first.
    pub guards: Guards,
    /// Whose credentials a pull shows.
    pub keychain: Keychain,
    /// Who is told of pulls.
    pub reports: Reports,
    /// Told when room may be short: something was pulled, or something did not fit.
    pub housekeeping: Arc<Notify>,
    /// Images that the kernel refuses to readers in part.
    pub damages: Damages,
    /// What is counted.
    pub metrics: VolumeMetrics,
}

/// What a volume shows, and who asks.
#[derive(Debug)]
pub struct Use {
    /// The volume.
    pub volume: VolumeId,
    /// Where it is to be published or staged.
    pub target: TargetPath,
    /// What it shows.
    pub attributes: Attributes,
    /// How it is used.
    pub access: Access,
    /// Which pod asks.
    pub asker: Asker,
    /// What came with the request to be shown to the registry.
    pub credentials: Credentials,
    /// How long to wait for a pull before saying that it goes on.
    pub wait: Duration,
}

impl Use {
    fn requested(&self) -> Requested {
        Requested {
            image: self.attributes.image.to_string(),
            path: self.attributes.path.clone(),
            platform: self.attributes.platform.as_ref().map(Platform::to_string),
        }
    }

    fn wanted(&self, least: Integrity) -> Wanted {
        Wanted {
            volume: self.volume.clone(),
            target: self.target.clone(),
            request: self.requested(),
            noexec: self.attributes.noexec || self.access.noexec,
            mode: self.access.mode,
            least,
        }
    }
}

/// An image to publish, with what keeps it from the sweep until a record does.
struct Chosen {
    pinned: Pinned,
    fetched: u64,
    ready: Ready,
}

impl Volumes {
    /// The volumes that stand on these parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// How far the bytes that pods read here are checked.
    pub fn integrity(&self) -> Integrity {
        self.0.levels.here
    }

    /// What is counted of these volumes.
    pub fn metrics(&self) -> &VolumeMetrics {
        &self.0.metrics
    }

    /// Makes a volume visible at its target, read-only. Repeating it is fine.
    ///
    /// # Errors
    /// The image cannot be had (yet), the target cannot be used, or the volume is in use otherwise.
    pub async fn publish(&self, usage: Use) -> Result<(), VolumeError> {
        let timing = self.0.metrics.publish();
        let (volume, pod) = (usage.volume.clone(), usage.asker.pod.clone());
        let image = usage.attributes.image.to_string();
        let outcome = self.publish_now(usage).await;
        if let Err(error) = &outcome {
            self.0.reports.failed(&volume, &pod, &image, error);
        }
        timing.end(Outcome::of(&outcome, VolumeError::kind));
        outcome
    }

    async fn publish_now(&self, usage: Use) -> Result<(), VolumeError> {
        let begun = Instant::now();
        self.0.layouts.check(&usage.attributes.image)?;
        let least = self.0.levels.demand(usage.attributes.verify, None)?;
        let mut wanted = usage.wanted(least);
        let (guard, seen) = self.look(self.guard(&usage.volume)?, &usage.target).await?;
        let caller = Caller::Pod { namespace: usage.asker.pod.namespace() };
        let Some(chosen) = self.choose(&usage, caller, plan::image_for(&wanted, &seen)).await? else {
            return Ok(());
        };
        let (image, fetched) = (chosen.pinned, chosen.fetched);
        let admission = chosen.ready.admission.as_ref();
        // The policy may demand more of the mount than node and volume do.
        let demanded = admission.and_then(|admission| admission.integrity);
        wanted.least = self.0.levels.demand(usage.attributes.verify, demanded)?;
        let admitted = admission.map(|admission| admission.by.clone()).unwrap_or_default();
        Span::current().record("image.digest", tracing::field::display(image.image));
        let level = self
            .blocking(move |hands| {
                // Held until the record keeps the image.
                let _chosen = chosen;
                let seen = hands.look(&guard, &wanted.target)?;
                carry_out(hands, &guard, &wanted.target, &seen, plan::publish(&wanted, image, &seen))?;
                Ok(hands.mounter.level(&image.composefs).max(wanted.least))
            })
            .await?;
        self.0.metrics.mounted(usage.target.path(), level);
        tracing::info!(
            target_path = %usage.target,
            pod = %usage.asker.pod,
            image = usage.attributes.image.to_string(),
            integrity = %level,
            admitted,
            bytes = image.bytes,
            fetched,
            milliseconds = milliseconds(begun),
            "published"
        );
        Ok(())
    }

    /// Takes a volume from a target and removes the target. That it was not there is fine.
    ///
    /// # Errors
    /// The mount or the directory cannot be removed.
    pub async fn unpublish(&self, volume: VolumeId, target: TargetPath) -> Result<(), VolumeError> {
        let begun = Instant::now();
        let guard = self.guard(&volume)?;
        let unpublished = volume;
        let (shown, images) = (target.clone(), Arc::clone(&self.0.images));
        let changed = self
            .blocking(move |hands| {
                let seen = hands.look(&guard, &target)?;
                let changed = carry_out(hands, &guard, &target, &seen, plan::unpublish(&target, &seen))?;
                // A volume's image was in use until now, however long ago it was published.
                if let (true, Some(record)) = (changed, &seen.record) {
                    images.used(&record.image);
                }
                Ok(changed)
            })
            .await?;
        self.0.metrics.unmounted(shown.path());
        self.0.reports.forget_volume(&unpublished);
        if changed {
            tracing::info!(target_path = %shown, milliseconds = milliseconds(begun), "unpublished");
        }
        Ok(())
    }

    /// Brings a volume's image here and keeps it, before any pod gets it. Repeating it is fine.
    ///
    /// # Errors
    /// As for [`Volumes::publish`].
    pub async fn stage(&self, usage: Use) -> Result<(), VolumeError> {
        let begun = Instant::now();
        self.0.layouts.check(&usage.attributes.image)?;
        self.0.levels.demand(usage.attributes.verify, None)?;
        let request = usage.requested();
        let guard = self.guard(&usage.volume)?;
        let (guard, seen) = self
            .blocking(move |hands| {
                let seen = hands.look_at_record(&guard)?;
                Ok((guard, seen))
            })
            .await?;
        let image = plan::image_to_stage(&usage.volume, &request, &usage.target, &seen);
        let Some(chosen) = self.choose(&usage, Caller::Staging, image).await? else {
            return Ok(());
        };
        let (image, fetched, path) = (chosen.pinned, chosen.fetched, usage.target.clone());
        Span::current().record("image.digest", tracing::field::display(image.image));
        self.blocking(move |hands| {
            let _chosen = chosen;
            let seen = hands.look_at_record(&guard)?;
            let plan = plan::stage(guard.volume(), &request, &path, image, &seen);
            carry_out(hands, &guard, &path, &seen, plan)
        })
        .await?;
        tracing::info!(
            image = usage.attributes.image.to_string(),
            bytes = image.bytes,
            fetched,
            milliseconds = milliseconds(begun),
            "staged"
        );
        Ok(())
    }

    /// Lets a staged volume go. That it was not staged is fine.
    ///
    /// # Errors
    /// The record cannot be changed.
    pub async fn unstage(&self, volume: VolumeId, path: TargetPath) -> Result<(), VolumeError> {
        let guard = self.guard(&volume)?;
        self.blocking(move |hands| {
            let seen = hands.look_at_record(&guard)?;
            carry_out(hands, &guard, &path, &seen, plan::unstage(&path, &seen))
        })
        .await?;
        Ok(())
    }

    async fn look(
        &self,
        guard: VolumeGuard,
        target: &TargetPath,
    ) -> Result<(VolumeGuard, Seen), VolumeError> {
        let target = target.clone();
        self.blocking(move |hands| {
            let seen = hands.look(&guard, &target)?;
            Ok((guard, seen))
        })
        .await
    }

    /// The image that a plan asks for; `None` where there is nothing to do.
    async fn choose(&self, usage: &Use, caller: Caller, image: Image) -> Result<Option<Chosen>, VolumeError> {
        match image {
            Image::Done => Ok(None),
            Image::Refuse(refusal) => Err(refusal.into()),
            // That a volume is in use already is no leave for the one who asks now.
            Image::Pinned(pinned) => self.ensure(usage, caller, Some(pinned.image)).await.map(Some),
            Image::Resolve => self.ensure(usage, caller, None).await.map(Some),
        }
    }

    async fn ensure(
        &self,
        usage: &Use,
        caller: Caller,
        pinned: Option<Digest>,
    ) -> Result<Chosen, VolumeError> {
        let (image, asker) = (&usage.attributes.image, &usage.asker);
        let credentials = self.0.keychain.complete(image, &usage.credentials, asker).await?;
        let watch = Watch::default();
        let request = ImageRequest {
            reference: usage.attributes.image.clone(),
            policy: usage.attributes.policy(),
            platform: usage.attributes.platform.clone().unwrap_or_else(|| self.0.platform.clone()),
            caller,
            pinned,
            credentials,
            watch: watch.clone(),
        };
        let begun = Instant::now();
        let Ok(answer) = self.wait(usage, &request, &watch).await else {
            let progress = watch.get().map_or_else(|| "not begun".to_owned(), ToString::to_string);
            return Err(VolumeError::Pulling { image: request.reference.to_string(), progress });
        };
        let ready = answer.inspect_err(|error| {
            if error.kind() == Kind::Exhausted {
                self.0.housekeeping.notify_one();
            }
        })?;
        if ready.fetched > 0 {
            self.0.housekeeping.notify_one();
        }
        let (pull, image) = (watch.get().map(|pull| (pull, begun.elapsed())), request.reference.to_string());
        self.0.reports.ready(&usage.volume, &usage.asker.pod, &image, &ready, pull);
        let record = &ready.record;
        let (image, composefs) = (record.manifest, record.image);
        let pinned = Pinned { image, composefs, bytes: record.bytes, inodes: record.inodes };
        Ok(Chosen { pinned, fetched: ready.fetched, ready })
    }

    /// Waits for an image as long as the caller does, and tells of the pull that it waits for.
    async fn wait(
        &self,
        usage: &Use,
        request: &ImageRequest,
        watch: &Watch,
    ) -> Result<Result<Ready, PullError>, Elapsed> {
        let mut waiting = std::pin::pin!(tokio::time::timeout(usage.wait, self.0.images.ensure(request)));
        if !self.0.reports.wanted() {
            return waiting.await;
        }
        let image = request.reference.to_string();
        let mut follower = self.0.reports.follow(&usage.volume, &usage.asker.pod, &image, watch);
        loop {
            tokio::select! {
                answer = &mut waiting => return answer,
                () = tokio::time::sleep(NOTICE) => follower.look(),
            }
        }
    }

    fn guard(&self, volume: &VolumeId) -> Result<VolumeGuard, VolumeError> {
        self.0.guards.take(volume).ok_or_else(|| VolumeError::Busy(volume.clone()))
    }

    /// Runs `work` to its end on a thread of its own, whether or not anybody waits for it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Hands<'_>) -> Result<T, VolumeError> + Send + 'static,
    ) -> Result<T, VolumeError> {
        let (parts, span) = (Arc::clone(&self.0), Span::current());
        let task = tokio::task::spawn_blocking(move || {
            let hands = Hands { records: &parts.records, mounter: &*parts.mounter, boot: &parts.boot };
            span.in_scope(|| work(hands))
        });
        task.await.map_err(|error| VolumeError::Lost(error.to_string()))?
    }
}

/// Whether anything had to be done.
fn carry_out(
    hands: Hands<'_>,
    guard: &VolumeGuard,
    target: &TargetPath,
    seen: &Seen,
    plan: Plan,
) -> Result<bool, VolumeError> {
    match plan {
        Plan::Done => Ok(false),
        Plan::Refuse(refusal) => Err(refusal.into()),
        Plan::Run(steps) => {
            hands.run(guard, target, seen.record.as_ref(), &steps)?;
            Ok(true)
        }
    }
}

fn milliseconds(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}
