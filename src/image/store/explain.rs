//! Explaining: what keeps each image, and which images have an object.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde::Serialize;

use super::contents::Source;
use super::gc::Need;
use super::inventory::Needs;
use super::mounted::MountedImages;
use super::parts::volumes::VolumeImage;
use super::{ImageRecord, PinNote, Store, StoreError, worth};
use crate::image::composefs::{self, ImageError};
use crate::image::entry::{EntryKind, LayerEntry};
use crate::image::verity::VerityDigest;
use crate::oci::digest::Digest;

/// Something that keeps an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "by", rename_all = "lowercase")]
pub enum Why {
    /// It is mounted.
    Mount,
    /// A volume shows it, or is made of it.
    Volume {
        /// The volume's id.
        id: String,
    },
    /// A pull or a publish that is under way.
    Hold,
    /// The operator.
    Pin(PinNote),
    /// A prefetch.
    Prefetch {
        /// Its unique id.
        owner: String,
    },
}

/// An image, and what keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The image.
    pub record: ImageRecord,
    /// When it was pulled or last published.
    pub last_used: SystemTime,
    /// What keeps it; empty if nothing does.
    pub kept: Vec<Why>,
    /// Bytes that its removal frees, if all goes before it that nothing keeps and that ranks before it. Zero of those that
    /// something keeps.
    pub frees: u64,
}

/// What an image has at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// What sort of thing it is, in words.
    pub shows: &'static str,
    /// The fs-verity digest of the object with a file's content, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Bytes of a file.
    pub bytes: u64,
}

impl Store {
    /// All images, least recently used first, each with all that keeps it. Blocking; reads every layer record once.
    /// What comes or goes meanwhile may be missing: it is for people, and decides nothing.
    ///
    /// # Errors
    /// [`StoreError::Blocked`] if it is unknown what is needed, and those of reading records.
    pub fn explain(&self, mounted: &MountedImages<'_>) -> Result<Vec<Explained>, StoreError> {
        let parts = &self.parts;
        // Before this process holds all that it looks at.
        let needs = Needs::read(parts, mounted)?;
        if !needs.unknown.is_empty() {
            return Err(StoreError::Blocked(needs.unknown.join("; ")));
        }
        let (_hold, listing) = self.hold_all_images()?;
        let volumes = parts.volumes.list(&mut Vec::new())?;
        let mut explained = Vec::new();
        for image in listing.images {
            let mut kept = Vec::new();
            for need in needs.all_of(&image.record) {
                self.add_reasons(need, &image.record.key(), &volumes, &mut kept)?;
            }
            explained.push(Explained { record: image.record, last_used: image.last_used, kept, frees: 0 });
        }
        let kept = explained.iter().filter(|image| !image.kept.is_empty()).map(|image| image.record.key());
        let valuation = worth::value(&parts.images, parts.contents(), &kept.collect())?;
        for image in explained.iter_mut().filter(|image| image.kept.is_empty()) {
            image.frees = valuation.of(&image.record.key()).1.bytes;
        }
        Ok(explained)
    }

    fn add_reasons(
        &self,
        need: Need,
        image: &Digest,
        volumes: &[VolumeImage],
        kept: &mut Vec<Why>,
    ) -> Result<(), StoreError> {
        match need {
            Need::Mount => kept.push(Why::Mount),
            Need::Hold => kept.push(Why::Hold),
            Need::Volume => {
                let shows = |volume: &&VolumeImage| {
                    volume.image == *image
                        || volume.members.iter().chain(&volume.earlier).any(|member| member.image == *image)
                };
                let ids = volumes.iter().filter(shows).map(|volume| volume.volume_id.clone());
                kept.extend(ids.map(|id| Why::Volume { id }));
            }
            Need::Pin => {
                let pins = self.parts.pins.list_all()?.into_iter();
                kept.extend(pins.filter(|pin| pin.image == *image).map(|pin| Why::Pin(pin.note)));
            }
            Need::Prefetch => {
                let pins = self.parts.prefetched.list()?.into_iter().filter(|pin| pin.image == *image);
                let owners: BTreeSet<String> = pins.map(|pin| pin.owner).collect();
                kept.extend(owners.into_iter().map(|owner| Why::Prefetch { owner }));
            }
        }
        Ok(())
    }

    /// The images that have an object, by their layers or as their composefs image. Blocking; reads every layer record.
    ///
    /// # Errors
    /// Those of reading records.
    pub fn owners(&self, object: &VerityDigest) -> Result<Vec<ImageRecord>, StoreError> {
        let (_hold, listing) = self.hold_all_images()?;
        let records: Vec<&ImageRecord> = listing.images.iter().map(|image| &image.record).collect();
        let owners = Source::owners(self.parts.contents(), &records, |digest| digest == object)?;
        let of_object = owners.into_values().flatten().filter_map(|index| records.get(index));
        Ok(of_object.map(|record| (*record).clone()).collect())
    }

    /// Where a composefs image shows an object: paths without a leading slash, hard links among them; at most `most`.
    /// Blocking; reads the composefs image.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn paths_of(
        &self,
        record: &ImageRecord,
        object: &VerityDigest,
        most: usize,
    ) -> Result<Vec<Box<[u8]>>, StoreError> {
        let mut paths: Vec<Box<[u8]>> = Vec::new();
        self.each_entry(record, |entry| {
            let is_wanted = match &entry.kind {
                EntryKind::Object(digest, _) => digest == object,
                EntryKind::Hardlink(first) => paths.contains(first),
                _ => false,
            };
            if is_wanted && paths.len() < most {
                paths.push(entry.path);
            }
        })?;
        Ok(paths)
    }

    /// What an image shows at a path without a leading slash; a hard link as the file that it is another name of.
    /// Blocking; reads the composefs image.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn shown_at(&self, record: &ImageRecord, path: &[u8]) -> Result<Option<Shown>, StoreError> {
        let mut found = None;
        self.each_entry(record, |entry| {
            if *entry.path == *path {
                found = Some(entry.kind);
            }
        })?;
        let (shows, object, bytes) = match found {
            None => return Ok(None),
            // A link comes after the file whose other name it is, which is never a link itself.
            Some(EntryKind::Hardlink(first)) if *first != *path => return self.shown_at(record, &first),
            Some(EntryKind::Object(digest, size)) => ("file", Some(digest), size),
            Some(EntryKind::Inline(content)) => ("file in the composefs image", None, content.len() as u64),
            Some(EntryKind::Directory) => ("directory", None, 0),
            Some(EntryKind::Symlink(_)) => ("symbolic link", None, 0),
            Some(_) => ("special file", None, 0),
        };
        Ok(Some(Shown { shows, object: object.map(|digest| digest.hex()), bytes }))
    }

    fn each_entry(
        &self,
        record: &ImageRecord,
        mut visit: impl FnMut(LayerEntry) + Send,
    ) -> Result<(), StoreError> {
        let bytes = self.parts.objects.read_whole(&record.image)?;
        let walked = composefs::each_entry(&bytes, b"", |entry| {
            visit(entry);
            Ok::<(), std::convert::Infallible>(())
        });
        let fail = |source: ImageError| StoreError::Composefs { manifest: record.key(), source };
        walked.map(|Ok(())| ()).map_err(fail)
    }
}
