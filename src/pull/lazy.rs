//! Images that start before their content is here: from a manifest that was admitted to a composefs image in the store that
//! may be mounted, and a map of where its objects are. Nothing of the content is fetched here.
//!
//! An artifact is a hint of whoever can push. What is believed of it is the composefs image, and only if its digest, computed
//! here, is the one that counts: that of the manifest's seal, which what admitted the manifest covers, or else that of an
//! artifact over whose own manifest the policy verifies a signature. The map must have exactly the image's objects and be
//! about the manifest's layers; where it lies about places, an object's digest tells.
//!
//! All is read with the caller's own credentials, each time: that another tenant has the same image here saves nothing.

mod fetch;
mod judge;
mod offers;
mod places;

use std::sync::Arc;

pub use judge::{artifact_subject, by_seal, by_signature};
pub use offers::{LazyOffer, Offers, offers};
pub use places::{Places, places};

use super::builders::memory_to_read;
use super::error::About as _;
use super::excess::Excess;
use super::manifest_path::ManifestPath;
use super::{ImageRequest, PullError, Puller, recipe};
use crate::image::lazy::{Artifact, CheckedImage, FirstList, LazyError, OffsetMap, check};
use crate::image::seal::Seal;
use crate::image::store::Hold;
use crate::image::tree::{Powers, Stop};
use crate::oci::Source;
use crate::oci::digest::Digest;
use crate::oci::limits::ImageLimits;
use crate::oci::manifest::Manifest;
use crate::trust::Admission;
pub use fetch::fetch_map;

/// Artifacts of an image that are tried, the best first, where others are no good.
const TRIED_MAX: usize = 4;

/// An image that may be mounted before its content is here. Its composefs image is in the store.
#[derive(Debug)]
pub struct LazyImage {
    /// The digest of the artifact.
    pub artifact: Digest,
    /// The digest of the composefs image, by which it is in the store, and the annotation that says by which rules it may
    /// have been made: what the layers make must be the same when all have come.
    pub seal: Seal,
    /// Why that digest counts.
    pub covered: Covered,
    /// Bytes of the composefs image.
    pub image_size: u64,
    /// Where its objects are: of exactly these, with these sizes, the image is made.
    pub map: Arc<OffsetMap>,
    /// What is read first, as far as the image has it. Empty if nobody recorded it.
    pub first: FirstList,
    /// Inodes of the image.
    pub inodes: u64,
    /// Bytes of all regular files, hard links counted once.
    pub file_bytes: u64,
    /// Bytes of all objects, equal content counted once: the room that the image takes beside its metadata.
    pub object_bytes: u64,
    /// What it gives to the pods that see it: nothing that the policy and this node do not allow.
    pub powers: Powers,
    /// Keeps the composefs image, and nothing yet of its objects.
    pub hold: Hold,
}

/// Why the digest of a composefs image counts that was not made of layers here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Covered {
    /// The manifest is sealed with it, and was admitted. Whether a signature was verified for that is for the policy to say.
    Seal,
    /// The policy has verified a signature over the artifact.
    Signature,
}

impl Puller {
    /// What an image needs to start lazily, as a whole; `None` if nothing was published for that, and then it is pulled as
    /// any other. `path` leads to its manifest, which `admission` is about, and `source` is its own, opened with the
    /// credentials of the request.
    ///
    /// # Errors
    /// [`PullError::Lazy`] if something was published and none of it can be used, [`PullError::Excess`] if the image has what
    /// a sealed one may not have here; the source fails, or the store does.
    pub async fn lazy_image(
        &self,
        request: &ImageRequest,
        source: &Arc<dyn Source>,
        path: &ManifestPath,
        admission: &Admission,
    ) -> Result<Option<LazyImage>, PullError> {
        let image = request.reference.to_string();
        let seal = Seal::of(&path.manifest).about(&image)?;
        let Offers { good, bad } = offers(source, &path.digest).await.about(&image)?;
        let mut refused = bad.into_iter().next();
        for offer in good.into_iter().take(TRIED_MAX) {
            let digest = offer.digest;
            let wanted = Wanted { request, source, path, image: &image, offer: &offer, seal };
            match self.take_offer(&wanted).await? {
                Ok(lazy) => {
                    let (kept, noexec) = (self.pulls().kept(), request.noexec);
                    if let Some(source) = Excess::among(lazy.powers.clone(), kept, Some(admission), noexec) {
                        return Err(PullError::Excess { image, source });
                    }
                    tracing::info!(
                        artifact = %digest,
                        composefs = %lazy.seal.digest,
                        covered = ?lazy.covered,
                        objects = lazy.map.len(),
                        object_bytes = lazy.object_bytes,
                        "the image can start lazily"
                    );
                    return Ok(Some(lazy));
                }
                Err(error) => {
                    tracing::warn!(image.reference = image, artifact = %digest, %error, "an artifact is not used");
                    refused.get_or_insert((digest, error));
                }
            }
        }
        match refused {
            None => Ok(None),
            Some((artifact, error)) => Err(PullError::Lazy { image, artifact, source: Arc::new(error) }),
        }
    }

