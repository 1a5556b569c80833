//! Layers without an image: what sealing needs, which computes what an image would be before anybody may mount it.

use std::sync::Arc;

use super::error::About as _;
use super::layers::ImageLayers;
use super::rights::Rights;
use super::{ImageRequest, Progress, PullError, Puller};
use crate::image::store::Lease;
use crate::oci::digest::Digest;
use crate::oci::limits::{Budget, Limits};
use crate::oci::manifest::{ImageConfig, Manifest};
use crate::oci::{Source, read_blob};

/// The layers of one manifest, in the store while this lives, and nothing made of them.
#[derive(Debug)]
pub struct Unbuilt {
    /// DiffIDs computed here, lowest first.
    pub layers: Vec<Digest>,
    _lease: Lease,
}

impl Puller {
    /// Brings the layers of `manifest` into the store and builds nothing, whatever the manifest is sealed with.
    ///
    /// # Errors
    /// As for a pull.
    pub async fn layers(
        &self,
        request: &ImageRequest,
        source: &Arc<dyn Source>,
        digest: Digest,
        manifest: &Manifest,
        limits: &Limits,
    ) -> Result<Unbuilt, PullError> {
        let image = request.reference.to_string();
        let (store, sources, rule, fetcher) = self.parts();
        let lease = store.lease().await.about(&image)?;
        let rights = Rights::of(store, sources, rule, request)?;
        let config = read_blob(&**source, &manifest.config, limits.config_bytes).await.about(&image)?;
        let config = ImageConfig::parse(&config, manifest.layers.len()).about(&image)?;
        let layers = manifest.layers.iter().map(|layer| (layer.descriptor.digest, layer.descriptor.size));
        let progress = Arc::new(Progress::new(digest, layers));
        request.watch.join(&progress);
        let wanted = ImageLayers {
            image: &image,
            source: &**source,
            rights: &rights,
            lease: &lease,
            progress: &progress,
            unpacked: Arc::new(Budget::new(limits.image_bytes)),
        };
        fetcher.fetch_all(&wanted, &manifest.layers, &config.diff_ids).await?;
        Ok(Unbuilt { layers: config.diff_ids, _lease: lease })
    }
}
