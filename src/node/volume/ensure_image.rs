//! Ensures that a volume's image is on this node: which credentials to use, how long to wait, which events to record.
//!
//! A call waits for a pull but does not own it: the pull goes on without the call, and the next call joins it.

use std::time::{Duration, Instant};

use tokio::time::error::Elapsed;

use super::guard::VolumeGuard;
use super::plan::ImageChoice;
use super::record::PinnedImage;
use super::request::VolumeRequest;
use super::{VolumeError, Volumes};
use crate::kind::Kind;
use crate::oci::digest::Digest;
use crate::pull::{Caller, ImageRequest, PullError, Ready, Watch};

/// How often a pull is checked for changes. A pull that takes less than this gets no event that it has begun.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// An image to publish. Its lease protects it from garbage collection until a record does.
pub(super) struct ChosenImage {
    pub pinned: PinnedImage,
    pub fetched: u64,
    pub ready: Ready,
}

impl Volumes {
    /// Makes available the image that a plan chose; `None` if there is nothing to do.
    pub(super) async fn ensure_chosen(
        &self,
        request: &VolumeRequest,
        caller: Caller,
        choice: ImageChoice,
        guard: &VolumeGuard,
    ) -> Result<Option<ChosenImage>, VolumeError> {
        let pinned = match choice {
            ImageChoice::Done => return Ok(None),
            ImageChoice::Refuse(refusal) => return Err(refusal.into()),
            // Every caller must be authorised, even if the volume is already in use.
            ImageChoice::Pinned(pinned) => Some(pinned.image),
            ImageChoice::Resolve => None,
        };
        tokio::select! {
            // In this order, so that what need not wait is not given up.
            biased;
            chosen = self.ensure_image(request, caller, pinned) => chosen.map(Some),
            () = guard.withdrawn() => Err(VolumeError::Withdrawn(request.volume.clone())),
            () = self.0.shutdown.cancelled() => {
                Err(VolumeError::Stopping { image: request.attributes.image.to_string() })
            }
        }
    }

    async fn ensure_image(
        &self,
        request: &VolumeRequest,
        caller: Caller,
        pinned: Option<Digest>,
    ) -> Result<ChosenImage, VolumeError> {
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
        let Ok(answer) = self.wait_for_pull(request, &image_request, &watch).await else {
            // The caller's time is up. The pull goes on, and the retry joins it.
            let progress = watch.get().map_or_else(|| "not begun".to_owned(), ToString::to_string);
            return Err(VolumeError::Pulling { image: image_request.reference.to_string(), progress });
        };
        let ready = answer.inspect_err(|error| {
            // A garbage collection may make the space that the retry needs.
            if error.kind() == Kind::Exhausted {
                self.0.housekeeping.notify_one();
            }
        })?;
        if ready.fetched > 0 {
            self.0.housekeeping.notify_one();
        }
        let (pull, image) =
            (watch.get().map(|pull| (pull, begun.elapsed())), image_request.reference.to_string());
        self.0.pod_events.image_ready(&request.volume, &request.identity.pod, &image, &ready, pull);
        let record = &ready.record;
        let (image, composefs) = (record.manifest, record.image);
        let pinned = PinnedImage { image, composefs, bytes: record.bytes, inodes: record.inodes };
        Ok(ChosenImage { pinned, fetched: ready.fetched, ready })
    }

    /// Waits for an image as long as the caller does, and records events of the pull meanwhile.
    async fn wait_for_pull(
        &self,
        request: &VolumeRequest,
        image_request: &ImageRequest,
        watch: &Watch,
    ) -> Result<Result<Ready, PullError>, Elapsed> {
        let mut waiting =
            std::pin::pin!(tokio::time::timeout(request.wait, self.0.images.ensure(image_request)));
        if !self.0.pod_events.is_enabled() {
            // Without a recorder there is no reason to wake up in between.
            return waiting.await;
        }
        let image = image_request.reference.to_string();
        let mut watcher = self.0.pod_events.watch_pull(&request.volume, &request.identity.pod, &image, watch);
        loop {
            tokio::select! {
                answer = &mut waiting => return answer,
                () = tokio::time::sleep(PROGRESS_INTERVAL) => watcher.record_changes(),
            }
        }
    }
}
