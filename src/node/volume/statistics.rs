//! What a volume holds, and whether it is well.

use std::path::Path;

use super::record::VolumeRecord;
use super::{VolumeError, Volumes};
use crate::integrity::Integrity;
use crate::node::mount::{MountError, MountSpec};
use crate::volume::id::VolumeId;

/// What a volume holds: all of it in use, none of it free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statistics {
    /// Bytes of the image's files.
    pub bytes: u64,
    /// Inodes of the image.
    pub inodes: u64,
    /// How far what a pod reads there is checked; nothing where it is only staged.
    pub integrity: Option<Integrity>,
    /// What is wrong with the volume at the path asked for, if anything.
    pub abnormal: Option<String>,
}

impl Statistics {
    /// The volume's condition, for people.
    pub fn message(&self) -> String {
        self.abnormal.clone().unwrap_or_else(|| well(self.integrity))
    }
}

/// What is said of a volume with which nothing is wrong.
fn well(level: Option<Integrity>) -> String {
    let Some(level) = level else { return "staged: the image is on this node".to_owned() };
    let what = match level {
        Integrity::Read => "the kernel checks every read (fs-verity)",
        Integrity::Mount => "image and objects were checked before the mount",
        Integrity::Fetch => "digests were checked when the image was pulled",
    };
    format!("mounted at integrity level {level}: {what}")
}

impl Volumes {
    /// Measures a volume at one of its targets, or where it is staged.
    ///
    /// # Errors
    /// The volume is not in use on this node, or not at `path`.
    pub async fn statistics(&self, volume: VolumeId, path: String) -> Result<Statistics, VolumeError> {
        let damages = self.0.damages.clone();
        self.blocking(move |io| {
            let Some(record) = io.records.read(&volume)? else {
                return Err(VolumeError::Unknown(volume));
            };
            let at = Path::new(&path);
            let abnormal = if record.target(at).is_some() {
                complaint(&record, at, io.mounter.mounted(at))
                    .or_else(|| damages.of(&record.composefs).map(damaged))
            } else if record.staged.as_deref() == Some(at) {
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

fn damaged(what: String) -> String {
    format!(
        "{what}; reading it fails; the node's operator runs `composefs-csi verify --repair` and pulls the image again"
    )
}

fn complaint(
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
