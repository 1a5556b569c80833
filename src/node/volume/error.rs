//! Why a volume could not be served.

use super::execute::StepError;
use super::levels::Unreachable;
use super::plan::Refusal;
use super::record::RecordError;
use crate::image::pull::PullError;
use crate::kind::Kind;
use crate::node::credential_providers::CredentialProviderError;
use crate::node::mount::MountError;
use crate::volume::id::VolumeId;
use crate::volume::layouts::LayoutError;

/// Why a volume could not be served.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Another call has it.
    #[error("another call for volume {0} is under way; try again when it has ended")]
    Busy(VolumeId),
    /// It must not be done.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A step failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The image could not be made available.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The pull takes longer than the caller waits. It goes on.
    #[error("image {image} is still being pulled ({progress}); the pull goes on, try again")]
    Pulling {
        /// The image as the user wrote it.
        image: String,
        /// How far it has come.
        progress: String,
    },
    /// Whose credentials to use is not known.
    #[error(transparent)]
    CredentialProvider(#[from] CredentialProviderError),
    /// A directory that volumes may not name.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The integrity level that is demanded cannot be reached.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// No such volume on this node.
    #[error("volume {0} is not in use on this node; publish it first")]
    Unknown(VolumeId),
    /// The volume is not there.
    #[error("volume {volume} is not published at {path:?}; ask for one of its own paths")]
    NotThere {
        /// The volume.
        volume: VolumeId,
        /// The path asked for.
        path: String,
    },
    /// The thread that did the work ended without an answer.
    #[error("the work on a volume ended unexpectedly ({0}); this is a defect, the log has more")]
    Lost(String),
}

impl From<RecordError> for VolumeError {
    fn from(error: RecordError) -> Self {
        Self::Step(error.into())
    }
}

impl From<MountError> for VolumeError {
    fn from(error: MountError) -> Self {
        Self::Step(error.into())
    }
}

impl VolumeError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Busy(_) => Kind::Busy,
            Self::Refused(refusal) => refusal.kind(),
            Self::Step(error) => error.kind(),
            Self::Pull(error) => error.kind(),
            Self::Pulling { .. } => Kind::Pending,
            Self::CredentialProvider(error) => error.kind(),
            Self::Layout(error) => error.kind(),
            Self::Unreachable(error) => error.kind(),
            Self::Unknown(_) | Self::NotThere { .. } => Kind::NotFound,
            Self::Lost(_) => Kind::Bug,
        }
    }
}
