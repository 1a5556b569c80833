//! Checking the store's structure: whether everything that one thing says of another is so. Contents are for
//! [`Store::examine`].

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::Serialize;

use super::inventory::{self, Needs};
use super::mounted::MountedImages;
use super::parts::images::Listing;
use super::parts::volumes::VolumeImage;
use super::{ImageRecord, Store, StoreError};
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

/// A pull that has ended leaves nothing for longer than this.
const LEFTOVER: Duration = Duration::from_secs(60);

/// What a check looked at, and what it found.
#[derive(Debug, Default, Serialize)]
pub struct Checked {
    /// Image records.
    pub images: u64,
    /// Layer records.
    pub layers: u64,
    /// How often they name an object.
    pub objects: u64,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How grave it is.
    pub weight: Weight,
    /// What it is about.
    pub about: String,
    /// What is wrong with it.
    pub what: String,
    /// What to do.
    pub remedy: &'static str,
}

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// It goes by itself, or is somebody's wish.
    Note,
    /// Something is lost, or it is unknown what is needed.
    Fault,
}

const PULL_AGAIN: &str = "check the disk, then run `composefs-csi store repair`";
const UNKNOWN: &str = "nothing is removed from the store until this is done";

impl Store {
    /// Compares records, objects, volume records, pins and mounts with each other. Blocking; reads every layer record,
    /// and asks for size and presence of every object that they name. Memory: some 50 bytes per object.
    ///
    /// # Errors
    /// Those of reading directories. What is wrong is part of the answer.
    pub fn check(&self, mounted: &MountedImages<'_>) -> Result<Checked, StoreError> {
        let mut checked = Checked::default();
        // Before this process holds all that it looks at.
        let mut needs = Needs::read(&self.parts, mounted)?;
        let (_hold, listing) = self.hold_all_images()?;
        needs.note_unreadable_mounts(&self.parts, &listing)?;
        checked.unknown(&listing, needs.unknown);
        checked.images = listing.images.len() as u64;
        let mut layers = HashMap::new();
        for image in &listing.images {
            self.check_one(&image.record, &mut layers, &mut checked)?;
        }
        self.check_volumes(mounted, &listing, &mut checked)?;
        self.check_kept(&listing, &mut checked)?;
        for name in self.parts.images.forged()? {
            checked.fault(
                format!("image record {}", name.to_string_lossy()),
                "was not written with this node's key, and was put aside".to_owned(),
                "find out who wrote it; remove the file when it is of no more use",
            );
        }
        if inventory::has_leftovers(&self.parts, LEFTOVER)? {
            checked.note(
                "pulls".to_owned(),
                "something is left of a pull that is gone".to_owned(),
                "the next collection removes it; `composefs-csi prune` does so now",
            );
        }
        Ok(checked)
    }

    /// One image: its composefs images, its layers' records, and all objects that they name. `layers` knows what was
    /// found of layers before.
    fn check_one(
        &self,
        record: &ImageRecord,
        layers: &mut HashMap<Digest, Bad>,
        checked: &mut Checked,
    ) -> Result<(), StoreError> {
        let mut bad = Bad::default();
        for own in record.images() {
            self.check_object(own.image, own.image_size, &mut bad)?;
        }
        for layer in record.layers.iter().collect::<HashSet<_>>() {
            if let Some(known) = layers.get(layer) {
                bad.add(known);
                continue;
            }
            let mut found = Bad::default();
            let mut named = HashMap::new();
            let read = self.parts.contents().each_object_of_layer(layer, |digest, size| {
                named.insert(digest, size);
            });
            match read {
                Ok(()) => checked.layers += 1,
                Err(error) => found.layers.push(error.to_string()),
            }
            checked.objects += named.len() as u64;
            for (digest, size) in named {
                self.check_object(digest, size, &mut found)?;
            }
            bad.add(&found);
            layers.insert(*layer, found);
        }
        let about = || {
            let name = record.names.first().map_or("", String::as_str);
            format!("image {} {name}", record.key().short())
        };
        if let Some(first) = &bad.first {
            let what =
                format!("{} of its objects are missing or have another size, such as {first}", bad.objects);
            checked.fault(about(), what, PULL_AGAIN);
        }
        for layer in &bad.layers {
            // Mounts go on by what the composefs image names.
            checked.fault(about(), layer.clone(), "pull the image again, which makes the record anew");
        }
        Ok(())
    }

