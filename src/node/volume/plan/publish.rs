//! Plans for publish and unpublish.

use super::refusal::{differs, refuse_target};
use super::{
    ImageChoice, Observed, PublishSpec, Step, VolumePlan, VolumeRefusal, is_pinned, record_or_forget,
    record_with_image,
};
use crate::integrity::Integrity;
use crate::kind::Kind;
use crate::node::mount::MountSpec;
use crate::node::volume::record::{PinnedImage, PublishedTarget, VolumeRecord};
use crate::node::volume::target::{TargetPath, TargetState};
use crate::volume::access::AccessMode;

/// Which image to publish. Decided before any registry is contacted.
pub(crate) fn image_to_publish(want: &PublishSpec, seen: &Observed) -> ImageChoice {
    if let Some(refusal) = refusal(want, seen) {
        return ImageChoice::Refuse(refusal);
    }
    let Some(record) = &seen.record else { return ImageChoice::Resolve };
    if published(record, want, seen).is_some()
        && seen.mounted.as_ref().is_some_and(|spec| spec.image == record.composefs)
    {
        return ImageChoice::Done;
    }
    if is_pinned(record, &seen.boot) && record.request == want.request {
        return ImageChoice::Pinned(record.pinned());
    }
    ImageChoice::Resolve
}

/// How to publish `image` at the target.
pub(crate) fn publish(want: &PublishSpec, image: PinnedImage, seen: &Observed) -> VolumePlan {
    match image_to_publish(want, seen) {
        ImageChoice::Done => return VolumePlan::Done,
        ImageChoice::Refuse(refusal) => return VolumePlan::Refuse(refusal),
        ImageChoice::Pinned(_) | ImageChoice::Resolve => {}
    }
    let image = shown(want, image, seen);
    let spec = MountSpec {
        image: image.composefs,
        path: want.request.path.clone(),
        noexec: want.noexec,
        upper: want.request.upper(),
    };
    let mut record = record_with_image(seen, &want.volume, &want.request, image);
    record.targets.retain(|target| target.path != want.target.path());
    record.targets.push(PublishedTarget {
        path: want.target.path().to_owned(),
        noexec: want.noexec,
        mode: want.mode,
        least: want.least,
        namespace: want.namespace.clone(),
    });
    let was_shown = seen.mounted.as_ref().is_some_and(|found| record.has_shown(&found.image));
    let mut steps = vec![Step::Record(Box::new(record))];
    let mount = |spec| match want.request.follow {
        true => Step::ShowCurrent(spec, want.least),
        false => Step::Mount(spec, want.least),
    };
    match (&seen.mounted, seen.directory) {
        // A mount without a record is adopted if it is what the request wants.
        (Some(found), _)
            if (found.image, found.noexec, found.upper) == (spec.image, spec.noexec, spec.upper) =>
        {
            // A new mount would not have what the pod has written.
            if want.least > Integrity::Fetch && spec.upper.is_some() {
                let what = "a writable volume without a record".to_owned();
                return VolumePlan::Refuse(VolumeRefusal::Occupied { target: want.target.clone(), what });
            }
            // Its integrity level is not recorded, so a demand needs a new mount.
            if want.least > Integrity::Fetch {
                steps.extend([Step::Unmount, mount(spec)]);
            }
        }
        // A switch was interrupted.
        (Some(_), _) if was_shown => steps.push(mount(spec)),
        (Some(found), _) => {
            let what = format!("image {} without a record", found.image);
            return VolumePlan::Refuse(VolumeRefusal::Occupied { target: want.target.clone(), what });
        }
        (None, TargetState::Missing) => steps.extend([Step::CreateDirectory, mount(spec)]),
        (None, TargetState::Empty) => steps.push(mount(spec)),
        (None, TargetState::Filled) => {
            return refuse_target(&want.target, "is a directory with files in it", Kind::Conflict);
        }
        (None, TargetState::Other) => {
            return refuse_target(&want.target, "is a symbolic link or a file", Kind::Invalid);
        }
    }
    VolumePlan::Run(steps)
}

