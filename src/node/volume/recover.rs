//! Putting records in order: after a crash, after a reboot, and now and then.
//!
//! A record outlives its reason when the orchestrator never calls again: the pod was deleted while the node
//! was down, or a call failed for good. Then its directories are gone, and so is its claim on an image.
//! Records whose directories remain are kept even when nothing is mounted, because the orchestrator will
//! publish or unpublish them again.

use std::collections::BTreeSet;
use std::path::Path;

use super::execute::Io;
use super::guard::Guards;
use super::record::{RecordError, Target, VolumeRecord};
use super::target::{Directory, TargetPath};
use super::{VolumeError, Volumes};
use crate::image::verity::VerityDigest;

/// What putting in order found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Volumes with a live mount.
    pub mounted: usize,
    /// Volumes that are recorded, but not mounted.
    pub waiting: usize,
    /// Records that were dropped or shortened.
    pub dropped: usize,
    /// Records that could not be read.
    pub unreadable: usize,
}

impl Volumes {
    /// Drops what records claim in vain, and lets private mounts go that no record needs.
    ///
    /// # Errors
    /// The records or the mount table cannot be listed. A single record that cannot be read is logged and
    /// left alone.
    pub async fn recover(&self) -> Result<Recovered, VolumeError> {
        let (guards, metrics, integrity) =
            (self.0.guards.clone(), self.0.metrics.clone(), self.0.levels.here);
        self.blocking(move |io| {
            // Listed before the records are: whatever is mounted later than this is not looked at.
            let images = io.mounter.mounted_images()?;
            let rebooted = io.records.boot().as_deref() != Some(io.boot);
            let mut found = Recovered::default();
            let mut needed = BTreeSet::new();
            let count = |target: &Target, mounted: bool| match mounted {
                true => metrics.mounted(&target.path, integrity.max(target.least)),
                false => metrics.unmounted(&target.path),
            };
            for (file, record) in io.records.all()? {
                match record {
                    Ok(record) => {
                        needed.insert(record.composefs);
                        settle(io, &guards, &record, &count, &mut found)?;
                    }
                    Err(error) => unreadable(io, &file, &error, rebooted, &mut found)?,
                }
            }
            if found.unreadable == 0 {
                release(io, images.difference(&needed));
            }
            if rebooted {
                io.records.set_boot(io.boot)?;
            }
            Ok(found)
        })
        .await
    }
}

fn settle(
    io: Io<'_>,
    guards: &Guards,
    record: &VolumeRecord,
    count: &dyn Fn(&Target, bool),
    found: &mut Recovered,
) -> Result<(), VolumeError> {
    // Only a record that claims something in vain is touched: to hold each volume for a moment would turn
    // away the calls that come in that moment.
    let kept = if without_gone(record) == *record {
        record.clone()
    } else {
        let Some(guard) = record.volume_id.parse().ok().and_then(|id| guards.take(&id)) else {
            found.waiting += 1;
            return Ok(());
        };
        // Read again, now that nobody else can change it.
        let Some(record) = io.records.read(guard.volume())? else { return Ok(()) };
        let kept = without_gone(&record);
        if kept.is_idle() {
            io.records.remove(guard.volume())?;
        } else if kept != record {
            io.records.write(guard.volume(), &kept)?;
        }
        if kept != record {
            tracing::info!(
                volume.id = record.volume_id,
                "targets that have gone were dropped from the record"
            );
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

/// The record without the places that are no longer there.
fn without_gone(record: &VolumeRecord) -> VolumeRecord {
    let mut kept = record.clone();
    kept.targets.retain(|target| !is_gone(&target.path));
    kept.staged = kept.staged.filter(|path| !is_gone(path));
    kept
}

/// Nothing can be mounted on what is not there.
fn is_gone(path: &Path) -> bool {
    matches!(TargetPath::recorded(path).look(), Ok(Directory::Missing))
}

fn unreadable(
    io: Io<'_>,
    file: &Path,
    error: &RecordError,
    rebooted: bool,
    found: &mut Recovered,
) -> Result<(), VolumeError> {
    if rebooted && error.is_torn() {
        // Records are not fsynced, and what this one described went with the last boot.
        tracing::warn!("a record that the reboot has torn is dropped: {error}");
        io.records.discard(file)?;
        found.dropped += 1;
    } else {
        tracing::error!("{error}");
        found.unreadable += 1;
    }
    Ok(())
}

fn release<'a>(io: Io<'_>, images: impl Iterator<Item = &'a VerityDigest>) {
    for image in images {
        if let Err(error) = io.mounter.release(image) {
            tracing::warn!("the private mount of image {image} stays for now: {error}");
        }
    }
}
