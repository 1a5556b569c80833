//! Publishing: ensures the image, then executes one plan that records the volume and mounts it.

use std::sync::Arc;
use std::time::Instant;

use tracing::Span;

use super::guard::VolumeGuard;
use super::plan::{self, Observed};
use super::request::VolumeRequest;
use super::target::TargetPath;
use super::{VolumeError, Volumes, execute_plan, milliseconds};
use crate::metrics::Outcome;
use crate::pull::Caller;
use crate::volume::id::VolumeId;

impl Volumes {
    /// Mounts a volume at its target, read-only. Idempotent.
    ///
    /// # Errors
    /// The image is not available (yet), the target cannot be used, or the volume is in use with other attributes.
    pub(crate) async fn publish(&self, request: VolumeRequest) -> Result<(), VolumeError> {
        let timing = self.0.metrics.publish();
        let (volume, pod) = (request.volume.clone(), request.identity.pod.clone());
        let image = request.attributes.image.to_string();
        let outcome = self.publish_now(request).await;
        if let Err(error) = &outcome {
            self.0.pod_events.publish_failed(&volume, &pod, &image, error);
        }
        timing.end(Outcome::of(&outcome, VolumeError::kind));
        outcome
    }

    async fn publish_now(&self, request: VolumeRequest) -> Result<(), VolumeError> {
        let begun = Instant::now();
        // Refusals that need neither disk nor network come first.
        self.0.layouts.check(&request.attributes.image)?;
        let least = self.0.levels.demand(request.attributes.verify, None)?;
        let mut wanted = request.publish_spec(least);
        let (guard, seen) = self.observe(self.guard(&request.volume)?, &request.target).await?;
        let caller = Caller::Pod { namespace: request.identity.pod.namespace() };
        let Some(chosen) =
            self.ensure_chosen(&request, caller, plan::image_to_publish(&wanted, &seen)).await?
        else {
            return Ok(());
        };
        let (image, fetched) = (chosen.pinned, chosen.fetched);
        let admission = chosen.ready.admission.as_ref();
        // The policy may demand a higher level than the node and the volume do.
        let demanded = admission.and_then(|admission| admission.integrity);
        wanted.least = self.0.levels.demand(request.attributes.verify, demanded)?;
        let admitted = admission.map(|admission| admission.by.clone()).unwrap_or_default();
        Span::current().record("image.digest", tracing::field::display(image.image));
        let level = self
            .blocking(move |io| {
                // The lease is held until the record protects the image.
                let _chosen = chosen;
                // Observed again: the pull may have taken minutes.
                let seen = io.observe(&guard, &wanted.target)?;
                execute_plan(io, &guard, &wanted.target, &seen, plan::publish(&wanted, image, &seen))?;
                let shown = plan::shown(&wanted, image, &seen);
                Ok(io.mounter.level(&shown.composefs).max(wanted.least))
            })
            .await?;
        self.0.metrics.mounted(request.target.path(), level);
        tracing::info!(
            target_path = %request.target,
            pod = %request.identity.pod,
            image = request.attributes.image.to_string(),
            integrity = %level,
            admitted,
            bytes = image.bytes,
            fetched,
            milliseconds = milliseconds(begun),
            "published"
        );
        Ok(())
    }

    /// Unmounts a volume from a target and removes the target. Succeeds if it is not there.
    ///
    /// # Errors
    /// The mount or the directory cannot be removed.
    pub(crate) async fn unpublish(&self, volume: VolumeId, target: TargetPath) -> Result<(), VolumeError> {
        let begun = Instant::now();
        let guard = self.guard(&volume)?;
        let (unpublished, images) = (target.clone(), Arc::clone(&self.0.images));
        let changed = self
            .blocking(move |io| {
                let seen = io.observe(&guard, &target)?;
                let changed = execute_plan(io, &guard, &target, &seen, plan::unpublish(&target, &seen))?;
                // The image counts as used until the unpublish, not only until the publish.
                if let (true, Some(record)) = (changed, &seen.record) {
                    images.used(&record.image);
                }
                Ok(changed)
            })
            .await?;
        self.0.metrics.unmounted(unpublished.path());
        self.0.pod_events.forget_volume(&volume);
        if changed {
            tracing::info!(target_path = %unpublished, milliseconds = milliseconds(begun), "unpublished");
        }
        Ok(())
    }

    async fn observe(
        &self,
        guard: VolumeGuard,
        target: &TargetPath,
    ) -> Result<(VolumeGuard, Observed), VolumeError> {
        let target = target.clone();
        self.blocking(move |io| {
            let seen = io.observe(&guard, &target)?;
            Ok((guard, seen))
        })
        .await
    }
}
