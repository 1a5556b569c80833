//! What is to be done about one volume: pure decisions, from what is wanted and what is seen.
//!
//! Invariants that every plan keeps:
//! * the record that names a mount is written before the mount is made and removed after it has gone;
//! * nothing that another volume published is touched;
//! * after a plan has been carried out, planning again yields [`Plan::Done`].
//!
//! A volume is pinned to one image for as long as it is in use on this node during one boot: all its targets
//! show the same bytes, even if the tag has moved in between.

use std::path::PathBuf;

use super::record::{Pinned, Requested, Target, VolumeRecord};
use super::target::{Directory, TargetPath};
use crate::image::store::Integrity;
use crate::image::verity::VerityDigest;
use crate::kind::Kind;
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

/// Why something must not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// In use with other attributes or another capability.
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
    /// The target shows something else.
    #[error("target {target} shows {what}; unpublish that first")]
    Occupied {
        /// The target.
        target: TargetPath,
        /// What it shows.
        what: String,
    },
    /// The target is no directory that this driver made.
    #[error("target {target} {problem}; remove it by hand if nobody needs it")]
    Target {
        /// The target.
        target: TargetPath,
        /// What is wrong, a predicate.
        problem: &'static str,
        /// What sort of failure this is.
        kind: Kind,
    },
    /// For one pod only, and another has it.
    #[error(
        "volume {volume} is for a single pod (ReadWriteOncePod) and is in use at {}; remove that pod first",
        path.display()
    )]
    SinglePod {
        /// The volume.
        volume: String,
        /// Where it is in use.
        path: PathBuf,
    },
}

impl Refusal {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Differs { .. } | Self::Occupied { .. } => Kind::Conflict,
            Self::Target { kind, .. } => *kind,
            Self::SinglePod { .. } => Kind::Unsupported,
        }
    }
}

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

fn differs(volume: &VolumeId, record: &VolumeRecord, what: &'static str) -> Refusal {
    let path = record.targets.first().map(|target| target.path.clone()).or_else(|| record.staged.clone());
    Refusal::Differs { volume: volume.to_string(), path: path.unwrap_or_default(), what }
}

fn refuse_target(target: &TargetPath, problem: &'static str, kind: Kind) -> Plan {
    Plan::Refuse(Refusal::Target { target: target.clone(), problem, kind })
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
