//! Why a volume could not be served.

use super::execute::StepError;
use super::levels::UnreachableLevel;
use super::plan::VolumeRefusal;
use super::record::RecordError;
use super::writable::WritableRefusal;
use crate::kind::Kind;
use crate::node::credential_providers::CredentialProviderError;
use crate::node::mount::MountError;
use crate::node::state_directory::StateDirectoryError;
use crate::pull::PullError;
use crate::volume::id::VolumeId;
use crate::volume::layouts::LayoutError;

/// Why a volume could not be served.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Another call is working on it.
    #[error("another call for volume {0} is under way; try again when it has ended")]
    Busy(VolumeId),
    /// The plan refuses the request.
    #[error(transparent)]
    Refused(#[from] VolumeRefusal),
    /// A step failed.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The image could not be made available.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The pull takes longer than the call waits. It goes on.
    #[error("image {image} is still being pulled ({progress}); the pull goes on, try again")]
    Pulling {
        /// The image as the user wrote it.
        image: String,
        /// How far it has come.
        progress: String,
    },
    /// One of several images could not be made available, and so none is shown.
    #[error("of the volume's `images`, entry {number} ({image}): {error}")]
    Member {
        /// Its number in the list, from 1.
        number: usize,
        /// The image as the user wrote it.
        image: String,
        /// What is wrong with it.
        error: Box<VolumeError>,
    },
    /// The volume was unpublished or unstaged while the call waited for its image.
    #[error(
        "volume {0} was taken down while this call waited for its image; ask again if it is still wanted"
    )]
    Withdrawn(VolumeId),
    /// The plugin ends while the call waits for an image.
    #[error(
        "image {image} is not here yet and the node plugin is being stopped; what was fetched is kept, and the pull is          resumed when the plugin is back, try again"
    )]
    Stopping {
        /// The image as the user wrote it.
        image: String,
    },
    /// The state directory cannot be used.
    #[error(transparent)]
    StateDirectory(#[from] StateDirectoryError),
    /// A credential provider failed.
    #[error(transparent)]
    CredentialProvider(#[from] CredentialProviderError),
    /// The image is a directory that volumes may not name.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// This node cannot reach the demanded integrity level.
    #[error(transparent)]
    Unreachable(#[from] UnreachableLevel),
    /// The volume cannot be written to on this node.
    #[error(transparent)]
    Writable(#[from] WritableRefusal),
    /// The volume has no record on this node.
    #[error("volume {0} is not in use on this node; publish it first")]
    Unknown(VolumeId),
    /// The volume is not there yet.
    #[error("volume {volume} is not there yet: {progress}; ask again when it is published")]
    NotYet {
        /// The volume.
        volume: VolumeId,
        /// What it waits for.
        progress: String,
    },
    /// The volume is not at that path.
    #[error("volume {volume} is not published at {path:?}; ask for one of its own paths")]
    NotThere {
        /// The volume.
        volume: VolumeId,
        /// The requested path.
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
    /// The error itself, without which of several images it concerns.
    pub(super) fn cause(&self) -> &Self {
        match self {
            Self::Member { error, .. } => error.cause(),
            other => other,
        }
    }

    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Busy(_) | Self::Withdrawn(_) => Kind::Busy,
            Self::Stopping { .. } => Kind::Transient,
            Self::StateDirectory(error) => error.kind(),
            Self::Refused(refusal) => refusal.kind(),
            Self::Step(error) => error.kind(),
            Self::Pull(error) => error.kind(),
            Self::Pulling { .. } => Kind::Pending,
            Self::Member { error, .. } => error.kind(),
            Self::CredentialProvider(error) => error.kind(),
            Self::Layout(error) => error.kind(),
            Self::Unreachable(error) => error.kind(),
            Self::Writable(refusal) => refusal.kind(),
            Self::Unknown(_) | Self::NotYet { .. } | Self::NotThere { .. } => Kind::NotFound,
            Self::Lost(_) => Kind::Bug,
        }
    }
}
