//! What a call asks of a volume, typed.

use std::time::Duration;

use super::VolumeError;
use super::plan::Wanted;
use super::record::Requested;
use super::target::TargetPath;
use crate::integrity::Integrity;
use crate::kind::Kind;
use crate::node::credential_providers::PodIdentity;
use crate::oci::Credentials;
use crate::oci::platform::Platform;
use crate::volume::access::Access;
use crate::volume::attributes::Attributes;
use crate::volume::id::VolumeId;

/// What a volume shows, and who asks.
#[derive(Debug)]
pub struct VolumeRequest {
    /// The volume.
    pub volume: VolumeId,
    /// Where it is to be published or staged.
    pub target: TargetPath,
    /// What it shows.
    pub attributes: Attributes,
    /// How it is used.
    pub access: Access,
    /// Which pod asks.
    pub identity: PodIdentity,
    /// What came with the request to be shown to the registry.
    pub credentials: Credentials,
    /// How long to wait for a pull before saying that it goes on.
    pub wait: Duration,
}

impl VolumeRequest {
    pub(super) fn requested(&self) -> Requested {
        Requested {
            image: self.attributes.image.to_string(),
            path: self.attributes.path.clone(),
            platform: self.attributes.platform.as_ref().map(Platform::to_string),
        }
    }

    /// Whether a failure may be one for want of credentials that only the pod has. Registries say "not found" of
    /// what they keep to themselves, too; the Secret for staging, where there is one for the image, was the right one.
    pub(super) fn is_for_the_pod_to_ask(&self, error: &VolumeError) -> bool {
        matches!(error, VolumeError::Pull(error) if matches!(error.kind(), Kind::Denied | Kind::NotFound))
            && !self.credentials.cover(&self.attributes.image)
    }

    pub(super) fn wanted(&self, least: Integrity) -> Wanted {
        Wanted {
            volume: self.volume.clone(),
            target: self.target.clone(),
            request: self.requested(),
            noexec: self.attributes.noexec || self.access.noexec,
            mode: self.access.mode,
            least,
        }
    }
}
