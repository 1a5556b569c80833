//! Recovery of records: after a crash, after a reboot, and periodically.
//!
//! A record becomes stale when the orchestrator never calls again: the pod was deleted while the node was down, or
//! a call failed for good. Its directories are then gone, and so is its claim on an image. A record whose
//! directories remain is kept even when nothing is mounted, because the orchestrator will publish or unpublish it
//! again.

use std::collections::BTreeSet;
use std::path::Path;

use super::execute::Io;
use super::guard::Guards;
use super::record::{PublishedTarget, RecordError, VolumeRecord};
use super::target::{TargetPath, TargetState};
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
        self.blocking(move |io| {
            // Listed before the records: a mount made after this must not be released for want of a record.
            let images = io.mounter.mounted_images()?;
            let rebooted = io.records.boot().as_deref() != Some(io.boot);
            let mut found = Recovered::default();
            let mut needed = BTreeSet::new();
            let count = |target: &PublishedTarget, mounted: bool| match mounted {
                true => metrics.mounted(&target.path, integrity.max(target.least)),
                false => metrics.unmounted(&target.path),
            };
            for (file, record) in io.records.all()? {
                match record {
                    Ok(record) => {
                        needed.insert(record.composefs);
                        if let Err(error) = recover_record(io, &guards, &record, &count, &mut found) {
                            tracing::error!("a volume record could not be put in order: {error}");
                            found.unreadable += 1;
                        }
                    }
                    Err(error) => drop_or_report(io, &file, &error, rebooted, &mut found)?,
                }
            }
            // An unreadable record may need any of the images.
            if found.unreadable == 0 {
                release_unneeded(io, images.difference(&needed));
            }
            // On a full disk the next recovery tries again. The plugin must start there: it makes room.
            if rebooted && let Err(error) = io.records.set_boot(io.boot) {
                tracing::warn!("this boot could not be noted among the volume records: {error}");
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
    count: &dyn Fn(&PublishedTarget, bool),
    found: &mut Recovered,
) -> Result<(), VolumeError> {
    // Only a stale record is guarded: a guard on every volume would fail the calls that arrive meanwhile.
    let kept = if without_missing(record) == *record {
        record.clone()
    } else {
        // A call that has the volume now also knows its state; the next recovery looks again.
        let Some(guard) = record.volume_id.parse().ok().and_then(|id| guards.take(&id)) else {
            found.waiting += 1;
            return Ok(());
        };
        // Read again under the guard: a call may have changed it since it was listed.
        let Some(record) = io.records.read(guard.volume())? else { return Ok(()) };
        let kept = without_missing(&record);
        if kept.is_idle() {
            io.records.remove(guard.volume())?;
        } else if kept != record {
            io.records.write(guard.volume(), &kept)?;
        }
        if kept != record {
            tracing::info!(volume.id = record.volume_id, "dropped missing targets from the volume record");
            found.dropped += 1;
        }
        kept
    };
    let mut mounted = false;
    for target in &record.targets {
        let shown = io.mounter.mounted(&target.path).ok().flatten().is_some();
        count(target, shown);
        mounted |= shown && kept.targets.contains(target);
    }
    if mounted {
        found.mounted += 1;
    } else if !kept.is_idle() {
        found.waiting += 1;
    }
    Ok(())
}

/// The record without the paths that no longer exist.
fn without_missing(record: &VolumeRecord) -> VolumeRecord {
    let mut kept = record.clone();
    kept.targets.retain(|target| !is_missing(&target.path));
    kept.staged = kept.staged.filter(|path| !is_missing(path));
    kept
}

/// Whether `path` does not exist, so that nothing can be mounted on it.
fn is_missing(path: &Path) -> bool {
    matches!(TargetPath::recorded(path).inspect(), Ok(TargetState::Missing))
}

/// Removes an unreadable record if the reboot explains it, and reports it otherwise.
fn drop_or_report(
    io: Io<'_>,
    file: &Path,
    error: &RecordError,
    rebooted: bool,
    found: &mut Recovered,
) -> Result<(), VolumeError> {
    if rebooted && error.is_torn() {
        // Records are not fsynced, and the mounts that this one described ended with the last boot.
        tracing::warn!("dropping a volume record that the reboot has torn: {error}");
        io.records.discard(file)?;
        found.dropped += 1;
    } else {
        tracing::error!("{error}");
        found.unreadable += 1;
    }
    Ok(())
}

fn release_unneeded<'a>(io: Io<'_>, images: impl Iterator<Item = &'a VerityDigest>) {
    for image in images {
        if let Err(error) = io.mounter.release(image) {
            tracing::warn!("the base mount of image {image} cannot be released yet: {error}");
        }
    }
}
