//! The reason of a pod's event, and which error has which reason. Pure.
//!
//! The error's variant decides, not its text or its gRPC code. For example, `FailedPrecondition` stands both for a
//! policy's refusal, which needs a person's decision, and for a kernel without EROFS, which is a fault.

use crate::image::store::StoreError;
use crate::kind::Kind;
use crate::node::mount::MountError;
use crate::node::volume::VolumeError;
use crate::node::volume::execute::StepError;
use crate::oci::SourceError;
use crate::pull::PullError;

/// The reason of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum EventReason {
    /// A pull has begun and is not done at once.
    Pulling,
    /// The pull is done.
    Pulled,
    /// A volume that follows a tag shows another image.
    Switched,
    /// A decision denies the image to the pod: by the registry, the operator, a policy, or a check that found the image
    /// or its records changed. A retry does not help.
    Refused,
    /// The registry limits the rate of requests; the volume comes later.
    RateLimited,
    /// The publish failed.
    Failed,
    /// What the volume shows is damaged, and cannot be fetched again.
    Damaged,
}

impl EventReason {
    /// Every reason, for tables and tests.
    #[cfg(test)]
    const ALL: [Self; 7] = [
        Self::Pulling,
        Self::Pulled,
        Self::Switched,
        Self::Refused,
        Self::RateLimited,
        Self::Failed,
        Self::Damaged,
    ];

    /// The name in the event: the same as kubelet's for container images. The reporting component tells them apart.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pulling => "Pulling",
            Self::Pulled => "Pulled",
            Self::Switched => "Switched",
            Self::Refused => "Refused",
            Self::RateLimited => "RateLimited",
            Self::Failed => "Failed",
            Self::Damaged => "Damaged",
        }
    }

    /// Whether the event is a warning.
    pub fn is_warning(self) -> bool {
        matches!(self, Self::Refused | Self::RateLimited | Self::Failed | Self::Damaged)
    }

    /// The reason for which a publish failed; `None` if it has not failed but goes on.
    pub(super) fn of(error: &VolumeError) -> Option<Self> {
        match error {
            _ if matches!(error.kind(), Kind::Pending | Kind::Busy) => None,
            VolumeError::Stopping { .. } => None,
            _ if is_refusal(error) => Some(Self::Refused),
            _ => match error.cause() {
                VolumeError::Pull(error) if rate_limit(error).is_some() => Some(Self::RateLimited),
                _ => Some(Self::Failed),
            },
        }
    }
}

/// The registry's rate limit, if that is why there is no image.
pub(super) fn rate_limit(error: &PullError) -> Option<&SourceError> {
    match error {
        PullError::Source { source, .. } => {
            matches!(**source, SourceError::RateLimited { .. }).then_some(&**source)
        }
        PullError::Quarantined { source, .. } => rate_limit(source),
        _ => None,
    }
}

fn is_refusal(error: &VolumeError) -> bool {
    match error.cause() {
        // The operator demands a level of integrity, or has not allowed the directory, or that pods write, or that volumes
        // follow.
        VolumeError::Unreachable(_)
        | VolumeError::Layout(_)
        | VolumeError::Writable(_)
        | VolumeError::NotFollowing => true,
        VolumeError::Pull(error) => is_refused_pull(error),
        VolumeError::Step(StepError::Mount(error)) => is_refused_mount(error),
        // The volume is in use with other attributes, or the work failed.
        VolumeError::Refused(_)
        | VolumeError::Step(_)
        | VolumeError::Busy(_)
        | VolumeError::Withdrawn(_)
        | VolumeError::Stopping { .. }
        | VolumeError::StateDirectory(_)
        | VolumeError::Pulling { .. }
        | VolumeError::Member { .. }
        | VolumeError::CredentialProvider(_)
        | VolumeError::Unknown(_)
        | VolumeError::NotYet { .. }
        | VolumeError::NotThere { .. }
        | VolumeError::StillInUse { .. }
        | VolumeError::Lost(_) => false,
    }
}

fn is_refused_pull(error: &PullError) -> bool {
    match error {
        // The policy; the node's demand for sealed images; a seal that is malformed, belongs to another image, or covers
        // what is not allowed.
        PullError::Refused(_)
        | PullError::Excess { .. }
        | PullError::Unsealed { .. }
        | PullError::Seal { .. }
        | PullError::NotAsSealed { .. }
        | PullError::NotAsMounted { .. } => true,
        PullError::Source { source, .. } => matches!(**source, SourceError::Denied { .. }),
        // What is published for a lazy start is of another image, or nobody vouches for it.
        PullError::Lazy { source, .. } => source.is_refusal(),
        PullError::Quarantined { source, .. } => is_refused_pull(source),
        // Records that the node's key did not authenticate, or that contradict what it built before.
        PullError::Store { source, .. } => {
            matches!(**source, StoreError::Unauthentic { .. } | StoreError::OtherDigest { .. })
        }
        // The image is absent and the policy forbids a pull, exceeds a limit, arrived corrupt, or is unusable.
        PullError::Absent(_)
        | PullError::StillDamaged { .. }
        | PullError::Limit { .. }
        | PullError::WouldFill { .. }
        | PullError::NoRoomForLazy { .. }
        | PullError::DiffId { .. }
        | PullError::ChunkedDiffId { .. }
        | PullError::Manifest { .. }
        | PullError::Artifact { .. }
        | PullError::Choice { .. }
        | PullError::Layer { .. }
        | PullError::Nested(_)
        | PullError::Platform { .. }
        | PullError::Tree { .. }
        | PullError::Image { .. }
        | PullError::Object { .. }
        | PullError::NotThere { .. }
        | PullError::NoRoom { .. }
        | PullError::GaveWay { .. }
        | PullError::Cancelled(_)
        | PullError::Lost { .. } => false,
    }
}

fn is_refused_mount(error: &MountError) -> bool {
    match error {
        // The integrity level cannot be reached, or the store's content is not what was pulled.
        MountError::Unreachable { .. }
        | MountError::NotSealed { .. }
        | MountError::WrongDigest { .. }
        | MountError::BadObject { .. } => true,
        // The node cannot mount (no EROFS, no loop devices, no privilege), or the request does not fit the state.
        MountError::NoMountMethod { .. }
        | MountError::NotLazily { .. }
        | MountError::Label { .. }
        | MountError::Kernel { .. }
        | MountError::NotAnImage { .. }
        | MountError::NoSuchPath { .. }
        | MountError::PathNotDirectory { .. }
        | MountError::BadPath { .. }
        | MountError::BadTarget { .. }
        | MountError::Occupied { .. }
        | MountError::Foreign { .. }
        | MountError::TooManyEntries { .. }
        | MountError::NoSuchImage { .. } => false,
    }
}

#[cfg(test)]
mod tests;
