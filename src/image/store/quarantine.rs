//! Quarantine: images with objects that were found damaged are given to nobody until the objects are whole again.
//!
//! Whoever finds damage marks the object ([`Store::mark`]). From then on a pull of an image that has it fetches the
//! layer again and writes the object anew, under its name: new openings see the sound file. Records, and all that is mounted,
//! stay. A mark goes when its object has been read again, was whole, and a sync has covered it; so a crash or a power cut in
//! between leaves the mark, and nothing that is believed too early.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::contents::Source;
use super::{DamageMark, Store, StoreError};
use crate::image::objects::Corruption;
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

/// What has become of damaged objects.
#[derive(Debug, Default)]
pub struct Rechecked {
    /// Those that are whole again, or that no image has any more.
    pub healed: Vec<DamageMark>,
    /// Those that are damaged still.
    pub left: Vec<DamageMark>,
}

/// Images whose objects were replaced under their mounts a short while ago.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Healed {
    /// When the last of them was, seconds since 1970.
    at: u64,
    /// The composefs images.
    pub images: BTreeSet<VerityDigest>,
}

/// The file with the images that were healed, in the store.
const HEALED: &str = "healed";
/// How long, in seconds, mounts are made to look again: a file that was open when its object was replaced is remembered until
/// the last reader has closed it.
const LOOK_AGAIN: u64 = 600;

impl Store {
    /// The marks that damaged objects would have. What is of no image has none: it is no loss, and a collection removes it.
    /// Blocking; reads every layer record once.
    ///
    /// # Errors
    /// Those of reading records.
    pub fn damage_of(
        &self,
        found: &BTreeMap<VerityDigest, Corruption>,
    ) -> Result<Vec<DamageMark>, StoreError> {
        let mut images = self.images_by_object(&found.keys().copied().collect())?;
        let since = now();
        let mark = |(object, damage): (&VerityDigest, &Corruption)| {
            let images = images.remove(object)?;
            Some(DamageMark { object: *object, damage: damage.to_string(), since, images })
        };
        Ok(found.iter().filter_map(mark).collect())
    }

    /// Marks damaged objects, durably: their images are in quarantine.
    ///
    /// # Errors
    /// Those of writing a file.
    pub fn mark(&self, marks: &[DamageMark]) -> Result<(), StoreError> {
        for mark in marks {
            if !self.parts.damaged.set(mark)? {
                tracing::error!(
                    "too many objects are damaged to mark them all; the rest is found when these are repaired"
                );
                break;
            }
        }
        self.count_damage()
    }

    /// Finds what the marks of damaged objects are, makes them, and returns them.
    ///
    /// # Errors
    /// As of [`Store::damage_of`] and [`Store::mark`].
    pub fn mark_damaged(
        &self,
        found: &BTreeMap<VerityDigest, Corruption>,
    ) -> Result<Vec<DamageMark>, StoreError> {
        let marks = self.damage_of(found)?;
        self.mark(&marks).map(|()| marks)
    }

    /// The objects that are marked as damaged.
    ///
    /// # Errors
    /// Those of reading files.
    pub fn damaged(&self) -> Result<Vec<DamageMark>, StoreError> {
        self.parts.damaged.list()
    }

    /// Why the image with this key is in quarantine, if it is. Blocking; one readdir(3) as long as nothing is damaged.
    ///
    /// # Errors
    /// Those of reading files.
    pub fn quarantine_of(&self, image: &Digest) -> Result<Option<DamageMark>, StoreError> {
        Ok(self.damaged()?.into_iter().find(|mark| mark.images.contains(image)))
    }

    /// Whether a layer names an object that is marked as damaged. A record that is lost names none. Blocking.
    ///
    /// # Errors
    /// Those of reading files.
    pub fn is_layer_damaged(&self, diff_id: &Digest) -> Result<bool, StoreError> {
        let damaged = self.parts.damaged.objects()?;
        if damaged.is_empty() {
            return Ok(false);
        }
        let mut names = false;
        match self
            .parts
            .contents()
            .each_object_of_layer(diff_id, |object, _| names |= damaged.contains(&object))
        {
            Err(error) if !error.is_lost_record() => Err(error),
            _ => Ok(names),
        }
    }

