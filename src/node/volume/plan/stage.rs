//! Plans for stage and unstage.

use super::refusal::differs;
use super::{ImageChoice, Observed, Step, VolumePlan, is_pinned, record_or_forget, record_with_image};
use crate::node::volume::record::{PinnedImage, Requested, VolumeRecord};
use crate::node::volume::target::TargetPath;
use crate::volume::id::VolumeId;

/// Which image to stage. Decided before any registry is contacted.
pub(crate) fn image_to_stage(
    volume: &VolumeId,
    request: &Requested,
    path: &TargetPath,
    seen: &Observed,
) -> ImageChoice {
    match &seen.record {
        Some(record) if is_pinned(record, &seen.boot) && record.request != *request => {
            ImageChoice::Refuse(differs(volume, record, "attributes"))
        }
        Some(record) if is_pinned(record, &seen.boot) && record.staged.as_deref() == Some(path.path()) => {
            ImageChoice::Done
        }
        Some(record) if is_pinned(record, &seen.boot) => ImageChoice::Pinned(record.pinned()),
        _ => ImageChoice::Resolve,
    }
}

/// How to stage: mount nothing, only keep the image.
pub(crate) fn stage(
    volume: &VolumeId,
    request: &Requested,
    path: &TargetPath,
    image: PinnedImage,
    seen: &Observed,
) -> VolumePlan {
    match image_to_stage(volume, request, path, seen) {
        ImageChoice::Done => VolumePlan::Done,
        ImageChoice::Refuse(refusal) => VolumePlan::Refuse(refusal),
        ImageChoice::Pinned(_) | ImageChoice::Resolve => {
            // Targets that are there already show the form of the image that the record names.
            let shown = seen.record.as_ref().filter(|record| {
                record.boot == seen.boot && record.image == image.image && !record.targets.is_empty()
            });
            let image = shown.map_or(image, VolumeRecord::pinned);
            let mut record = record_with_image(seen, volume, request, image);
            record.staged = Some(path.path().to_owned());
            VolumePlan::Run(vec![Step::Record(Box::new(record))])
        }
    }
}

/// How to unstage. The staging directory belongs to the orchestrator.
pub(crate) fn unstage(path: &TargetPath, seen: &Observed) -> VolumePlan {
    match &seen.record {
        Some(record) if record.staged.as_deref() == Some(path.path()) => {
            let mut rest = record.clone();
            rest.staged = None;
            let image = rest.composefs;
            VolumePlan::Run(vec![record_or_forget(rest), Step::Release(image)])
        }
        // Never staged, or staged elsewhere: nothing of this path remains.
        _ => VolumePlan::Done,
    }
}
