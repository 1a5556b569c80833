//! Layers without an image. Sealing needs them: it computes what an image would be before it may be mounted.

use std::sync::Arc;

use super::error::About as _;
use super::layers::ImageLayers;
use super::recipe::{Recipe, StoredPart};
use super::{ImageRequest, Progress, PullError, Puller};
use crate::image::store::Hold;
use crate::oci::digest::Digest;
use crate::oci::limits::{Budget, ImageLimits};
use crate::oci::manifest::Manifest;
use crate::oci::{Source, read_blob};

/// The parts of one manifest, kept in the store while this value lives. No image is made of them.
#[derive(Debug)]
pub struct Unbuilt {
    /// What the image would be made of.
    pub parts: Vec<StoredPart>,
    _hold: Hold,
}

impl Puller {
    /// Fetches the layers of `manifest` into the store and builds nothing, whatever the manifest is sealed with.
    ///
    /// # Errors
    /// As for a pull.
    pub async fn layers(
        &self,
        request: &ImageRequest,
        source: &Arc<dyn Source>,
        digest: Digest,
        manifest: &Manifest,
        limits: &ImageLimits,
    ) -> Result<Unbuilt, PullError> {
        let image = request.reference.to_string();
        let hold = self.pulls().store().hold();
        let rights = self.pulls().rights(request)?;
        let config = read_blob(&**source, &manifest.config, limits.config_bytes).await.about(&image)?;
        let recipe = Recipe::parse(manifest, &config).about(&image)?;
        let progress = Arc::new(Progress::of(&image, digest, manifest));
        request.watch.set_progress(&progress);
        let wanted = ImageLayers {
            image: &image,
            source: &**source,
            rights: &rights,
            hold: &hold,
            progress: &progress,
            budget: Arc::new(Budget::of(limits)),
        };
        let found = self.pulls().fetcher().fetch_all(&wanted, &recipe.parts).await?;
        Ok(Unbuilt { parts: recipe.stored(&found), _hold: hold })
    }
}
