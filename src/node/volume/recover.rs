//! Recovery of records: after a crash, after a reboot, and periodically.
//!
//! A record becomes stale when the orchestrator never calls again: the pod was deleted while the node was down, or
//! a call failed for good. Its directories are then gone, and so is its claim on an image. A record whose
//! directories remain is kept even when nothing is mounted, because the orchestrator will publish or unpublish it
//! again; so is one whose directories this process could not see if they were there.

use std::collections::BTreeSet;
use std::path::Path;

use super::execute::Io;
use super::guard::{Guards, VolumeGuard};
use super::record::{PublishedTarget, RecordError, VolumeRecord};
use super::target::is_gone;
use super::{VolumeError, Volumes};
use crate::image::verity::VerityDigest;

/// What a recovery found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Volumes with a live mount.
    pub mounted: usize,
    /// Volumes that are recorded, but not mounted.
    pub waiting: usize,
    /// Records that were removed, or from which targets were removed.
    pub dropped: usize,
    /// Records that could not be read.
    pub unreadable: usize,
}

impl Volumes {
    /// Removes stale targets from records, and releases base mounts that no record needs.
    ///
    /// # Errors
    /// The records or the mount table cannot be listed. A single record that cannot be read is logged and
    /// left alone.
    pub async fn recover(&self) -> Result<Recovered, VolumeError> {
        let (guards, metrics, integrity) =
            (self.0.guards.clone(), self.0.metrics.clone(), self.0.levels.here);
        let pods = self.0.pod_directories.clone();
        self.blocking(move |io| {
            // The records of another directory say nothing about these mounts.
            io.state.check()?;
            // Listed before the records: a mount made after this must not be released for want of a record.
            let images = io.mounter.mounted_images()?.all();
            let rebooted = io.records.boot().as_deref() != Some(io.boot);
            let mut found = Recovered::default();
            let watch = |target: &PublishedTarget| pods.watch(io.kubelet, &target.path);
            let mut needed = BTreeSet::new();
            let count = |record: &VolumeRecord, target: &PublishedTarget, mounted: bool| match mounted {
                true => metrics.mounted(&target.path, record.request.level(integrity.max(target.least))),
                false => metrics.unmounted(&target.path),
            };
            for (file, record) in io.records.all()? {
                match record {
                    Ok(record) => {
                        needed.insert(record.composefs);
                        recover_record(io, &guards, &record, &count, &mut found);
                        // The users of a pod may have come while nobody watched.
                        record.targets.iter().for_each(watch);
                    }
                    Err(error) => drop_or_report(io, &file, &error, rebooted, &mut found),
                }
            }
            // An unreadable record may need any of the images.
            if found.unreadable == 0 {
                release_unneeded(io, images.difference(&needed));
            }
            // On a full disk the next recovery does it. A record that is damaged until then counts as torn.
            if rebooted && let Err(error) = io.records.set_boot(io.boot) {
                tracing::warn!("the boot cannot be noted: {error}");
            }
            Ok(found)
        })
        .await
    }
}

fn recover_record(
    io: Io<'_>,
    guards: &Guards,
    record: &VolumeRecord,
    count: &dyn Fn(&VolumeRecord, &PublishedTarget, bool),
    found: &mut Recovered,
) {
    // Only a stale record is guarded: a guard on every volume would fail the calls that arrive meanwhile.
    let kept = if without_gone(io.kubelet, record) == *record {
        record.clone()
    } else {
        // A call that has the volume now also knows its state; the next recovery looks again.
        let Some(guard) = record.volume_id.parse().ok().and_then(|id| guards.take(&id)) else {
            found.waiting += 1;
            return;
        };
        match drop_gone(io, &guard) {
            Ok(Some((kept, dropped))) => {
                found.dropped += usize::from(dropped);
                kept
            }
            // A call has removed it since it was listed.
            Ok(None) => return,
            Err(error) => {
                // On a full or failing disk; the mounts are what they are, and the next recovery tries again.
                tracing::warn!(volume.id = record.volume_id, "a volume record stays out of date: {error}");
                record.clone()
            }
        }
    };
    let mut mounted = false;
    for target in &record.targets {
        let shown = io.mounter.mounted(&target.path).ok().flatten().is_some();
        count(record, target, shown);
        mounted |= shown && kept.targets.contains(target);
    }
    if mounted {
        found.mounted += 1;
    } else if !kept.is_idle() {
        found.waiting += 1;
    }
}

/// Drops the paths that have gone from a volume's record, and a record without paths altogether. Returns what is
/// kept, and whether something was dropped; `None` if there is no record.
fn drop_gone(io: Io<'_>, guard: &VolumeGuard) -> Result<Option<(VolumeRecord, bool)>, RecordError> {
    // Read again under the guard: a call may have changed it since it was listed.
    let Some(record) = io.records.read(guard.volume())? else { return Ok(None) };
    let kept = without_gone(io.kubelet, &record);
    if kept.is_idle() {
        io.records.remove(guard.volume())?;
    } else if kept != record {
        io.records.write(guard.volume(), &kept)?;
    }
    let dropped = kept != record;
    if dropped {
        tracing::info!(volume.id = record.volume_id, "dropped paths that have gone from the volume record");
    }
    Ok(Some((kept, dropped)))
}

/// The record without the paths that have gone.
fn without_gone(kubelet: &Path, record: &VolumeRecord) -> VolumeRecord {
    let mut kept = record.clone();
    kept.targets.retain(|target| !is_gone(kubelet, &target.path));
    kept.staged = kept.staged.filter(|path| !is_gone(kubelet, path));
    kept
}

/// Removes an unreadable record if the reboot explains it, and reports it otherwise.
fn drop_or_report(io: Io<'_>, file: &Path, error: &RecordError, rebooted: bool, found: &mut Recovered) {
    if rebooted && error.is_torn() {
        // Records are not fsynced, and the mounts that this one described ended with the last boot.
        tracing::warn!("dropping a volume record that the reboot has torn: {error}");
        match io.records.discard(file) {
            Ok(()) => return found.dropped += 1,
            Err(error) => tracing::error!("{error}"),
        }
    } else {
        tracing::error!("{error}");
    }
    found.unreadable += 1;
}

fn release_unneeded<'a>(io: Io<'_>, images: impl Iterator<Item = &'a VerityDigest>) {
    for image in images {
        if let Err(error) = io.mounter.release(image) {
            tracing::warn!("the base mount of image {image} cannot be released yet: {error}");
        }
    }
}
