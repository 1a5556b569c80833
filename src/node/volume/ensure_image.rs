//! Ensures that a volume's image is on this node: which credentials to use, how long to wait, which events to record.
//! Of several images each one comes this way ([`super::ensure_many`]).
//!
//! A call waits for a pull but does not own it: the pull goes on without the call, and the next call joins it.

use std::time::{Duration, Instant};

use tokio::time::error::Elapsed;

use super::guard::VolumeGuard;
use super::plan::ImageChoice;
use super::record::PinnedImage;
use super::request::VolumeRequest;
use super::{VolumeError, Volumes};
use crate::integrity::Integrity;
use crate::kind::Kind;
use crate::node::credential_providers::{CredentialProviderError, Found};
use crate::oci::digest::Digest;
use crate::oci::reference::Reference;
use crate::pull::{Caller, ImageRequest, PullError, Ready, Waiter, Watch};
use crate::text;
use crate::volume::attributes::Attributes;
use crate::volume::content::Content;

/// How often a pull is checked for changes. A pull that takes less than this gets no event that it has begun.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// An image to publish. Holds keep it, and those that it is made of, from garbage collection until a record does.
pub(super) struct ChosenImage {
    pub pinned: PinnedImage,
    pub fetched: u64,
    /// The image, or each of several in their order and then what they are together.
    pub ready: Vec<Ready>,
}

/// One image that is here.
pub(super) struct Ensured {
    pub request: ImageRequest,
    pub ready: Ready,
    /// How long the volume has waited for it.
    pub waited: Duration,
}

impl ChosenImage {
    fn one(ready: Ready) -> Self {
        let (record, composefs) = (&ready.record, ready.image);
        let (image, manifest, members) = (record.key(), record.manifest, Vec::new());
        let (bytes, inodes) = (record.bytes, record.inodes);
        let pinned = PinnedImage { image, manifest, composefs, bytes, inodes, members };
        Self { pinned, fetched: ready.fetched, ready: vec![ready] }
    }

    /// The lowest integrity level that the policies which admit the images demand.
    pub(super) fn integrity(&self) -> Option<Integrity> {
        self.ready.iter().filter_map(|ready| ready.admission.as_ref()?.integrity).max()
    }

    /// What admits the images, for the log.
    pub(super) fn admitted(&self) -> String {
        let by = self.ready.iter().filter_map(|ready| Some(ready.admission.as_ref()?.by.as_str()));
        by.collect::<Vec<_>>().join("; ")
    }
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
            ImageChoice::Pinned(pinned) => Some(pinned),
            ImageChoice::Resolve => None,
        };
        tokio::select! {
            // In this order, so that what need not wait is not given up.
            biased;
            chosen = self.ensure_content(request, caller, pinned) => chosen.map(Some),
            () = guard.withdrawn() => Err(VolumeError::Withdrawn(request.volume.clone())),
            () = self.0.shutdown.cancelled() => {
                Err(VolumeError::Stopping { image: request.content.to_string() })
            }
        }
    }

    pub(super) async fn ensure_content(
        &self,
        request: &VolumeRequest,
        caller: Caller,
        pinned: Option<PinnedImage>,
    ) -> Result<ChosenImage, VolumeError> {
        let deadline = tokio::time::Instant::now() + request.wait;
        let attributes = match &request.content {
            Content::One(attributes) => attributes,
            Content::Many(many) => return self.ensure_many(request, many, (caller, pinned), deadline).await,
        };
        let pinned = pinned.map(|pinned| pinned.manifest);
        let Ensured { ready, waited, .. } =
            self.ensure_image(request, (0, attributes), (caller, pinned), deadline).await?;
        self.0.pulls.ended(&request.volume, waited);
        Ok(ChosenImage::one(ready))
    }

    /// Makes available the volume's image with this number and these attributes.
    pub(super) async fn ensure_image(
        &self,
        request: &VolumeRequest,
        (number, attributes): (usize, &Attributes),
        (caller, pinned): (Caller, Option<Digest>),
        deadline: tokio::time::Instant,
    ) -> Result<Ensured, VolumeError> {
        let (image, identity) = (&attributes.image, &request.identity);
        let found = self.0.credential_providers.complete(image, &request.credentials, identity);
        let found = tokio::time::timeout_at(deadline, found).await;
        let Found { credentials, missing } = found.map_err(|_| no_credentials_yet(image))??;
        let pod = text::one_line(&identity.pod.to_string());
        let watch = Watch::of(Waiter { pod, volume: request.volume.to_string() });
        let image_request = ImageRequest {
            reference: image.clone(),
            choice: attributes.choice.clone(),
            policy: attributes.policy(),
            platform: attributes.platform.clone().unwrap_or_else(|| self.0.platform.clone()),
            caller,
            pinned,
            noexec: request.noexec() || attributes.noexec,
            credentials,
            watch: watch.clone(),
        };
        let begun = Instant::now();
        let _awaiting = self.0.pulls.await_for(&request.volume, number, &image.to_string(), &watch);
        let Ok(answer) = self.wait_for_pull(request, deadline, &image_request, &watch).await else {
            // The caller's time is up. The pull goes on, and the retry joins it.
            let progress = watch.get().map_or_else(|| "not begun".to_owned(), ToString::to_string);
            return Err(VolumeError::Pulling { image: image_request.reference.to_string(), progress });
        };
        let ready = match (answer, missing) {
            (Ok(ready), _) => ready,
            // Without the credentials that were missing, the refusal says nothing.
            (Err(error), Some(missing)) if is_refusal(&error) => return Err(missing.into()),
            (Err(error), _) => {
                // A garbage collection may make the space that the retry needs.
                if error.kind() == Kind::Exhausted {
                    self.0.housekeeping.notify_one();
                }
                return Err(error.into());
            }
        };
        if ready.fetched > 0 {
            self.0.housekeeping.notify_one();
        }
        let (pull, image) =
            (watch.get().map(|pull| (pull, begun.elapsed())), image_request.reference.to_string());
        self.0.pod_events.image_ready(&request.volume, &request.identity.pod, &image, &ready, pull);
        let waited =
            pull.map_or_else(|| begun.elapsed(), |(pull, waited)| waited.max(pull.started.elapsed()));
        Ok(Ensured { request: image_request, ready, waited })
    }

    /// Waits for an image as long as the caller does, and records events of the pull meanwhile.
    async fn wait_for_pull(
        &self,
        request: &VolumeRequest,
        deadline: tokio::time::Instant,
        image_request: &ImageRequest,
        watch: &Watch,
    ) -> Result<Result<Ready, PullError>, Elapsed> {
        let ensured = self.0.images.ensure(image_request);
        let mut waiting = std::pin::pin!(tokio::time::timeout_at(deadline, ensured));
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

/// Whether a registry refused or hid an image.
fn is_refusal(error: &PullError) -> bool {
    matches!(error.kind(), Kind::Denied | Kind::NotFound)
}

fn no_credentials_yet(image: &Reference) -> VolumeError {
    VolumeError::CredentialProvider(CredentialProviderError {
        what: "the credentials are not known yet".to_owned(),
        image: image.to_string(),
        why: "the node's credential providers have not answered in the call's time".to_owned(),
        remedy: "it is tried again",
        kind: Kind::Transient,
    })
}
