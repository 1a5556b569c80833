//! Staging: pulls an image and keeps it, so that the pod that comes later does not wait.
//!
//! Staging mounts nothing. The pod is not known yet, so no signature policy is evaluated.

use std::time::Instant;

use tracing::Span;

use super::request::VolumeRequest;
use super::{VolumeError, Volumes, execute_plan, milliseconds, plan};
use crate::pull::Caller;

impl Volumes {
    /// Pulls a volume's image and keeps it, before any pod gets it. Idempotent.
    ///
    /// The pod's pull secrets and the tokens of its ServiceAccount are not known yet. An image that needs them is left
    /// to the publish, which has them.
    ///
    /// # Errors
    /// As for [`Volumes::publish`].
    pub(crate) async fn stage(&self, request: VolumeRequest) -> Result<(), VolumeError> {
        let outcome = self.stage_now(request).await;
        self.blame_state_directory(outcome).await
    }

    async fn stage_now(&self, request: VolumeRequest) -> Result<(), VolumeError> {
        let begun = Instant::now();
        self.check_content(&request)?;
        self.0.levels.demand(request.content.verify(), None)?;
        let wanted = request.requested();
        let guard = self.guard(&request.volume)?;
        let (guard, seen) = self
            .blocking(move |io| {
                io.state.check_before_work()?;
                let seen = io.observe_record(&guard)?;
                Ok((guard, seen))
            })
            .await?;
        let image = plan::image_to_stage(&request.volume, &wanted, &request.target, &seen);
        let chosen = match self.ensure_chosen(&request, Caller::Staging, image, &guard).await {
            Err(error) if request.may_need_pod_credentials(&error) => {
                tracing::info!("not staged, the publish will use the pod's own credentials: {error}");
                return Ok(());
            }
            other => other?,
        };
        let Some(chosen) = chosen else {
            return Ok(());
        };
        let (image, fetched, path) = (chosen.pinned.clone(), chosen.fetched, request.target.clone());
        let bytes = image.bytes;
        Span::current().record("image.digest", tracing::field::display(image.image));
        self.blocking(move |io| {
            // The hold lasts until the record keeps the image.
            let _chosen = chosen;
            // A pull takes minutes; the record may have changed since.
            let seen = io.observe_record(&guard)?;
            let plan = plan::stage(guard.volume(), &wanted, &path, image, &seen);
            execute_plan(io, &guard, &path, &seen, plan)
        })
        .await?;
        tracing::info!(
            image = request.content.to_string(),
            bytes,
            fetched,
            milliseconds = milliseconds(begun),
            "staged"
        );
        Ok(())
    }
}
