//! Starting with an image before its content is here: what the mount needs, with everything checked that can be.

use std::sync::Arc;

use super::bring::{Bring, Wishes};
use super::error::About as _;
use super::execute::{Execution, Looked};
use super::lazy::LazyImage;
use super::{ImageRequest, ManifestPath, PullError, Puller, Ready, StoredPart, blocking, write};
use crate::image::store::{Held, StoreError};
use crate::image::tree::Stop;
use crate::oci::Source;
use crate::oci::digest::Digest;
use crate::trust::Admission;

/// What a request that wants an image at once can have.
#[derive(Debug)]
pub enum Start {
    /// The image is here.
    Here(Box<Ready>),
    /// It can be mounted now, and its content must be brought then.
    Lazily(Box<Started>),
    /// It must be pulled first: why.
    Whole(String),
}

/// An image that can be mounted, and is not here. Its composefs image and every object that this names stay, whenever they
/// come, as long as this value lives.
#[derive(Debug)]
pub struct Started {
    /// The platform's manifest.
    pub manifest: Digest,
    /// What was published for it.
    pub image: LazyImage,
    /// Why it may be mounted.
    pub admission: Admission,
    /// Where its layers are, with the caller's credentials.
    pub source: Arc<dyn Source>,
}

impl Started {
    /// What brings single objects of the image while `puller` brings all of them, and how to say which are wanted.
    pub fn bring(&self, puller: &Puller, request: &ImageRequest) -> (Wishes, Bring) {
        let name = request.reference.to_string();
        Bring::new(name, &self.image, &self.source, puller.pulls().store())
    }

    /// Checks that what was pulled in the end is what was mounted in the beginning.
    ///
    /// # Errors
    /// [`PullError::NotAsMounted`] if it is not; those of building it again.
    pub async fn check_pulled(
        &self,
        puller: &Puller,
        request: &ImageRequest,
        pulled: &Ready,
    ) -> Result<(), PullError> {
        let (name, seal) = (request.reference.to_string(), self.image.seal);
        // Of a sealed image, the pull has compared it.
        if pulled.record.images().any(|own| own.image == seal.digest) {
            return Ok(());
        }
        let (store, limits) = (Arc::clone(puller.pulls().store()), *puller.pulls().image_limits());
        let (parts, choice, image) =
            (StoredPart::of(&pulled.record), pulled.record.choice.clone(), name.clone());
        let build = move || {
            let mut built = Vec::new();
            // The artifact does not say which of its rules its publisher followed.
            for rules in seal.rules() {
                let bounds = (&limits, &Stop::default());
                let digest = write(&store, (&parts, &choice), *rules, bounds, &image)?.digest();
                if digest == seal.digest {
                    return Ok(());
                }
                built.push((*rules, digest));
            }
            Err(PullError::NotAsMounted { image, mounted: seal.digest, built })
        };
        blocking(&name, build).await?
    }
}

impl Puller {
    /// Looks for an image that is wanted at once: what it needs to be mounted before its content is here, if it is not.
    /// Fetches nothing but that.
    ///
    /// # Errors
    /// As of [`Images::ensure`](super::Images::ensure); [`PullError::Lazy`] if something was published for it, and none of it
    /// can be used; [`PullError::NoRoomForLazy`] if the content would not fit.
    pub async fn start(&self, request: &ImageRequest) -> Result<Start, PullError> {
        self.pulls().sources().ask_helpers(&request.reference, &request.credentials).await;
        let execution = Execution::new(self.pulls(), request)?;
        match execution.run_until_missing(self.requires_digest()).await? {
            Looked::Here(ready) => Ok(Start::Here(ready)),
            Looked::Missing { path, admission, source } => {
                start(self, request, (path, admission, source)).await
            }
        }
    }
}

/// Looks for what was published, and whether this node may and can show it.
async fn start(
    puller: &Puller,
    request: &ImageRequest,
    (path, admission, source): (Arc<ManifestPath>, Option<Admission>, Arc<dyn Source>),
) -> Result<Start, PullError> {
    let name = request.reference.to_string();
    if !request.choice.is_all() {
        return Ok(Start::Whole(
            "only a part of it is wanted, and what was published is of all of it".to_owned(),
        ));
    }
    let Some(admission) = admission else {
        return Ok(Start::Whole("no policy has judged it for this caller".to_owned()));
    };
    let Some(image) = puller.lazy_image(request, &source, &path, &admission).await? else {
        return Ok(Start::Whole(
            "nothing was published beside it for that (`composefs-csi seal --lazy`)".to_owned(),
        ));
    };
    let (store, hold) = (Arc::clone(puller.pulls().store()), image.hold.clone());
    let (digest, bytes) = (image.seal.digest, image.object_bytes);
    let prepared = blocking(&name, move || {
        hold.keep_blocking(&[Held::Composefs(digest)])?;
        Ok::<_, StoreError>(store.has_room_for(bytes))
    });
    if !prepared.await?.about(&name)? {
        return Err(PullError::NoRoomForLazy { image: name, mib: bytes >> 20 });
    }
    Ok(Start::Lazily(Box::new(Started { manifest: path.digest, image, admission, source })))
}
