//! What publishing needs, and its end.

use super::refusal::{differs, refuse_target};
use super::{Image, Plan, Refusal, Seen, Step, Wanted, based_on, is_pinned, record_or_forget};
use crate::integrity::Integrity;
use crate::kind::Kind;
use crate::node::mount::MountSpec;
use crate::node::volume::record::{Pinned, Target, VolumeRecord};
use crate::node::volume::target::{Directory, TargetPath};
use crate::volume::access::AccessMode;

/// Which image to publish, before any registry is asked.
pub fn image_for(want: &Wanted, seen: &Seen) -> Image {
    if let Some(refusal) = refusal(want, seen) {
        return Image::Refuse(refusal);
    }
    let Some(record) = &seen.record else { return Image::Resolve };
    if published(record, want, seen).is_some()
        && seen.mounted.as_ref().is_some_and(|spec| spec.image == record.composefs)
    {
        return Image::Done;
    }
    if is_pinned(record, &seen.boot) && record.request == want.request {
        return Image::Pinned(record.pinned());
    }
    Image::Resolve
}

/// How to publish `image` at the target.
pub fn publish(want: &Wanted, image: Pinned, seen: &Seen) -> Plan {
    match image_for(want, seen) {
        Image::Done => return Plan::Done,
        Image::Refuse(refusal) => return Plan::Refuse(refusal),
        Image::Pinned(_) | Image::Resolve => {}
    }
    let spec = MountSpec { image: image.composefs, path: want.request.path.clone(), noexec: want.noexec };
    let mut record = based_on(seen, &want.volume, &want.request, image);
    record.targets.retain(|target| target.path != want.target.path());
    record.targets.push(Target {
        path: want.target.path().to_owned(),
        noexec: want.noexec,
        mode: want.mode,
        least: want.least,
    });
    let mut steps = vec![Step::Record(record)];
    match (&seen.mounted, seen.directory) {
        // A mount that lost its record is taken over, if it is just what is wanted.
        (Some(found), _) if found.image == spec.image && found.noexec == spec.noexec => {
            // Nobody knows how it was made.
            if want.least > Integrity::Fetch {
                steps.extend([Step::Unmount, Step::Mount(spec, want.least)]);
            }
        }
        (Some(found), _) => {
            let what = format!("image {} without a record", found.image);
            return Plan::Refuse(Refusal::Occupied { target: want.target.clone(), what });
        }
        (None, Directory::Missing) => steps.extend([Step::CreateDirectory, Step::Mount(spec, want.least)]),
        (None, Directory::Empty) => steps.push(Step::Mount(spec, want.least)),
        (None, Directory::Filled) => {
            return refuse_target(&want.target, "is a directory with files in it", Kind::Conflict);
        }
        (None, Directory::Other) => {
            return refuse_target(&want.target, "is a symbolic link or a file", Kind::Invalid);
        }
    }
    Plan::Run(steps)
}

/// How to take a volume from a target. That there is no such volume, or nothing at the target, is fine; what
/// another volume has there stays.
pub fn unpublish(target: &TargetPath, seen: &Seen) -> Plan {
    let mut steps = Vec::new();
    let ours = seen.record.as_ref().filter(|record| record.target(target.path()).is_some());
    if seen.owner.is_none() {
        if seen.mounted.is_some() {
            steps.push(Step::Unmount);
        }
        match seen.directory {
            Directory::Missing => {}
            Directory::Empty | Directory::Filled => steps.push(Step::RemoveDirectory),
            Directory::Other => return refuse_target(target, "is a symbolic link or a file", Kind::Invalid),
        }
        let mounted = seen.mounted.as_ref().map(|spec| spec.image);
        if let Some(image) = mounted.or(ours.map(|record| record.composefs)) {
            steps.push(Step::Release(image));
        }
    }
    if let Some(record) = ours {
        let mut rest = record.clone();
        rest.targets.retain(|found| found.path != target.path());
        steps.push(record_or_forget(rest));
    }
    if steps.is_empty() { Plan::Done } else { Plan::Run(steps) }
}

fn refusal(want: &Wanted, seen: &Seen) -> Option<Refusal> {
    if let Some(owner) = &seen.owner {
        let what = format!("volume {owner}");
        return Some(Refusal::Occupied { target: want.target.clone(), what });
    }
    let record = seen.record.as_ref()?;
    if let (Some(found), Some(mounted)) = (published(record, want, seen), &seen.mounted) {
        if mounted.image != record.composefs {
            let what = format!("image {} instead of {}", mounted.image, record.composefs);
            return Some(Refusal::Occupied { target: want.target.clone(), what });
        }
        if found.mode != want.mode || found.noexec != want.noexec {
            return Some(differs(&want.volume, record, "an access mode or options"));
        }
        if record.request != want.request {
            return Some(differs(&want.volume, record, "attributes"));
        }
    }
    let elsewhere = record.targets.iter().find(|target| target.path != want.target.path());
    let current = record.boot == seen.boot;
    if current && record.request != want.request && (elsewhere.is_some() || record.staged.is_some()) {
        return Some(differs(&want.volume, record, "attributes"));
    }
    if let Some(other) = elsewhere.filter(|other| {
        let single = AccessMode::SingleNodeSingleWriter;
        current && (want.mode == single || other.mode == single)
    }) {
        let (volume, path) = (want.volume.to_string(), other.path.clone());
        return Some(Refusal::SinglePod { volume, path });
    }
    None
}

/// The record's entry for the target, if it can be about a mount: none outlives its boot.
fn published<'a>(record: &'a VolumeRecord, want: &Wanted, seen: &Seen) -> Option<&'a Target> {
    record.target(want.target.path()).filter(|_| record.boot == seen.boot)
}