/// How to unpublish a volume from a target. Succeeds if there is no such volume or nothing at the target. A target of
/// another volume is left alone.
pub(crate) fn unpublish(target: &TargetPath, seen: &Observed) -> VolumePlan {
    let mut steps = Vec::new();
    let ours = seen.record.as_ref().filter(|record| record.target(target.path()).is_some());
    // Without an owner, a mount there is this volume's, or its record was lost. Where two records of this boot claim the
    // target, one is stale or forged, and the volume goes by its own.
    if seen.owner.is_none() || ours.is_some_and(|record| record.boot == seen.boot) {
        if seen.mounted.is_some() {
            steps.push(Step::Unmount);
        }
        match seen.directory {
            TargetState::Missing => {}
            TargetState::Empty | TargetState::Filled => steps.push(Step::RemoveDirectory),
            TargetState::Other => {
                return refuse_target(target, "is a symbolic link or a file", Kind::Invalid);
            }
        }
        let mounted = seen.mounted.as_ref().map(|spec| spec.image);
        if let Some(image) = mounted.or(ours.map(|record| record.composefs)) {
            steps.push(Step::Release(image));
        }
    }
    // Last: until the unmount has succeeded, the mount needs its record.
    if let Some(record) = ours {
        let mut rest = record.clone();
        rest.targets.retain(|found| found.path != target.path());
        steps.push(record_or_forget(rest));
    }
    if steps.is_empty() { VolumePlan::Done } else { VolumePlan::Run(steps) }
}

/// What the target shows if `image` is what the request gets now. All targets of a volume show the same bytes, even if
/// the policy, the settings or the release have changed in between: then that of the others.
pub(crate) fn shown(want: &PublishSpec, image: PinnedImage, seen: &Observed) -> PinnedImage {
    let record = seen.record.as_ref().filter(|record| record.boot == seen.boot);
    let elsewhere = record.filter(|record| {
        record.is_form_of(&want.request, &image)
            && record.targets.iter().any(|target| target.path != want.target.path())
    });
    elsewhere.map_or(image, VolumeRecord::pinned)
}

fn refusal(want: &PublishSpec, seen: &Observed) -> Option<VolumeRefusal> {
    if let Some(owner) = &seen.owner {
        let what = format!("volume {owner}");
        return Some(VolumeRefusal::Occupied { target: want.target.clone(), what });
    }
    let record = seen.record.as_ref()?;
    if let (Some(found), Some(mounted)) = (published(record, want, seen), &seen.mounted) {
        if mounted.image != record.composefs && !record.has_shown(&mounted.image) {
            let what = format!("image {} instead of {}", mounted.image, record.composefs);
            return Some(VolumeRefusal::Occupied { target: want.target.clone(), what });
        }
        if mounted.upper != record.request.upper() {
            let what = "a mount with another upper than the volume's".to_owned();
            return Some(VolumeRefusal::Occupied { target: want.target.clone(), what });
        }
        if found.mode != want.mode || found.noexec != want.noexec {
            return Some(differs(&want.volume, record, "an access mode or options"));
        }
        if record.request != want.request {
            return Some(differs(&want.volume, record, "attributes"));
        }
    }
    // A volume that is also in use elsewhere must show the same content everywhere.
    let elsewhere = record.targets.iter().find(|target| target.path != want.target.path());
    let current = record.boot == seen.boot;
    if current && record.request != want.request && (elsewhere.is_some() || record.staged.is_some()) {
        return Some(differs(&want.volume, record, "attributes"));
    }
    // What may be executed is decided in the image, of which a volume shows one.
    if current && elsewhere.is_some_and(|other| other.noexec != want.noexec) {
        return Some(differs(&want.volume, record, "options"));
    }
    if let Some(other) = elsewhere.filter(|other| {
        let single = AccessMode::SingleNodeSingleWriter;
        // Each target of a writable volume would have an upper of its own.
        current && (want.mode == single || other.mode == single || want.request.upper.is_some())
    }) {
        let (volume, path) = (want.volume.to_string(), other.path.clone());
        return Some(VolumeRefusal::SinglePod { volume, path });
    }
    None
}

/// The record's entry for the target, unless it is from an earlier boot, whose mounts are gone.
fn published<'a>(
    record: &'a VolumeRecord,
    want: &PublishSpec,
    seen: &Observed,
) -> Option<&'a PublishedTarget> {
    record.target(want.target.path()).filter(|_| record.boot == seen.boot)
}
