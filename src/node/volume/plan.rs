//! What is to be done about one volume: pure decisions, from what is wanted and what is seen.
//!
//! Invariants that every plan keeps:
//! * the record that names a mount is written before the mount is made and removed after it has gone;
//! * nothing that another volume published is touched;
//! * after a plan has been carried out, planning again yields [`Plan::Done`].
//!
//! A volume is pinned to one image for as long as it is in use on this node during one boot: all its targets
//! show the same bytes, even if the tag has moved in between.

mod publish;
mod refusal;
mod stage;

pub use publish::{image_for, publish, unpublish};
pub use refusal::Refusal;
pub use stage::{image_to_stage, stage, unstage};

use super::record::{Pinned, Requested, VolumeRecord};
use super::target::{Directory, TargetPath};
use crate::image::verity::VerityDigest;
use crate::integrity::Integrity;
use crate::node::mount::MountSpec;
use crate::volume::access::AccessMode;
use crate::volume::id::VolumeId;

/// What is there, before anything is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The volume's record.
    pub record: Option<VolumeRecord>,
    /// What lies at the target.
    pub directory: Directory,
    /// What of ours is mounted on the target.
    pub mounted: Option<MountSpec>,
    /// Another volume whose record claims the target during this boot.
    pub owner: Option<String>,
    /// The boot that is running.
    pub boot: String,
}

/// What a publish asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The volume.
    pub volume: VolumeId,
    /// Where.
    pub target: TargetPath,
    /// What it shows.
    pub request: Requested,
    /// Refuse to execute programs.
    pub noexec: bool,
    /// Who shares it.
    pub mode: AccessMode,
    /// The integrity level that the mount must reach.
    pub least: Integrity,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write this record.
    Record(VolumeRecord),
    /// Remove the volume's record.
    Forget,
    /// Create the target; its parent exists.
    CreateDirectory,
    /// Mount on the target, at this integrity level or a higher one.
    Mount(MountSpec, Integrity),
    /// Unmount what is on the target.
    Unmount,
    /// Remove the target, which must be empty by now.
    RemoveDirectory,
    /// Let the private mount of this image go, if nobody else needs it.
    Release(VerityDigest),
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// Nothing: all is as wanted.
    Done,
    /// These steps, in this order.
    Run(Vec<Step>),
    /// It must not be done.
    Refuse(Refusal),
}

/// Which image a publish is to use.
#[derive(Debug, Clone, PartialEq)]
pub enum Image {
    /// None: the volume is published already.
    Done,
    /// The one to which the volume is pinned.
    Pinned(Pinned),
    /// It has to be resolved, and pulled if need be.
    Resolve,
    /// It must not be done.
    Refuse(Refusal),
}

/// A reboot takes the mounts, and what is not mounted may be resolved anew.
fn is_pinned(record: &VolumeRecord, boot: &str) -> bool {
    record.boot == boot && !record.is_idle()
}

/// The volume's record with `image`, keeping where else it is in use. Targets of an earlier boot are not
/// mounted any more; to unpublish them needs no record.
fn based_on(seen: &Seen, volume: &VolumeId, request: &Requested, image: Pinned) -> VolumeRecord {
    let mut record = VolumeRecord::new(volume, request.clone(), image, &seen.boot);
    if let Some(old) = &seen.record {
        record.staged.clone_from(&old.staged);
        if old.boot == seen.boot {
            record.targets.clone_from(&old.targets);
        }
    }
    record
}

fn record_or_forget(record: VolumeRecord) -> Step {
    if record.is_idle() { Step::Forget } else { Step::Record(record) }
}

#[cfg(test)]
mod tests;
