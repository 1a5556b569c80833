//! What a call asks of a volume, typed.

use std::time::Duration;

use super::plan::Wanted;
use super::record::Requested;
use super::target::TargetPath;
use crate::image::platform::Platform;
use crate::image::source::Credentials;
use crate::image::store::Integrity;
use crate::node::keychain::Asker;
use crate::volume::access::Access;
use crate::volume::attributes::Attributes;
use crate::volume::id::VolumeId;

/// What a volume shows, and who asks.
#[derive(Debug)]
pub struct Use {
    /// The volume.
    pub volume: VolumeId,
    /// Where it is to be published or staged.
    pub target: TargetPath,
    /// What it shows.
    pub attributes: Attributes,
    /// How it is used.
    pub access: Access,
    /// Which pod asks.
    pub asker: Asker,
    /// What came with the request to be shown to the registry.
    pub credentials: Credentials,
    /// How long to wait for a pull before saying that it goes on.
    pub wait: Duration,
}

impl Use {
    pub(super) fn requested(&self) -> Requested {
        Requested {
            image: self.attributes.image.to_string(),
            path: self.attributes.path.clone(),
            platform: self.attributes.platform.as_ref().map(Platform::to_string),
        }
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
