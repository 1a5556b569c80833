//! Why a plan refuses a request.

use std::path::PathBuf;

use super::VolumePlan;
use crate::kind::Kind;
use crate::node::volume::record::VolumeRecord;
use crate::node::volume::target::TargetPath;
use crate::volume::id::VolumeId;

/// Why a plan refuses a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolumeRefusal {
    /// The volume is in use with other attributes or another capability.
    #[error(
        "volume {volume} is in use at {} with {what} other than this request's; unpublish it there first",
        path.display()
    )]
    Differs {
        /// The volume.
        volume: String,
        /// Where it is in use.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// The target has another mount.
    #[error("target {target} shows {what}; unpublish that first")]
    Occupied {
        /// The target.
        target: TargetPath,
        /// What it shows.
        what: String,
    },
    /// The target is not a directory that this driver made.
    #[error("target {target} {problem}; remove it by hand if it is not needed")]
    Target {
        /// The target.
        target: TargetPath,
        /// What is wrong, a predicate.
        problem: &'static str,
        /// What sort of failure this is.
        kind: Kind,
    },
    /// The volume is for one pod only, and another pod has it.
    #[error(
        "volume {volume} is for a single pod (ReadWriteOncePod, or writable) and is in use at {}; remove that pod first",
        path.display()
    )]
    SinglePod {
        /// The volume.
        volume: String,
        /// Where it is in use.
        path: PathBuf,
    },
}

impl VolumeRefusal {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Differs { .. } | Self::Occupied { .. } => Kind::Conflict,
            Self::Target { kind, .. } => *kind,
            Self::SinglePod { .. } => Kind::Unsupported,
        }
    }
}

pub(super) fn differs(volume: &VolumeId, record: &VolumeRecord, what: &'static str) -> VolumeRefusal {
    let path = record.targets.first().map(|target| target.path.clone()).or_else(|| record.staged.clone());
    VolumeRefusal::Differs { volume: volume.to_string(), path: path.unwrap_or_default(), what }
}

pub(super) fn refuse_target(target: &TargetPath, problem: &'static str, kind: Kind) -> VolumePlan {
    VolumePlan::Refuse(VolumeRefusal::Target { target: target.clone(), problem, kind })
}
