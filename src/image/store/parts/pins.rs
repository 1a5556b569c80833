//! Pins: `pins/<manifest hex>`, a file for each image that the operator keeps. It says why and how long.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::image::store::disk::Disk;
use crate::image::store::error::StoreError;
use crate::image::store::file_name::{digest_of, is_digest};
use crate::image::store::hold::Hold;
use crate::image::store::image_record::ImageRecord;
use crate::oci::digest::Digest;

/// Longest reason, in bytes.
pub const REASON_MAX: usize = 512;

/// The pins of a store.
#[derive(Debug)]
pub struct Pins {
    disk: Disk,
    directory: PathBuf,
}

/// Why an image is kept, and how long. A pin of an earlier release says neither.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PinNote {
    /// The operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was pinned, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// When the pin ends, seconds since 1970; without it, with `unpin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// One pin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pin {
    /// The image's key.
    pub image: Digest,
    /// What it says.
    #[serde(flatten)]
    pub note: PinNote,
    /// Whether its time is over, so that it keeps nothing.
    pub ended: bool,
}

impl PinNote {
    /// Whether the pin keeps its image no longer.
    fn has_ended(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.until.is_some_and(|until| until <= now)
    }
}

impl Pins {
    pub(in crate::image::store) const DIRECTORY: &str = "pins";

    pub(in crate::image::store) fn new(disk: &Disk) -> Self {
        Self { disk: disk.clone(), directory: disk.root().join(Self::DIRECTORY) }
    }

    /// Where they are.
    pub(in crate::image::store) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Keeps the image until the note's end or [`Pins::remove`], whatever happens; durably. `image` was read after it was
    /// noted in the hold, which keeps it from being removed before it is pinned. An image's earlier pin is replaced.
    ///
    /// # Errors
    /// Those of writing a file.
    pub(in crate::image::store) fn add(
        &self,
        _hold: &Hold,
        image: &ImageRecord,
        note: &PinNote,
    ) -> Result<(), StoreError> {
        // A note without words is an empty file, as in releases that knew no others.
        let nothing = *note == PinNote::default();
        let bytes = if nothing { Vec::new() } else { serde_json::to_vec(note).unwrap_or_default() };
        self.disk.write_durably(&self.path(&image.key()), &bytes)
    }

    /// Lets the image go when nothing else needs it; durably. Returns whether it was pinned.
    ///
    /// # Errors
    /// Those of removing a file.
    pub fn remove(&self, manifest: &Digest) -> Result<bool, StoreError> {
        let was_pinned = self.disk.remove(&self.path(manifest))?;
        self.disk.sync_directory(&self.directory)?;
        Ok(was_pinned)
    }

    /// The keys of the images that are kept.
    ///
    /// # Errors
    /// Those of reading the directory and the files.
    pub fn list(&self) -> Result<Vec<Digest>, StoreError> {
        Ok(self.list_all()?.into_iter().filter(|pin| !pin.ended).map(|pin| pin.image).collect())
    }

    /// All pins, also those whose time is over.
    ///
    /// # Errors
    /// Those of reading the directory and the files.
    pub fn list_all(&self) -> Result<Vec<Pin>, StoreError> {
        let names = self.disk.files(&self.directory, |name| is_digest(name, &[""]))?;
        let digests = names.iter().filter_map(|name| digest_of(name, ""));
        digests.filter_map(|image| self.read(image).transpose()).collect()
    }

    /// Whether the image is pinned.
    ///
    /// # Errors
    /// Those of reading the file.
    pub fn contains(&self, manifest: &Digest) -> Result<bool, StoreError> {
        Ok(self.read(*manifest)?.is_some_and(|pin| !pin.ended))
    }

    /// Removes the pins whose time is over and whose image `may_go` says has gone. Needs the store's exclusive lock. A pin that has ended by a clock that was ahead is in
    /// force again when the clock is right, as long as its image is here.
    pub(in crate::image::store) fn forget_ended(
        &self,
        may_go: impl Fn(&Digest) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        for pin in self.list_all()? {
            if pin.ended && may_go(&pin.image)? {
                self.disk.remove(&self.path(&pin.image))?;
            }
        }
        Ok(())
    }

    /// What cannot be read as a note keeps its image for good: the file's name says which.
    fn read(&self, image: Digest) -> Result<Option<Pin>, StoreError> {
        let Some(bytes) = self.disk.read(&self.path(&image))? else { return Ok(None) };
        let note: PinNote = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(Some(Pin { image, ended: note.has_ended(SystemTime::now()), note }))
    }

    fn path(&self, manifest: &Digest) -> PathBuf {
        self.directory.join(manifest.hex())
    }
}
