//! The size and the condition of a volume.

use std::path::Path;

use super::record::VolumeRecord;
use super::{VolumeError, Volumes};
use crate::integrity::Integrity;
use crate::node::mount::{MountError, MountSpec};
use crate::volume::id::VolumeId;

/// The size and the condition of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statistics {
    /// Bytes of the image's files.
    pub bytes: u64,
    /// Inodes of the image.
    pub inodes: u64,
    /// The integrity level of the mount; `None` if the volume is only staged.
    pub integrity: Option<Integrity>,
    /// What is wrong with the volume at the requested path, if anything.
    pub abnormal: Option<String>,
}

impl Statistics {
    /// The volume's condition, for people.
    pub fn message(&self) -> String {
        self.abnormal.clone().unwrap_or_else(|| healthy(self.integrity))
    }
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
    /// The volume is not in use on this node, or not at `path`.
    pub(crate) async fn statistics(&self, volume: VolumeId, path: String) -> Result<Statistics, VolumeError> {
        let corrupt_images = self.0.corrupt_images.clone();
        self.blocking(move |io| {
            let Some(record) = io.records.read(&volume)? else {
                io.state.check()?;
                return Err(VolumeError::Unknown(volume));
            };
            let at = Path::new(&path);
            let abnormal = if record.target(at).is_some() {
                mount_problem(&record, at, io.mounter.mounted(at))
                    .or_else(|| corrupt_images.of(&record.composefs).map(corruption_problem))
            } else if record.staged.as_deref() == Some(at) {
                // Nothing is mounted at a staging path, so nothing can be wrong there.
                None
            } else {
                return Err(VolumeError::NotThere { volume, path });
            };
            let level = io.mounter.level(&record.composefs);
            let integrity = record.target(at).map(|target| level.max(target.least));
            Ok(Statistics { bytes: record.bytes, inodes: record.inodes, integrity, abnormal })
        })
        .await
    }
}

fn corruption_problem(what: String) -> String {
    format!(
        "{what}; reading it fails; the node's operator runs `composefs-csi verify --repair` and pulls the image again"
    )
}

fn mount_problem(
    record: &VolumeRecord,
    path: &Path,
    mounted: Result<Option<MountSpec>, MountError>,
) -> Option<String> {
    match mounted {
        Ok(Some(spec)) if spec.image == record.composefs => None,
        Ok(Some(spec)) => {
            let (expected, path) = (record.composefs, path.display());
            Some(format!("{path} shows image {} instead of {expected}; delete the pod", spec.image))
        }
        Ok(None) => Some(format!("nothing is mounted at {} any more; delete the pod", path.display())),
        Err(error) => Some(error.to_string()),
    }
}