    /// Reads the marked objects again, and removes the marks of those that are whole, after a sync, and of those that no image
    /// has. Blocking; reads these objects in full, and every layer record.
    ///
    /// # Errors
    /// Those of reading files and records, and of the sync.
    pub fn recheck_damaged(&self) -> Result<Rechecked, StoreError> {
        let marks = self.damaged()?;
        let mut rechecked = Rechecked::default();
        if marks.is_empty() {
            self.count_damage()?;
            return Ok(rechecked);
        }
        // Opened before anything is read: the sync tells of writes that were lost since.
        let lock = self.store_lock.open_lock()?;
        let images = self.images_by_object(&marks.iter().map(|mark| mark.object).collect())?;
        for mark in marks {
            let images = images.get(&mark.object).cloned().unwrap_or_default();
            let damage = match images.is_empty() {
                true => None,
                false => self.examine_object(&mark.object)?,
            };
            match damage {
                // Also those that a torn mark does not name.
                None => rechecked.healed.push(DamageMark { images: &images | &mark.images, ..mark }),
                Some(damage) => {
                    // An image that came meanwhile may have it as well.
                    let now = DamageMark { images, damage: damage.to_string(), ..mark.clone() };
                    if now != mark {
                        self.parts.damaged.set(&now)?;
                    }
                    rechecked.left.push(now);
                }
            }
        }
        if !rechecked.healed.is_empty() {
            self.parts.objects.markers().sync_filesystem(&lock)?;
            // First: whoever mounts them must hear of it even if this process is killed now.
            self.note_healed(&rechecked.healed)?;
            for mark in &rechecked.healed {
                self.parts.damaged.remove(&mark.object)?;
                tracing::info!(object = %mark.object, "a damaged object is whole again, or of no image any more");
            }
        }
        self.count_damage()?;
        Ok(rechecked)
    }

    /// The images whose mounts remember objects that were replaced.
    ///
    /// # Errors
    /// Those of reading the file.
    pub fn healed(&self) -> Result<Option<Healed>, StoreError> {
        let bytes = self.disk.read(&self.root().join(HEALED))?;
        Ok(bytes.map(|bytes| serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    /// The mounts of these images have looked again; once more, for a while, if it was a short while ago.
    ///
    /// # Errors
    /// Those of removing the file.
    pub fn forget_healed(&self, healed: &Healed) -> Result<(), StoreError> {
        let is_over = now().saturating_sub(healed.at) >= LOOK_AGAIN;
        if is_over && self.healed()?.as_ref() == Some(healed) {
            self.disk.remove(&self.root().join(HEALED))?;
        }
        Ok(())
    }

    fn note_healed(&self, marks: &[DamageMark]) -> Result<(), StoreError> {
        let mut healed = self.healed()?.unwrap_or_default();
        healed.at = now();
        for image in marks.iter().flat_map(|mark| &mark.images) {
            // One that has gone since has no mounts.
            if let Ok(Some(record)) = self.parts.images.get(image) {
                healed.images.extend(record.images().map(|own| own.image));
            }
        }
        let bytes = serde_json::to_vec(&healed).unwrap_or_default();
        self.disk.write_for_this_boot(&self.root().join(HEALED), &bytes)
    }

    /// The keys of the images that have each of these objects.
    fn images_by_object(
        &self,
        objects: &BTreeSet<VerityDigest>,
    ) -> Result<BTreeMap<VerityDigest, BTreeSet<Digest>>, StoreError> {
        let (_hold, listing) = self.hold_all_images()?;
        let records: Vec<_> = listing.images.iter().map(|image| &image.record).collect();
        let owners = Source::owners(self.parts.contents(), &records, |digest| objects.contains(digest))?;
        let keys = |images: BTreeSet<usize>| {
            images.into_iter().filter_map(|index| Some(records.get(index)?.key())).collect()
        };
        Ok(owners.into_iter().map(|(object, images)| (object, keys(images))).collect())
    }

    /// Brings the metric up to date.
    pub(super) fn count_damage(&self) -> Result<(), StoreError> {
        self.metrics.damaged.set(self.parts.damaged.objects()?.len() as u64);
        Ok(())
    }
}

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}