    /// Fetches what an artifact offers and checks it. The inner error says why it cannot be used.
    async fn take_offer(&self, wanted: &Wanted<'_>) -> Result<Result<LazyImage, LazyError>, PullError> {
        let Wanted { request, source, path, image, offer, .. } = *wanted;
        let artifact = &offer.artifact;
        let covered = match self.covered(wanted).await? {
            Ok(covered) => covered,
            Err(error) => return Ok(Err(error)),
        };
        let limits = *self.pulls().image_limits();
        // The map first: it is small, and may show that the rest is not worth fetching.
        let map = match fetch::fetch_map(&**source, artifact, &limits, image).await? {
            Ok(map) => map,
            Err(error) => return Ok(Err(error)),
        };
        if let Err(error) = is_about(&map, artifact, &path.manifest) {
            return Ok(Err(error));
        }
        let first = match fetch::fetch_first(&**source, artifact, image).await? {
            Ok(first) => first.only(|object| map.get(object).is_some()),
            Err(error) => return Ok(Err(error)),
        };
        let hold = self.pulls().store().hold();
        if let Err(error) =
            fetch::fetch_image((self.pulls().store(), &hold), &**source, artifact, image).await?
        {
            return Ok(Err(error));
        }
        let map = Arc::new(map);
        let checked = self.check_image(request, artifact, &map, &limits).await?;
        let CheckedImage { inodes, file_bytes, powers } = match checked {
            Ok(checked) => checked,
            Err(error) => return Ok(Err(error)),
        };
        Ok(Ok(LazyImage {
            artifact: offer.digest,
            seal: artifact.seal,
            covered,
            image_size: artifact.image.unpacked,
            object_bytes: map.bytes(),
            map,
            first,
            inodes,
            file_bytes,
            powers,
            hold,
        }))
    }

    /// Holds the stored composefs image and the map against each other, in the turn of builds: it takes as much memory.
    async fn check_image(
        &self,
        request: &ImageRequest,
        artifact: &Artifact,
        map: &Arc<OffsetMap>,
        limits: &ImageLimits,
    ) -> Result<Result<CheckedImage, LazyError>, PullError> {
        let image = request.reference.to_string();
        let tenant = self.pulls().rights(request)?.tenant();
        let needed = memory_to_read(artifact.image.unpacked, limits);
        let (store, map, limits) = (Arc::clone(self.pulls().store()), Arc::clone(map), *limits);
        let (digest, name) = (artifact.seal.digest, image.clone());
        let work = move |stop: &Stop| {
            let bytes = store.objects().read_whole(&digest).about(&name)?;
            Ok(check(&bytes, &map, &limits, stop))
        };
        self.pulls().builders().run_within(tenant, needed, &image, work).await
    }
}

/// An artifact that is looked at for a request.
struct Wanted<'a> {
    request: &'a ImageRequest,
    source: &'a Arc<dyn Source>,
    path: &'a ManifestPath,
    image: &'a str,
    offer: &'a LazyOffer,
    /// The seal of the manifest.
    seal: Option<Seal>,
}

/// Checks that a map is of the artifact's image and of the manifest's layers.
///
/// # Errors
/// It is of others.
pub fn is_about(map: &OffsetMap, artifact: &Artifact, manifest: &Manifest) -> Result<(), LazyError> {
    let (found, expected) = (map.image(), artifact.seal.digest);
    if found != expected {
        return Err(LazyError::OtherImage { part: "offset map", found, expected });
    }
    let layers = recipe::layers(manifest).map(|layer| (layer.descriptor.digest, layer.descriptor.size));
    match map.layers().iter().map(|layer| (layer.blob, layer.size)).eq(layers) {
        true => Ok(()),
        false => {
            let why = "is of other layers than those of the image's manifest".to_owned();
            Err(LazyError::Malformed { part: "offset map", why })
        }
    }
}
