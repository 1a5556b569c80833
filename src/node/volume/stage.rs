//! Staging: an image is brought here and kept, so that the pod that comes later need not wait. Nothing is mounted, and
//! whose pod will come is not known, so no policy is asked yet.

use std::time::Instant;

use tracing::Span;

use super::request::VolumeRequest;
use super::target::TargetPath;
use super::{VolumeError, Volumes, carry_out, milliseconds, plan};
use crate::image::pull::Caller;
use crate::volume::id::VolumeId;

impl Volumes {
    /// Brings a volume's image here and keeps it, before any pod gets it. Repeating it is fine.
    ///
    /// No pod is known yet, so neither are its pull secrets nor the tokens of its ServiceAccount. An image that the
    /// registry keeps from whoever shows none of them is left to the publish, which has them.
    ///
    /// # Errors
    /// As for [`Volumes::publish`].
    pub async fn stage(&self, request: VolumeRequest) -> Result<(), VolumeError> {
        let begun = Instant::now();
        self.0.layouts.check(&request.attributes.image)?;
        self.0.levels.demand(request.attributes.verify, None)?;
        let wanted = request.requested();
        let guard = self.guard(&request.volume)?;
        let (guard, seen) = self
            .blocking(move |io| {
                let seen = io.look_at_record(&guard)?;
                Ok((guard, seen))
            })
            .await?;
        let image = plan::image_to_stage(&request.volume, &wanted, &request.target, &seen);
        let chosen = match self.choose(&request, Caller::Staging, image).await {
            Err(error) if request.is_for_the_pod_to_ask(&error) => {
                tracing::info!("not staged, the pod's own credentials decide at the publish: {error}");
                return Ok(());
            }
            other => other?,
        };
        let Some(chosen) = chosen else {
            return Ok(());
        };
        let (image, fetched, path) = (chosen.pinned, chosen.fetched, request.target.clone());
        Span::current().record("image.digest", tracing::field::display(image.image));
        self.blocking(move |io| {
            let _chosen = chosen;
            let seen = io.look_at_record(&guard)?;
            let plan = plan::stage(guard.volume(), &wanted, &path, image, &seen);
            carry_out(io, &guard, &path, &seen, plan)
        })
        .await?;
        tracing::info!(
            image = request.attributes.image.to_string(),
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
        self.blocking(move |io| {
            let seen = io.look_at_record(&guard)?;
            carry_out(io, &guard, &path, &seen, plan::unstage(&path, &seen))
        })
        .await?;
        Ok(())
    }
}
