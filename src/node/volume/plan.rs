//! What to do about one volume: pure decisions, from the request and the observed state.
//!
//! Invariants that every plan keeps:
//! * the record that names a mount is written before the mount is made and removed after the unmount;
//! * nothing that another volume published is changed;
//! * after a plan has been carried out, planning again yields [`VolumePlan::Done`].
//!
//! A volume is pinned to one image for as long as it is in use on this node during one boot: all its targets
//! show the same bytes, even if the tag has moved in between.

mod publish;
mod refusal;
mod stage;
mod switch;

pub(crate) use publish::{image_to_publish, publish, shown, unpublish};
pub(crate) use refusal::VolumeRefusal;
pub(crate) use stage::{image_to_stage, stage, unstage};
pub(crate) use switch::{EARLIER_MAX, SwitchPlan, SwitchSpec, switch};

use super::record::{PinnedImage, Requested, VolumeRecord};
use super::target::{TargetPath, TargetState};
use crate::image::verity::VerityDigest;
use crate::integrity::Integrity;
use crate::node::mount::MountSpec;
use crate::volume::access::AccessMode;
use crate::volume::id::VolumeId;

/// The state of a volume and a target before anything is done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Observed {
    /// The volume's record.
    pub record: Option<VolumeRecord>,
    /// What is at the target path.
    pub directory: TargetState,
    /// The image mount on the target, if this driver mounted one.
    pub mounted: Option<MountSpec>,
    /// Another volume whose record claims the target during this boot.
    pub owner: Option<String>,
    /// The boot that is running.
    pub boot: String,
}

/// What a publish requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublishSpec {
    /// The volume.
    pub volume: VolumeId,
    /// The mount point.
    pub target: TargetPath,
    /// Its content.
    pub request: Requested,
    /// Mount `noexec`.
    pub noexec: bool,
    /// The access mode.
    pub mode: AccessMode,
    /// The integrity level that the mount must reach.
    pub least: Integrity,
    /// The namespace of the pod, if it is known.
    pub namespace: Option<String>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Write this record.
    Record(Box<VolumeRecord>),
    /// Remove the volume's record.
    Forget,
    /// Create the target directory; its parent exists.
    CreateDirectory,
    /// Mount on the target, at this integrity level or a higher one.
    Mount(MountSpec, Integrity),
    /// Show this in the directory of the target that changes what it shows, instead of what it shows.
    ShowCurrent(MountSpec, Integrity),
    /// Unmount the target.
    Unmount,
    /// Remove the target directory, which must be empty by now.
    RemoveDirectory,
    /// Release the base mount of this image, unless a published clone remains.
    Release(VerityDigest),
}

/// What to do about a volume.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum VolumePlan {
    /// Nothing: the state is as requested.
    Done,
    /// Take these steps, in this order.
    Run(Vec<Step>),
    /// Refuse the request.
    Refuse(VolumeRefusal),
}

/// Which image a request gets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ImageChoice {
    /// None: the volume is already published or staged there.
    Done,
    /// The image to which the volume is pinned.
    Pinned(PinnedImage),
    /// The image that the reference resolves to now.
    Resolve,
    /// Refuse the request.
    Refuse(VolumeRefusal),
}

/// Whether the volume must keep its image. A reboot removes the mounts, and what is not mounted may be resolved anew.
fn is_pinned(record: &VolumeRecord, boot: &str) -> bool {
    record.boot == boot && !record.is_idle()
}

/// A record of the volume with `image` that keeps where else the volume is in use. Targets of an earlier boot are
/// dropped: they are no longer mounted, and an unpublish of them needs no record.
fn record_with_image(
    seen: &Observed,
    volume: &VolumeId,
    request: &Requested,
    image: PinnedImage,
) -> VolumeRecord {
    let mut record = VolumeRecord::new(volume, request.clone(), image, &seen.boot);
    if let Some(old) = &seen.record {
        record.staged.clone_from(&old.staged);
        if old.boot == seen.boot {
            record.targets.clone_from(&old.targets);
            record.earlier.clone_from(&old.earlier);
        }
    }
    record
}

/// Keeps a record only while the volume is in use: it would protect the image for ever.
fn record_or_forget(record: VolumeRecord) -> Step {
    if record.is_idle() { Step::Forget } else { Step::Record(Box::new(record)) }
}

#[cfg(test)]
mod tests;
