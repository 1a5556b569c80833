//! What must stay: the roots that the store can see, and those that its caller names.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::SystemTime;

use serde::Deserialize;

use super::gc::{Facts, Inventory, Need};
use super::space::Amount;
use super::{Space, Store, StoreError};
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

/// What the store reads of a volume record; the rest is its owner's.
#[derive(Deserialize)]
struct VolumeRecord {
    image: Digest,
    boot: Option<String>,
}

impl Store {
    /// How full the store's filesystem is.
    ///
    /// # Errors
    /// Those of statvfs(3).
    pub fn space(&self) -> Result<Space, StoreError> {
        self.measure.of(self.root()).map_err(|error| self.disk.error("measure", self.root(), error))
    }

    /// Everything that the garbage collector's decision depends on. Only exact while nobody else uses
    /// the store. `frees` says what each image's removal frees; nothing for those not listed.
    pub(super) fn inventory(
        &self,
        mounted: &BTreeSet<VerityDigest>,
        frees: &HashMap<Digest, Amount>,
    ) -> Result<Inventory, StoreError> {
        let listing = self.images()?;
        let mut unknown: Vec<String> = listing.unreadable.iter().map(ToString::to_string).collect();
        let volumes = self.volume_records(&mut unknown)?;
        let volumes: HashSet<Digest> = volumes.into_iter().map(|volume| volume.image).collect();
        let pins: HashSet<Digest> = self.pins()?.into_iter().collect();
        let known: HashSet<VerityDigest> = listing.images.iter().map(|image| image.record.image).collect();
        for image in mounted.difference(&known.iter().copied().collect()) {
            // Otherwise it belongs to another store on this machine.
            if self.objects.stat(image)?.is_some() {
                unknown.push(format!(
                    "image {image} is mounted and has no record, so what it needs is unknown; unmount it, \
                     or pull the image again"
                ));
            }
        }
        let images = listing.images.iter().map(|image| {
            let manifest = image.record.manifest;
            let needed = if mounted.contains(&image.record.image) {
                Some(Need::Mount)
            } else if volumes.contains(&manifest) {
                Some(Need::Volume)
            } else {
                pins.contains(&manifest).then_some(Need::Pin)
            };
            let frees = frees.get(&manifest).copied().unwrap_or_default();
            Facts { manifest, last_used: image.last_used, needed, frees }
        });
        Ok(Inventory { images: images.collect(), unknown, space: self.space()?, now: SystemTime::now() })
    }

    /// Whether a volume may show the image now: by its record of this boot, or by one that cannot be read.
    ///
    /// # Errors
    /// Those of reading the volumes' records.
    pub fn is_in_a_volume(&self, manifest: &Digest) -> Result<bool, StoreError> {
        let mut unknown = Vec::new();
        let volumes = self.volume_records(&mut unknown)?;
        let now = |boot: &str| boot == self.layout.boot_id();
        let shows = |v: &VolumeRecord| v.image == *manifest && v.boot.as_deref().is_none_or(now);
        Ok(!unknown.is_empty() || volumes.iter().any(shows))
    }

    /// The volumes' records. One that cannot be read might name any image.
    fn volume_records(&self, unknown: &mut Vec<String>) -> Result<Vec<VolumeRecord>, StoreError> {
        let mut volumes = Vec::new();
        for name in self.disk.list(&self.layout.volumes())? {
            let path = self.layout.volumes().join(&name);
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
