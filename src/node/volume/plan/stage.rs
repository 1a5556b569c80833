//! What staging needs, and its end.

use super::refusal::differs;
use super::{Image, Plan, Seen, Step, based_on, is_pinned, record_or_forget};
use crate::node::volume::record::{Pinned, Requested};
use crate::node::volume::target::TargetPath;
use crate::volume::id::VolumeId;

/// Which image to stage, before any registry is asked.
pub fn image_to_stage(volume: &VolumeId, request: &Requested, path: &TargetPath, seen: &Seen) -> Image {
    match &seen.record {
        Some(record) if is_pinned(record, &seen.boot) && record.request != *request => {
            Image::Refuse(differs(volume, record, "attributes"))
        }
        Some(record) if is_pinned(record, &seen.boot) && record.staged.as_deref() == Some(path.path()) => {
            Image::Done
        }
        Some(record) if is_pinned(record, &seen.boot) => Image::Pinned(record.pinned()),
        _ => Image::Resolve,
    }
}

/// How to stage: nothing is mounted, the image is only kept here.
pub fn stage(volume: &VolumeId, request: &Requested, path: &TargetPath, image: Pinned, seen: &Seen) -> Plan {
    match image_to_stage(volume, request, path, seen) {
        Image::Done => Plan::Done,
        Image::Refuse(refusal) => Plan::Refuse(refusal),
        Image::Pinned(_) | Image::Resolve => {
            let mut record = based_on(seen, volume, request, image);
            record.staged = Some(path.path().to_owned());
            Plan::Run(vec![Step::Record(record)])
        }
    }
}

/// How to unstage. The staging directory belongs to the orchestrator.
pub fn unstage(path: &TargetPath, seen: &Seen) -> Plan {
    match &seen.record {
        Some(record) if record.staged.as_deref() == Some(path.path()) => {
            let mut rest = record.clone();
            rest.staged = None;
            let image = rest.composefs;
            Plan::Run(vec![record_or_forget(rest), Step::Release(image)])
        }
        _ => Plan::Done,
    }
}
