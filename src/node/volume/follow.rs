//! Volumes that follow a tag: they show another image when the tag names another.
//!
//! The tag is asked for at a pace ([`Followed`]), with what kubelet gave with the last publish of the volume: the pod and its
//! credentials. These are in memory only. After a restart the volume goes on showing what it shows, and the tag is asked for
//! again once kubelet has published the volume again, which it does where the CSIDriver has `requiresRepublish`.
//!
//! An image goes the way of every publish: credentials, policy, pull, integrity. What is refused, or cannot be had, changes
//! nothing. The record is written before the mount, and keeps what was shown before for as long as somebody has it open:
//! a container without propagation, or a process that works in a directory of it.

mod pace;
mod table;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tracing::Instrument as _;

pub use self::pace::LEAST;
use self::table::{Asked, Job};
pub use self::table::{Followed, FollowedVolume};
use super::execute::Io;
use super::guard::VolumeGuard;
use super::plan::{EARLIER_MAX, Step, SwitchPlan, SwitchSpec, switch};
use super::record::{PinnedImage, Requested, VolumeRecord};
use super::request::VolumeRequest;
use super::target::TargetPath;
use super::{VolumeError, Volumes};
use crate::integrity::Integrity;
use crate::node::mount::MountSpec;
use crate::pull::Caller;
use crate::text;
use crate::volume::id::VolumeId;

/// Tags that are asked for at the same time.
const AT_ONCE: usize = 8;
/// How long one question may take, its pull included: slow registries must not keep others from being asked. The pull goes
/// on, and the next question joins it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often to try again while another call works on the volume, and for how long.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
const BUSY_TRIES: usize = 600;
/// How long [`Volumes::refresh`] waits for answers, and how often it looks.
const REFRESH: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

impl Volumes {
    /// Refuses a volume that is to follow a tag on a node that follows none.
    pub(super) fn check_follow(&self, request: &VolumeRequest) -> Result<(), VolumeError> {
        match request.content.followed() {
            Some(_) if !self.0.followed.is_on() => Err(VolumeError::NotFollowing),
            _ => Ok(()),
        }
    }

    /// A volume is published, or kubelet has published it again: from now on its tag is asked for with what came along.
    pub(super) async fn follow(&self, request: VolumeRequest) {
        if request.content.followed().is_none() {
            return;
        }
        let volume = request.volume.clone();
        let shown = self.blocking(move |io| Ok(io.records.read(&volume)?)).await.ok().flatten();
        let shown = shown.map(|record| record.pinned().manifest);
        let content = request.content.asked_anew();
        self.0.followed.remember(VolumeRequest { content, wait: PATIENCE, ..request }, shown, Instant::now());
    }

    /// Asks for tags when it is time, until the shutdown.
    ///
    /// # Errors
    /// One of its tasks has panicked.
    pub(crate) async fn follow_tags(self) -> Result<(), tokio::task::JoinError> {
        let mut asking = JoinSet::new();
        loop {
            while asking.len() < AT_ONCE
                && let Some(job) = self.0.followed.take_due(Instant::now())
            {
                let volumes = self.clone();
                let span = tracing::info_span!("follow", volume.id = %job.request.volume, image.digest = tracing::field::Empty);
                asking.spawn(async move { volumes.ask(job).await }.instrument(span));
            }
            // Without a free place it is the end of a question that is waited for.
            let due = if asking.len() < AT_ONCE { self.0.followed.next_due() } else { None };
            let time_comes = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.0.shutdown.cancelled() => return Ok(()),
                Some(asked) = asking.join_next() => asked?,
                () = self.0.followed.changed() => {}
                () = time_comes => {}
            }
        }
    }

    /// Asks now for the tags of the volumes that `what` names: a volume, an image, or all of them if it is empty. Waits for the
    /// answers for some seconds, and returns how these volumes stand then.
    pub(crate) async fn refresh(&self, what: &str) -> Vec<FollowedVolume> {
        let rounds = self.0.followed.hurry(what, Instant::now());
        let deadline = Instant::now() + REFRESH;
        while !self.0.followed.have_answers(&rounds) && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
        self.0.followed.list(what, Instant::now())
    }

    /// One question, and what follows from the answer.
    async fn ask(&self, job: Job) {
        let asked = tokio::select! {
            // The volume is gone, and with it the reason for the pull.
            biased;
            () = job.gone.cancelled() => return,
            asked = self.ask_now(&job.request) => asked,
        };
        let request = &job.request;
        let outcome = match &asked {
            Ok(Switched::Gone) => Asked::Gone,
            Ok(Switched::Same(image)) => Asked::Same(image.manifest),
            Ok(Switched::To { image, .. }) => Asked::Switched(image.manifest),
            // The pull goes on; nothing has failed.
            Err(VolumeError::Pulling { .. }) => Asked::Pending,
            Err(error) => Asked::Failed(error.to_string()),
        };
        let pod = &request.identity.pod;
        let reference = request.content.to_string();
        match &asked {
            Ok(Switched::To { image, before, least }) => {
                let (new, old) = (image.manifest, before.manifest);
                tracing::info!(
                    target_path = %request.target, pod = %pod, image = reference, integrity = %least,
                    digest = %new, before = %old, bytes = image.bytes, "the volume shows another image"
                );
                self.0.metrics.mounted(request.target.path(), *least);
                self.0.pod_events.switched(&request.volume, pod, &reference, (&new, &old));
            }
            Err(error) if !matches!(error, VolumeError::Pulling { .. } | VolumeError::Stopping { .. }) => {
                if self.0.followed.is_news(&job, &error.to_string()) {
                    tracing::warn!(
                        image = reference, pod = %pod,
                        "the volume goes on showing what it shows: {}", text::one_line(&error.to_string())
                    );
                }
                self.0.pod_events.not_switched(&request.volume, pod, &reference, error);
            }
            _ => {}
        }
        self.0.followed.answered(&job, outcome, Instant::now());
    }

    async fn ask_now(&self, request: &Arc<VolumeRequest>) -> Result<Switched, VolumeError> {
        self.check_content(request)?;
        let caller = Caller::Pod { namespace: request.identity.pod.namespace() };
        let chosen = self.ensure_content(request, caller, None).await?;
        let least = self.0.levels.demand(request.content.verify(), chosen.integrity())?;
        let guard = self.guard_soon(&request.volume).await?;
        let (request, level) = (Arc::clone(request), self.0.levels.here);
        self.blocking(move |io| {
            // The hold lasts until the record keeps the image.
            let chosen = chosen;
            io.state.check_before_work()?;
            let (wanted, image) = (request.requested(), chosen.pinned.clone());
            io.switch(&guard, &wanted, &request.target, image, (least, level))
        })
        .await
    }

    /// The volume's guard, when no other call has it.
    async fn guard_soon(&self, volume: &VolumeId) -> Result<VolumeGuard, VolumeError> {
        for _ in 0..BUSY_TRIES {
            match self.guard(volume) {
                Err(VolumeError::Busy(_)) => tokio::time::sleep(BUSY_PAUSE).await,
                other => return other,
            }
        }
        self.guard(volume)
    }
}

