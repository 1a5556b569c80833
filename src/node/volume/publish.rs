//! Publishing: ensures the image, then executes one plan that records the volume and mounts it.

use std::sync::Arc;
use std::time::Instant;

use tracing::Span;

use super::guard::VolumeGuard;
use super::plan::{self, Observed};
use super::request::VolumeRequest;
use super::target::TargetPath;
use super::{VolumeError, Volumes, execute_plan, milliseconds};
use crate::integrity::Integrity;
use crate::metrics::Outcome;
use crate::pull::Caller;

impl Volumes {
    /// Mounts a volume at its target: read-only, or with an upper of its own. Idempotent.
    ///
    /// # Errors
    /// The image is not available (yet), the target cannot be used, or the volume is in use with other attributes.
    pub(crate) async fn publish(&self, request: VolumeRequest) -> Result<(), VolumeError> {
        let timing = self.0.metrics.publish();
        let (volume, pod) = (request.volume.clone(), request.identity.pod.clone());
        let image = request.content.to_string();
        let outcome = self.publish_now(request).await;
        let outcome = self.blame_state_directory(outcome).await;
        if let Err(error) = &outcome {
            self.0.pod_events.publish_failed(&volume, &pod, &image, error);
        }
        timing.end(Outcome::of(&outcome, VolumeError::kind));
        outcome
    }

    async fn publish_now(&self, request: VolumeRequest) -> Result<(), VolumeError> {
        let begun = Instant::now();
        // Refusals that need neither disk nor network come first.
        self.check_content(&request)?;
        self.check_follow(&request)?;
        let least = self.demand(&request, None)?;
        let mut wanted = request.publish_spec(least);
        let (guard, seen) = self.observe(self.guard(&request.volume)?, &request.target).await?;
        let caller = Caller::Pod { namespace: request.identity.pod.namespace() };
        let Some(chosen) =
            self.ensure_chosen(&request, caller, plan::image_to_publish(&wanted, &seen), &guard).await?
        else {
            // It is there. What is left of an earlier call is done.
            self.map_published(guard, request.target.clone()).await?;
            self.0.repairs.remember(&request);
            self.follow(request).await;
            return Ok(());
        };
        let (image, fetched) = (chosen.pinned.clone(), chosen.fetched);
        let bytes = image.bytes;
        // A policy may demand a higher level than the node and the volume do.
        wanted.least = self.demand(&request, chosen.integrity())?;
        let admitted = chosen.admitted();
        Span::current().record("image.digest", tracing::field::display(image.image));
        let (metrics, images) = (self.0.metrics.clone(), Arc::clone(&self.0.images));
        let level = self
            .blocking(move |io| {
                // The hold lasts until the record keeps the image.
                let _chosen = chosen;
                // Observed again: the pull may have taken minutes.
                let seen = io.observe(&guard, &wanted.target)?;
                // A mount that is there may remember what was damaged.
                let healed = images.healed();
                if healed.contains(&image.composefs)
                    && let Err(error) = io.mounter.refresh(&healed)
                {
                    tracing::warn!("the volume may show what was damaged for a while: {error}");
                }
                let plan = plan::publish(&wanted, image.clone(), &seen);
                execute_plan(io, &guard, &wanted.target, &seen, plan)?;
                io.map_published(&guard, &wanted.target, &metrics)?;
                let shown = plan::shown(&wanted, image, &seen);
                Ok(wanted.request.level(io.mounter.level(&shown.composefs).max(wanted.least)))
            })
            .await?;
        self.0.metrics.mounted(request.target.path(), level);
        self.0.pod_directories.watch(&self.0.kubelet, request.target.path());
        tracing::info!(
            target_path = %request.target,
            pod = %request.identity.pod,
            image = request.content.to_string(),
            integrity = %level,
            upper = request.content.upper().map(|upper| upper.bytes),
            admitted,
            bytes,
            fetched,
            milliseconds = milliseconds(begun),
            "published"
        );
        self.0.repairs.remember(&request);
        self.follow(request).await;
        Ok(())
    }

    /// The least integrity level that the mount must reach, also by the `policy` that admits the image.
    ///
    /// # Errors
    /// This node cannot reach it, or has no such writable volume.
    fn demand(&self, request: &VolumeRequest, policy: Option<Integrity>) -> Result<Integrity, VolumeError> {
        let attribute = request.content.verify();
        if let Some(upper) = request.content.upper() {
            self.0.writable.allow(upper, &self.0.levels, attribute, policy)?;
        }
        Ok(self.0.levels.demand(attribute, policy)?)
    }

    async fn observe(
        &self,
        guard: VolumeGuard,
        target: &TargetPath,
    ) -> Result<(VolumeGuard, Observed), VolumeError> {
        let target = target.clone();
        self.blocking(move |io| {
            io.state.check_before_work()?;
            let seen = io.observe(&guard, &target)?;
            Ok((guard, seen))
        })
        .await
    }
}
