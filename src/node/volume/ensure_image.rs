//! Bringing a volume's image here: with whose credentials, how long the call waits, and who hears of it.
//!
//! A pull is waited for, never owned: it goes on without the call, and the next call joins it.

use std::time::{Duration, Instant};

use tokio::time::error::Elapsed;

use super::plan::Image;
use super::record::Pinned;
use super::request::VolumeRequest;
use super::{VolumeError, Volumes};
use crate::image::pull::{Caller, ImageRequest, PullError, Ready, Watch};
use crate::kind::Kind;
use crate::oci::digest::Digest;

/// A pull that is done sooner is not worth saying that it has begun. Later it is looked at as often.
const NOTICE: Duration = Duration::from_millis(500);

/// An image to publish, with what keeps it from the sweep until a record does.
pub(super) struct Chosen {
    pub pinned: Pinned,
    pub fetched: u64,
    pub ready: Ready,
}

impl Volumes {
    /// The image that a plan asks for; `None` where there is nothing to do.
    pub(super) async fn choose(
        &self,
        request: &VolumeRequest,
        caller: Caller,
        image: Image,
    ) -> Result<Option<Chosen>, VolumeError> {
        match image {
            Image::Done => Ok(None),
            Image::Refuse(refusal) => Err(refusal.into()),
            // That a volume is in use already is no leave for the one who asks now.
            Image::Pinned(pinned) => self.ensure(request, caller, Some(pinned.image)).await.map(Some),
            Image::Resolve => self.ensure(request, caller, None).await.map(Some),
        }
    }

    async fn ensure(
        &self,
        request: &VolumeRequest,
        caller: Caller,
        pinned: Option<Digest>,
    ) -> Result<Chosen, VolumeError> {
        let (image, identity) = (&request.attributes.image, &request.identity);
        let credentials = self.0.credential_providers.complete(image, &request.credentials, identity).await?;
        let watch = Watch::default();
        let image_request = ImageRequest {
            reference: request.attributes.image.clone(),
            policy: request.attributes.policy(),
            platform: request.attributes.platform.clone().unwrap_or_else(|| self.0.platform.clone()),
            caller,
            pinned,
            credentials,
            watch: watch.clone(),
        };
        let begun = Instant::now();
        let Ok(answer) = self.wait(request, &image_request, &watch).await else {
            let progress = watch.get().map_or_else(|| "not begun".to_owned(), ToString::to_string);
            return Err(VolumeError::Pulling { image: image_request.reference.to_string(), progress });
        };
        let ready = answer.inspect_err(|error| {
            if error.kind() == Kind::Exhausted {
                self.0.housekeeping.notify_one();
            }
        })?;
        if ready.fetched > 0 {
            self.0.housekeeping.notify_one();
        }
        let (pull, image) =
            (watch.get().map(|pull| (pull, begun.elapsed())), image_request.reference.to_string());
        self.0.pod_events.ready(&request.volume, &request.identity.pod, &image, &ready, pull);
        let record = &ready.record;
        let (image, composefs) = (record.manifest, record.image);
        let pinned = Pinned { image, composefs, bytes: record.bytes, inodes: record.inodes };
        Ok(Chosen { pinned, fetched: ready.fetched, ready })
    }

    /// Waits for an image as long as the caller does, and tells of the pull that it waits for.
    async fn wait(
        &self,
        request: &VolumeRequest,
        image_request: &ImageRequest,
        watch: &Watch,
    ) -> Result<Result<Ready, PullError>, Elapsed> {
        let mut waiting =
            std::pin::pin!(tokio::time::timeout(request.wait, self.0.images.ensure(image_request)));
        if !self.0.pod_events.wanted() {
            return waiting.await;
        }
        let image = image_request.reference.to_string();
        let mut follower = self.0.pod_events.follow(&request.volume, &request.identity.pod, &image, watch);
        loop {
            tokio::select! {
                answer = &mut waiting => return answer,
                () = tokio::time::sleep(NOTICE) => follower.look(),
            }
        }
    }
}
