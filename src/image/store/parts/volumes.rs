//! What the store reads of volume records: `volumes/*.json`. They are written by the node (`node::volume`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::image::store::disk::Disk;
use crate::image::store::error::StoreError;
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

/// What the store reads of a volume record. A record carries no code: it can only keep an image, not make one.
#[derive(Deserialize)]
pub(in crate::image::store) struct VolumeImage {
    pub(in crate::image::store) image: Digest,
    /// The volume's id, for people.
    #[serde(default)]
    pub(in crate::image::store) volume_id: String,
    /// The composefs image that the volume shows.
    pub(in crate::image::store) composefs: Option<VerityDigest>,
    /// The images that this one is made of: they are asked for again whenever the volume is published.
    #[serde(default)]
    pub(in crate::image::store) members: Vec<VolumeMember>,
    /// Images that a volume which follows a tag has shown before, and that somebody may still have open.
    #[serde(default)]
    pub(in crate::image::store) earlier: Vec<VolumeMember>,
    boot: Option<String>,
    /// Where it is published.
    #[serde(default)]
    targets: Vec<VolumeTarget>,
}

/// Where a volume is published.
#[derive(Deserialize)]
struct VolumeTarget {
    /// The namespace of the pod. Records of earlier releases do not say.
    #[serde(default)]
    namespace: Option<String>,
}

impl VolumeImage {
    /// The namespaces for whose pods it is published; `None` where that is not known, as of a volume that is only staged.
    pub(in crate::image::store) fn namespaces(&self) -> BTreeSet<Option<&str>> {
        let mut named: BTreeSet<_> = self.targets.iter().map(|target| target.namespace.as_deref()).collect();
        if named.is_empty() {
            named.insert(None);
        }
        named
    }
}

/// One of the images that a volume's image is made of, or one that it has shown.
#[derive(Deserialize)]
pub(in crate::image::store) struct VolumeMember {
    pub(in crate::image::store) image: Digest,
    /// The composefs image, of one that was shown.
    #[serde(default)]
    pub(in crate::image::store) composefs: Option<VerityDigest>,
}

/// The volume records of a store.
#[derive(Debug)]
pub struct Volumes {
    disk: Disk,
    directory: PathBuf,
    boot_id: String,
}

impl Volumes {
    pub(in crate::image::store) const DIRECTORY: &str = "volumes";

    pub(in crate::image::store) fn new(disk: &Disk, boot_id: &str) -> Self {
        let directory = disk.root().join(Self::DIRECTORY);
        Self { disk: disk.clone(), directory, boot_id: boot_id.to_owned() }
    }

    /// Where the records are kept.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether a volume may show the image now: by its record of this boot, or by one that cannot be read.
    ///
    /// # Errors
    /// Those of reading the records.
    pub fn may_show(&self, manifest: &Digest) -> Result<bool, StoreError> {
        let mut unknown = Vec::new();
        let volumes = self.list(&mut unknown)?;
        let shows = |v: &VolumeImage| {
            let mut images = v.earlier.iter().map(|earlier| &earlier.image).chain([&v.image]);
            images.any(|image| image == manifest) && self.is_current(v)
        };
        Ok(!unknown.is_empty() || volumes.iter().any(shows))
    }

    /// Whether a volume may be mounted now. A record of another boot describes no mount (ADR 0002); one without a
    /// boot might.
    pub(in crate::image::store) fn is_current(&self, volume: &VolumeImage) -> bool {
        volume.boot.as_deref().is_none_or(|boot| boot == self.boot_id)
    }

    /// The records; why one cannot be read is added to `unknown`, since it might name any image.
    pub(in crate::image::store) fn list(
        &self,
        unknown: &mut Vec<String>,
    ) -> Result<Vec<VolumeImage>, StoreError> {
        let mut volumes = Vec::new();
        for name in self.disk.files(&self.directory, |_| true)? {
            let path = self.directory.join(&name);
            // The file `boot`, and temporary files of the writer.
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let Some(bytes) = self.disk.read(&path)? else { continue };
            match serde_json::from_slice(&bytes) {
                Ok(volume) => volumes.push(volume),
                Err(error) => unknown.push(format!(
                    "volume record {} cannot be read ({error}); if its volume is not in use, remove the file",
                    path.display()
                )),
            }
        }
        Ok(volumes)
    }
}
