//! Publishing: an image is brought here, then one plan makes it visible, recorded before it is mounted.

use std::sync::Arc;
use std::time::Instant;

use tracing::Span;

use super::guard::VolumeGuard;
use super::plan::{self, Seen};
use super::request::VolumeRequest;
use super::target::TargetPath;
use super::{VolumeError, Volumes, carry_out, milliseconds};
use crate::image::pull::Caller;
use crate::metrics::Outcome;
use crate::volume::id::VolumeId;

impl Volumes {
    /// Makes a volume visible at its target, read-only. Repeating it is fine.
    ///
    /// # Errors
    /// The image cannot be had (yet), the target cannot be used, or the volume is in use otherwise.
    pub async fn publish(&self, request: VolumeRequest) -> Result<(), VolumeError> {
        let timing = self.0.metrics.publish();
        let (volume, pod) = (request.volume.clone(), request.identity.pod.clone());
        let image = request.attributes.image.to_string();
        let outcome = self.publish_now(request).await;
        if let Err(error) = &outcome {
            self.0.pod_events.failed(&volume, &pod, &image, error);
        }
        timing.end(Outcome::of(&outcome, VolumeError::kind));
        outcome
    }

    async fn publish_now(&self, request: VolumeRequest) -> Result<(), VolumeError> {
        let begun = Instant::now();
        self.0.layouts.check(&request.attributes.image)?;
        let least = self.0.levels.demand(request.attributes.verify, None)?;
        let mut wanted = request.wanted(least);
        let (guard, seen) = self.look(self.guard(&request.volume)?, &request.target).await?;
        let caller = Caller::Pod { namespace: request.identity.pod.namespace() };
        let Some(chosen) = self.choose(&request, caller, plan::image_for(&wanted, &seen)).await? else {
            return Ok(());
        };
        let (image, fetched) = (chosen.pinned, chosen.fetched);
        let admission = chosen.ready.admission.as_ref();
        // The policy may demand more of the mount than node and volume do.
        let demanded = admission.and_then(|admission| admission.integrity);
        wanted.least = self.0.levels.demand(request.attributes.verify, demanded)?;
        let admitted = admission.map(|admission| admission.by.clone()).unwrap_or_default();
        Span::current().record("image.digest", tracing::field::display(image.image));
        let level = self
            .blocking(move |io| {
                // Held until the record keeps the image.
                let _chosen = chosen;
                let seen = io.look(&guard, &wanted.target)?;
                carry_out(io, &guard, &wanted.target, &seen, plan::publish(&wanted, image, &seen))?;
                Ok(io.mounter.level(&image.composefs).max(wanted.least))
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
            .blocking(move |io| {
                let seen = io.look(&guard, &target)?;
                let changed = carry_out(io, &guard, &target, &seen, plan::unpublish(&target, &seen))?;
                // A volume's image was in use until now, however long ago it was published.
                if let (true, Some(record)) = (changed, &seen.record) {
                    images.used(&record.image);
                }
                Ok(changed)
            })
            .await?;
        self.0.metrics.unmounted(shown.path());
        self.0.pod_events.forget_volume(&unpublished);
        if changed {
            tracing::info!(target_path = %shown, milliseconds = milliseconds(begun), "unpublished");
        }
        Ok(())
    }

    async fn look(
        &self,
        guard: VolumeGuard,
        target: &TargetPath,
    ) -> Result<(VolumeGuard, Seen), VolumeError> {
        let target = target.clone();
        self.blocking(move |io| {
            let seen = io.look(&guard, &target)?;
            Ok((guard, seen))
        })
        .await
    }
}