/// What has become of a volume whose tag was asked for.
#[derive(Debug)]
enum Switched {
    Gone,
    Same(PinnedImage),
    To { image: PinnedImage, before: PinnedImage, least: Integrity },
}

impl Io<'_> {
    /// Shows `image` at the target of a volume that follows a tag, if that is not what it shows. `least` is demanded of the
    /// mount, `here` is what every mount has.
    fn switch(
        &self,
        guard: &VolumeGuard,
        request: &Requested,
        target: &TargetPath,
        image: PinnedImage,
        (least, here): (Integrity, Integrity),
    ) -> Result<Switched, VolumeError> {
        let record = self.records.read(guard.volume())?;
        let mounted = self.mounter.mounted(target.path())?.map(|spec| spec.image);
        let want = SwitchSpec { request, target: target.path(), image: image.clone(), least };
        let in_use = |image: &_| self.mounter.in_use(image);
        match (switch(want, record.as_ref(), self.boot, mounted.as_ref(), in_use), record) {
            (SwitchPlan::Gone, _) | (_, None) => Ok(Switched::Gone),
            (SwitchPlan::TooMany, _) => Err(VolumeError::StillInUse { most: EARLIER_MAX }),
            (SwitchPlan::Same(shorter), _) => {
                if let Some(record) = shorter {
                    self.step(guard, target, &Step::Record(record))?;
                }
                Ok(Switched::Same(image))
            }
            (SwitchPlan::Run(new), Some(old)) => {
                self.step(guard, target, &Step::Record(new.clone()))?;
                if let Err(error) = self.show_recorded(guard, target, &new) {
                    // Without it the next question finds the same, and tries again.
                    if let Err(error) = self.step(guard, target, &Step::Record(Box::new(old))) {
                        tracing::warn!("the record of a switch that failed stays: {error}");
                    }
                    return Err(error);
                }
                let least = least.max(here);
                Ok(Switched::To { image, before: old.pinned(), least })
            }
        }
    }

    /// Shows what the record says, and lets go of what was shown before as far as nobody uses it.
    pub(super) fn show_recorded(
        &self,
        guard: &VolumeGuard,
        target: &TargetPath,
        record: &VolumeRecord,
    ) -> Result<(), VolumeError> {
        let Some(published) = record.target(target.path()) else { return Ok(()) };
        let (image, path) = (record.composefs, record.request.path.clone());
        let spec = MountSpec { image, path, noexec: published.noexec, upper: None };
        self.step(guard, target, &Step::ShowCurrent(spec, published.least))?;
        for earlier in &record.earlier {
            if let Err(error) = self.step(guard, target, &Step::Release(earlier.composefs)) {
                tracing::warn!("the base mount of an earlier image remains: {error}");
            }
        }
        Ok(())
    }

    /// Ends a switch during which the plugin was killed: the record says what it was for.
    ///
    /// # Errors
    /// The image cannot be shown; the volume goes on showing the earlier one.
    pub(super) fn end_switch(&self, guard: &VolumeGuard) -> Result<(), VolumeError> {
        let Some(record) = self.records.read(guard.volume())? else { return Ok(()) };
        for published in record.targets.iter().filter(|_| record.boot == self.boot) {
            let mounted = self.mounter.mounted(&published.path)?;
            if mounted.is_some_and(|spec| record.has_shown(&spec.image)) {
                let target = TargetPath::recorded(&published.path);
                self.show_recorded(guard, &target, &record)?;
                tracing::info!(target_path = %target, "ended a switch that was interrupted");
            }
        }
        Ok(())
    }
}
