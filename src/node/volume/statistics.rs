//! The size and the condition of a volume.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::record::VolumeRecord;
use super::{VolumeError, Volumes};
use crate::integrity::Integrity;
use crate::node::mount::{MountError, MountSpec, Usage};
use crate::units;
use crate::volume::id::VolumeId;

/// The size and the condition of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statistics {
    /// Bytes of the image's files.
    pub bytes: u64,
    /// Inodes of the image.
    pub inodes: u64,
    /// What the pod has written and may write, if it may.
    pub usage: Option<Usage>,
    /// The integrity level of the mount; `None` if the volume is only staged.
    pub integrity: Option<Integrity>,
    /// What is wrong with the volume at the requested path, if anything.
    pub abnormal: Option<String>,
    /// What the volume waits for, if a call of it does.
    pub awaited: Option<String>,
    /// What it follows and shows, if it follows a tag.
    pub followed: Option<String>,
    /// How long the pull of its image took, as far as its call has seen it, if that was long.
    pub slow: Option<Duration>,
}

impl Statistics {
    /// The volume's condition, for people.
    pub fn message(&self) -> String {
        let state = match (&self.abnormal, self.integrity, &self.awaited) {
            (Some(problem), ..) => problem.clone(),
            // Staged, and lost since.
            (None, None, Some(_)) => "staged".to_owned(),
            (None, level, _) => match &self.usage {
                Some(usage) => format!("{}; {}", written(usage), healthy(level)),
                None => healthy(level),
            },
        };
        let state = match &self.followed {
            Some(followed) => format!("{state}; {followed}"),
            None => state,
        };
        match (&self.awaited, self.slow) {
            (Some(awaited), _) => format!("{state}; {awaited}"),
            (None, Some(waited)) => format!("{state}; the pull of its image took {}", units::time(waited)),
            (None, None) => state,
        }
    }
}

/// What a pod has written. A full volume is as its author wanted it, and no fault of it.
fn written(usage: &Usage) -> String {
    let used = usage.bytes.saturating_sub(usage.free_bytes);
    let full = usage.free_bytes == 0 || usage.free_inodes == 0;
    format!(
        "writable, {}{} of {} and {} of {} inodes in use; what the pod has not changed is of an image",
        if full { "full: " } else { "" },
        units::bytes(used),
        units::bytes(usage.bytes),
        usage.inodes.saturating_sub(usage.free_inodes),
        usage.inodes,
    )
}

/// The message for a volume without problems.
fn healthy(level: Option<Integrity>) -> String {
    let Some(level) = level else { return "staged: the image is on this node".to_owned() };
    let what = match level {
        Integrity::Read => "the kernel checks every read (fs-verity)",
        Integrity::Mount => "image and objects were checked before the mount",
        Integrity::Fetch => "digests were checked when the image was pulled",
    };
    format!("mounted at integrity level {level}: {what}")
}

impl Volumes {
    /// The statistics of a volume at one of its targets, or at its staging path.
    ///
    /// # Errors
    /// The volume is not in use on this node, or not at `path`. A pull for it is named in the error: CSI has no condition
    /// for a volume that is not there yet (specification, NodeGetVolumeStats: 5 NOT_FOUND).
    pub(crate) async fn statistics(&self, volume: VolumeId, path: String) -> Result<Statistics, VolumeError> {
        let (corrupt_images, pulls) = (self.0.corrupt_images.clone(), self.0.pulls.clone());
        let parts = Arc::clone(&self.0);
        self.blocking(move |io| {
            let Some(record) = io.records.read(&volume)? else {
                io.state.check()?;
                return Err(match pulls.awaited(&volume) {
                    Some(progress) => VolumeError::NotYet { volume, progress },
                    None => VolumeError::Unknown(volume),
                });
            };
            let awaited = pulls.awaited(&volume);
            let at = Path::new(&path);
            let abnormal = if record.target(at).is_some() {
                mount_problem(&record, at, io.mounter.mounted(at))
                    .or_else(|| corrupt_images.of(&record.composefs).map(corruption_problem))
            } else if record.staged.as_deref() == Some(at) {
                // Nothing is mounted at a staging path, so nothing can be wrong there.
                None
            } else {
                return Err(match awaited {
                    Some(progress) => VolumeError::NotYet { volume, progress },
                    None => VolumeError::NotThere { volume, path },
                });
            };
            let slow = pulls.slow(&volume).filter(|_| record.target(at).is_some());
            let level = io.mounter.level(&record.composefs);
            let integrity = record.target(at).map(|target| record.request.level(level.max(target.least)));
            let is_written = record.request.upper.is_some() && abnormal.is_none();
            let usage = if is_written { io.mounter.usage(at)? } else { None };
            let (bytes, inodes) = (record.bytes, record.inodes);
            let followed = record.request.follow.then(|| {
                let shown = record.pinned().manifest;
                parts.followed.message(&volume, &record.request.image, &shown)
            });
            Ok(Statistics { bytes, inodes, usage, integrity, abnormal, awaited, followed, slow })
        })
        .await
    }
}

fn corruption_problem(what: String) -> String {
    format!(
        "{what}; reading it fails; the plugin fetches it again as long as it cannot: its log and the pod's Events say why, and \
         the node's operator can run `composefs-csi store repair`"
    )
}

fn mount_problem(
    record: &VolumeRecord,
    path: &Path,
    mounted: Result<Option<MountSpec>, MountError>,
) -> Option<String> {
    match mounted {
        Ok(Some(spec)) if spec.image == record.composefs => None,
        // A switch goes on.
        Ok(Some(spec)) if record.has_shown(&spec.image) => None,
        Ok(Some(spec)) => {
            let (expected, path) = (record.composefs, path.display());
            Some(format!("{path} shows image {} instead of {expected}; delete the pod", spec.image))
        }
        Ok(None) => Some(format!("nothing is mounted at {} any more; delete the pod", path.display())),
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_says_what_is_waited_for_and_what_was_slow() {
        let mounted = Statistics {
            bytes: 1,
            inodes: 1,
            usage: None,
            integrity: Some(Integrity::Read),
            abnormal: None,
            awaited: None,
            followed: None,
            slow: Some(Duration::from_secs(95)),
        };
        assert!(mounted.message().ends_with("(fs-verity); the pull of its image took 1 min 35 s"));
        let usage = Usage { bytes: 1 << 20, free_bytes: 0, inodes: 1024, free_inodes: 1020 };
        let full = Statistics { usage: Some(usage), integrity: Some(Integrity::Mount), ..mounted.clone() };
        let said = full.message();
        assert!(said.starts_with("writable, full: 1.0 MB of 1.0 MB and 4 of 1024 inodes in use; "), "{said}");
        let lost = Statistics {
            abnormal: Some("nothing is mounted".to_owned()),
            awaited: Some("image x is being pulled".to_owned()),
            ..mounted.clone()
        };
        assert_eq!(lost.message(), "nothing is mounted; image x is being pulled");
        let staged = Statistics { integrity: None, abnormal: None, ..lost };
        assert_eq!(staged.message(), "staged; image x is being pulled");
    }
}
