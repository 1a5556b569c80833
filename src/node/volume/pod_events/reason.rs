//! Under which reason a pod's event stand, and which failure is event of which sort. Pure.
//!
//! What decides is what happened, the error's variant; neither its text nor its gRPC code. `FailedPrecondition`
//! alone stands for a policy's no, which waits for a person, and for a kernel without EROFS, which is a fault.

use crate::image::pull::PullError;
use crate::image::store::StoreError;
use crate::kind::Kind;
use crate::node::mount::MountError;
use crate::node::volume::VolumeError;
use crate::node::volume::execute::StepError;
use crate::oci::SourceError;

/// What sort of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A pull has begun, and takes a moment.
    Pulling,
    /// It is done.
    Pulled,
    /// Somebody decided that the pod does not get the image: the registry, the node's operator or policy, or a check
    /// that found the image or its records not to be what they were. Trying again changes nothing.
    Refused,
    /// The registry wants fewer requests; the volume comes later.
    RateLimited,
    /// It did not work.
    Failed,
}

impl Reason {
    /// Every reason, for tables and tests.
    pub const ALL: [Self; 5] = [Self::Pulling, Self::Pulled, Self::Refused, Self::RateLimited, Self::Failed];

    /// As it is shown: kubelet's words for the images of containers. Who reports tells them apart.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pulling => "Pulling",
            Self::Pulled => "Pulled",
            Self::Refused => "Refused",
            Self::RateLimited => "RateLimited",
            Self::Failed => "Failed",
        }
    }

    /// Whether somebody should do something.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Refused | Self::RateLimited | Self::Failed)
    }

    /// Under which reason a publish failed; `None` where it has not failed but goes on.
    pub(super) fn of(error: &VolumeError) -> Option<Self> {
        match error {
            _ if matches!(error.kind(), Kind::Pending | Kind::Busy) => None,
            _ if is_refusal(error) => Some(Self::Refused),
            VolumeError::Pull(error) if rate_limit(error).is_some() => Some(Self::RateLimited),
            _ => Some(Self::Failed),
        }
    }
}

/// The registry's answer that it wants fewer requests, if that is why there is no image.
pub(super) fn rate_limit(error: &PullError) -> Option<&SourceError> {
    match error {
        PullError::Source { source, .. } => {
            matches!(**source, SourceError::RateLimited { .. }).then_some(&**source)
        }
        _ => None,
    }
}

fn is_refusal(error: &VolumeError) -> bool {
    match error {
        // The operator demands a level of integrity, or has not named the directory.
        VolumeError::Unreachable(_) | VolumeError::Layout(_) => true,
        VolumeError::Pull(error) => is_no_to_pull(error),
        VolumeError::Step(StepError::Mount(error)) => is_no_to_mount(error),
        // The volume is in use otherwise, or the work could not be done.
        VolumeError::Refused(_)
        | VolumeError::Step(_)
        | VolumeError::Busy(_)
        | VolumeError::Pulling { .. }
        | VolumeError::CredentialProvider(_)
        | VolumeError::Unknown(_)
        | VolumeError::NotThere { .. }
        | VolumeError::Lost(_) => false,
    }
}

fn is_no_to_pull(error: &PullError) -> bool {
    match error {
        // The policy; the node's demand for sealed images; a seal that is none, or belongs to another image.
        PullError::Refused(_)
        | PullError::Unsealed { .. }
        | PullError::Seal { .. }
        | PullError::NotAsSealed { .. } => true,
        PullError::Source { source, .. } => matches!(**source, SourceError::Denied { .. }),
        // Records that the node's key did not write, or that contradict its memory.
        PullError::Store { source, .. } => {
            matches!(**source, StoreError::Unauthentic { .. } | StoreError::OtherDigest { .. })
        }
        // It is not here and must not be looked for, goes beyond a cap, came damaged, or cannot be used.
        PullError::Absent(_)
        | PullError::Limit { .. }
        | PullError::DiffId { .. }
        | PullError::Manifest { .. }
        | PullError::Layer { .. }
        | PullError::Nested(_)
        | PullError::Platform { .. }
        | PullError::Tree { .. }
        | PullError::Image { .. }
        | PullError::Object { .. }
        | PullError::Lost { .. } => false,
    }
}

fn is_no_to_mount(error: &MountError) -> bool {
    match error {
        // The level cannot be had, or what lies in the store is not what was pulled.
        MountError::Unreachable { .. }
        | MountError::NotSealed { .. }
        | MountError::WrongDigest { .. }
        | MountError::BadObject { .. } => true,
        // The node cannot (no EROFS, no loop devices, no rights), or the request does not fit what is there.
        MountError::NoWay { .. }
        | MountError::Label { .. }
        | MountError::Kernel { .. }
        | MountError::NotAnImage { .. }
        | MountError::NoSuchPath { .. }
        | MountError::PathNotDirectory { .. }
        | MountError::BadPath { .. }
        | MountError::BadTarget { .. }
        | MountError::Occupied { .. }
        | MountError::Foreign { .. }
        | MountError::NoSuchImage { .. } => false,
    }
}

#[cfg(test)]
mod tests;
