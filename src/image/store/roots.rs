//! What must stay: the roots that the store can see, and those that its caller names.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::SystemTime;

use serde::Deserialize;

use super::gc::{Facts, Inventory, Need};
use super::space::Amount;
use super::{Space, Store, StoreError};
use crate::image::digest::Digest;
use crate::image::verity::VerityDigest;

/// What the store reads of a volume record; the rest is its owner's.
#[derive(Deserialize)]
struct VolumeRecord {
    image: Digest,
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
        let volumes = self.volume_images(&mut unknown)?;
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

    /// The images that volume records name. A record that cannot be read might name any.
    fn volume_images(&self, unknown: &mut Vec<String>) -> Result<HashSet<Digest>, StoreError> {
        let mut images = HashSet::new();
        for name in self.disk.list(&self.layout.volumes())? {
            let path = self.layout.volumes().join(&name);
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let Some(bytes) = self.disk.read(&path)? else { continue };
            match serde_json::from_slice::<VolumeRecord>(&bytes) {
                Ok(record) => drop(images.insert(record.image)),
                Err(error) => unknown.push(format!(
                    "volume record {} cannot be read ({error}); if its volume is not in use, remove the file",
                    path.display()
                )),
            }
        }
        Ok(images)
    }
}
