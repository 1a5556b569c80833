//! From a request to a plan: is the image here, and if not, what exactly is to be fetched?
//!
//! Everything here runs with the caller's own credentials and outside the single flight, so that
//! joining somebody else's pull never replaces being allowed to make one's own.

use std::sync::Arc;

use super::error::About as _;
use super::{ImageRequest, PullError, PullPolicy};
use crate::image::digest::Digest;
use crate::image::manifest::{CONFIG_MAX, Document, ImageConfig, Manifest};
use crate::image::reference::Version;
use crate::image::source::{Source, Sources, read_blob};
use crate::image::store::{ImageRecord, Store};

/// Indexes within indexes beyond this depth are refused.
const INDEX_DEPTH_MAX: usize = 4;

/// What is to be done for a request.
pub(super) enum Located {
    /// Nothing: the image is in the store.
    Here(ImageRecord),
    /// It must be fetched.
    There(Box<Plan>),
}

/// An image that must be fetched, pinned to a digest.
pub(super) struct Plan {
    /// The reference as the user wrote it, for messages.
    pub image: String,
    /// Every name under which the image can be found again.
    pub names: Vec<String>,
    /// The platform's manifest.
    pub digest: Digest,
    /// The same, parsed.
    pub manifest: Manifest,
    /// Where its blobs are.
    pub source: Arc<dyn Source>,
}

/// Finds out whether `request` needs a pull. The caller holds a lease.
pub(super) async fn locate(
    store: &Store,
    sources: &Sources,
    request: &ImageRequest,
) -> Result<Located, PullError> {
    let image = request.reference.to_string();
    // A digest cannot move: what it names is asked for once, whatever the policy says.
    let version = request.reference.version();
    let fixed = matches!(version, Version::Digest(_));
    if request.policy != PullPolicy::Always || fixed {
        if let Some(record) = recall(store, request, &image)? {
            return Ok(Located::Here(record));
        }
        if request.policy == PullPolicy::Never {
            return Err(PullError::Absent(image));
        }
    }
    let source = sources.open(&request.reference, &request.credentials).about(&image)?;
    let top = source.resolve(&version).await.about(&image)?;
    let names = vec![image.clone(), request.reference.clone().pinned(top).to_string()];
    let found = match recall(store, request, &names[1])? {
        Some(record) => record,
        None => {
            let (digest, manifest) = platform_manifest(&*source, top, request, &image).await?;
            match store.image(&digest).about(&image)? {
                Some(record) => record,
                None => return Ok(Located::There(Box::new(Plan { image, names, digest, manifest, source }))),
            }
        }
    };
    store.remember(&names, &request.platform, found.manifest).about(&image)?;
    Ok(Located::Here(found))
}

/// What the store knows under `name`.
fn recall(store: &Store, request: &ImageRequest, name: &str) -> Result<Option<ImageRecord>, PullError> {
    match store.resolve(name, &request.platform).about(name)? {
        Some(digest) => store.image(&digest).about(name),
        None => Ok(None),
    }
}

/// Fetches the manifest that `top` is, or that the index `top` lists for the platform.
async fn platform_manifest(
    source: &dyn Source,
    top: Digest,
    request: &ImageRequest,
    image: &str,
) -> Result<(Digest, Manifest), PullError> {
    let mut wanted = (top, None);
    // An index may list indexes (image-spec 1.1, image-index.md); nobody nests them deeply.
    for _ in 0..INDEX_DEPTH_MAX {
        let raw = source.manifest(&Version::Digest(wanted.0)).await.about(image)?;
        let stated: Option<String> = wanted.1.or(raw.media_type);
        match Document::parse(&raw.bytes, stated.as_deref()).about(image)? {
            Document::Image(manifest) => return Ok((raw.digest, manifest)),
            Document::Index(index) => {
                let chosen = &index.choose(&request.platform).about(image)?.descriptor;
                wanted = (chosen.digest, Some(chosen.media_type.clone()));
            }
        }
    }
    Err(PullError::Nested(image.to_owned()))
}

impl Plan {
    /// Fetches and parses the image's config, checked against its descriptor.
    pub(super) async fn config(&self) -> Result<ImageConfig, PullError> {
        let bytes = read_blob(&*self.source, &self.manifest.config, CONFIG_MAX).await.about(&self.image)?;
        ImageConfig::parse(&bytes, self.manifest.layers.len()).about(&self.image)
    }
}