    fn check_object(&self, digest: VerityDigest, size: u64, bad: &mut Bad) -> Result<(), StoreError> {
        let found = self.parts.objects.all().stat(&digest)?;
        if found.is_none_or(|found| found.size != size) {
            bad.objects += 1;
            bad.first.get_or_insert(digest);
        }
        Ok(())
    }

    fn check_volumes(
        &self,
        mounted: &MountedImages<'_>,
        listing: &Listing,
        checked: &mut Checked,
    ) -> Result<(), StoreError> {
        let here = keys(listing);
        let shown = mounted().map_err(StoreError::Blocked)?.all();
        // Those that cannot be read are among what is unknown.
        let volumes = self.parts.volumes.list(&mut Vec::new())?;
        let is_mounted = |volume: &VolumeImage| volume.composefs.is_none_or(|image| shown.contains(&image));
        for volume in volumes.iter().filter(|volume| self.parts.volumes.is_current(volume)) {
            if !is_mounted(volume) {
                checked.note(
                    format!("volume {}", volume.volume_id),
                    "its image is not mounted".to_owned(),
                    "it is being published, or somebody has unmounted it: then delete its pod",
                );
            }
            self.check_shown(volume, &here, checked)?;
        }
        Ok(())
    }

    /// The images that a volume shows, is made of, or has shown before and somebody may have open.
    fn check_shown(
        &self,
        volume: &VolumeImage,
        here: &HashSet<Digest>,
        checked: &mut Checked,
    ) -> Result<(), StoreError> {
        let own = ("shows", volume.image, volume.composefs);
        let members = volume.members.iter().map(|member| ("is made of", member.image, member.composefs));
        let earlier =
            volume.earlier.iter().map(|before| ("has shown before", before.image, before.composefs));
        for (how, image, composefs) in members.chain(earlier).chain([own]) {
            let is_lost = match composefs {
                Some(composefs) => !self.parts.contents().has_image(&composefs)?,
                None => false,
            };
            let about = format!("volume {}", volume.volume_id);
            if is_lost {
                let what = format!("the composefs image of {image}, which it {how}, is gone");
                checked.fault(about, what, PULL_AGAIN);
            } else if !here.contains(&image) {
                let what = format!("{image}, which it {how}, has no record");
                checked.note(
                    about,
                    what,
                    "what is mounted is kept by its own list of files; the next publish pulls it",
                );
            }
        }
        Ok(())
    }

    fn check_kept(&self, listing: &Listing, checked: &mut Checked) -> Result<(), StoreError> {
        let here = keys(listing);
        for pin in self.parts.pins.list_all()?.into_iter().filter(|pin| !here.contains(&pin.image)) {
            checked.note(
                format!("pin of {}", pin.image),
                "its image is not in the store".to_owned(),
                "pull it, or `composefs-csi unpin` it",
            );
        }
        for pin in self.parts.prefetched.list()?.into_iter().filter(|pin| !here.contains(&pin.image)) {
            checked.note(
                format!("prefetch {}", pin.owner),
                format!("its image {} is not in the store", pin.image),
                "the node plugin fetches it again as long as the ImagePrefetch exists",
            );
        }
        Ok(())
    }
}

fn keys(listing: &Listing) -> HashSet<Digest> {
    listing.images.iter().map(|image| image.record.key()).collect()
}

/// What is wrong with objects and layers.
#[derive(Debug, Default, Clone)]
struct Bad {
    objects: u64,
    first: Option<VerityDigest>,
    layers: Vec<String>,
}

impl Bad {
    fn add(&mut self, other: &Self) {
        self.objects += other.objects;
        self.first = self.first.or(other.first);
        self.layers.extend(other.layers.iter().cloned());
    }
}

impl Checked {
    fn unknown(&mut self, listing: &Listing, unknown: Vec<String>) {
        let unreadable = listing.unreadable.iter().map(ToString::to_string);
        for what in unreadable.chain(unknown) {
            self.fault("the store".to_owned(), what, UNKNOWN);
        }
    }

    fn fault(&mut self, about: String, what: String, remedy: &'static str) {
        self.findings.push(Finding { weight: Weight::Fault, about, what, remedy });
    }

    fn note(&mut self, about: String, what: String, remedy: &'static str) {
        self.findings.push(Finding { weight: Weight::Note, about, what, remedy });
    }
}
