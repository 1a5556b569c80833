//! A stage or publish request, typed.

use std::time::Duration;

use super::VolumeError;
use super::plan::PublishSpec;
use super::record::Requested;
use super::target::TargetPath;
use crate::integrity::Integrity;
use crate::kind::Kind;
use crate::node::credential_providers::PodIdentity;
use crate::oci::Credentials;
use crate::volume::access::Access;
use crate::volume::content::Content;
use crate::volume::id::VolumeId;

/// A request for a volume: what it shows, where, and for which pod.
#[derive(Debug, Clone)]
pub(crate) struct VolumeRequest {
    /// The volume.
    pub volume: VolumeId,
    /// Where to publish or stage it.
    pub target: TargetPath,
    /// What it shows.
    pub content: Content,
    /// The access mode and mount options.
    pub access: Access,
    /// The pod, and the tokens of its ServiceAccount.
    pub identity: PodIdentity,
    /// Registry credentials from the request itself.
    pub credentials: Credentials,
    /// How long to wait for a pull before the call answers that it goes on.
    pub wait: Duration,
}

impl VolumeRequest {
    pub(super) fn requested(&self) -> Requested {
        Requested {
            image: self.content.text(),
            path: self.content.path().to_owned(),
            platform: self.content.platform(),
            choice: self.content.choice(),
            upper: self.content.upper().map(|upper| upper.bytes),
            upper_on_disk: self.content.upper().is_some_and(|upper| upper.on_disk),
            follow: self.content.followed().is_some(),
        }
    }

    /// Whether nothing in the volume may be executed, by its attributes or its mount options.
    pub(super) fn noexec(&self) -> bool {
        self.content.noexec() || self.access.noexec
    }

    /// Whether an error may be due to missing credentials that only the pod has.
    ///
    /// Registries also answer "not found" for private images. If the staging Secret covers every image, its credentials
    /// are the right ones, and the error stands.
    pub(super) fn may_need_pod_credentials(&self, error: &VolumeError) -> bool {
        let cause = error.cause();
        matches!(cause, VolumeError::Pull(error) if matches!(error.kind(), Kind::Denied | Kind::NotFound))
            && self.content.images().iter().any(|image| !self.credentials.cover(&image.image))
    }

    pub(super) fn publish_spec(&self, least: Integrity) -> PublishSpec {
        PublishSpec {
            volume: self.volume.clone(),
            target: self.target.clone(),
            request: self.requested(),
            noexec: self.noexec(),
            mode: self.access.mode,
            least,
            namespace: self.identity.pod.namespace(),
        }
    }
}
