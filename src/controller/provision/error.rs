//! Why a volume could not be provisioned.

use std::time::Duration;

use super::claim::{ClaimError, Contradiction};
use crate::controller::states::StateError;
use crate::kind::Kind;
use crate::oci::SourceError;
use crate::volume::attributes::AttributeError;
use crate::volume::id::VolumeIdError;
use crate::volume::layouts::LayoutError;

/// Why a volume could not be provisioned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProvisionError {
    /// The name is not usable as an id.
    #[error("the volume's name cannot be used: {0}")]
    Name(VolumeIdError),
    /// Neither class nor claim names an image.
    #[error(
        "no image is given; set the parameter `image` in the StorageClass, or annotate the claim with \
         <driver>/image where the controller runs with --pvc-annotations"
    )]
    NoImage,
    /// An annotation of the claim contradicts its class.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// The claim's annotations cannot be read.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The parameters are malformed.
    #[error("parameters of the StorageClass or annotations of the claim: {0}")]
    Parameters(AttributeError),
    /// The image is a directory that volumes may not name.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The name exists with other parameters.
    #[error(
        "volume {0:?} exists with other parameters; delete that claim first, or give the new one another name"
    )]
    Exists(String),
    /// Another call for the same name is running.
    #[error("volume {0:?} is being created or deleted by another call; try again")]
    Busy(String),
    /// A lookup takes longer than the caller waits, and was given up.
    #[error(
        "{what} did not come within {} s, and nothing was created; look at that server and at the controller's network, \
         the claim is tried again",
        after.as_secs()
    )]
    Late {
        /// What was looked up, and where.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The controller ends.
    #[error(
        "the controller is being stopped, and nothing was created; the claim is tried again when it is back"
    )]
    Stopping,
    /// The image could not be resolved.
    #[error("image {image}: {error}{}", whose_secret(error))]
    Source {
        /// The image as the user wrote it.
        image: String,
        /// The registry's error.
        error: SourceError,
    },
    /// The state could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
}

/// The remedy for a claim: unlike a pod, a claim names no Secret itself.
fn whose_secret(error: &SourceError) -> &'static str {
    match error {
        SourceError::Denied { .. } => {
            "; for a claim, that is the Secret which the StorageClass names as csi.storage.k8s.io/provisioner-secret-name"
        }
        _ => "",
    }
}

impl ProvisionError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Name(error) => error.kind(),
            Self::NoImage => Kind::Invalid,
            Self::Contradiction(error) => error.kind(),
            Self::Claim(error) => error.kind,
            Self::Parameters(error) => error.kind(),
            Self::Layout(error) => error.kind(),
            Self::Exists(_) => Kind::Conflict,
            Self::Busy(_) => Kind::Busy,
            Self::Late { .. } | Self::Stopping => Kind::Transient,
            Self::Source { error, .. } => error.kind(),
            Self::State(error) => error.kind(),
        }
    }
}
