//! Image records on disk: finding, listing and using them. Writing is in `commit`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Timespec, Timestamps, UTIME_NOW};

use super::layout::digest_of;
use super::{ImageRecord, Store, StoreError};
use crate::oci::digest::Digest;

/// What the file name of a record ends in that a power cut tore. The next sweep removes it.
const TORN: &str = "torn";
/// And of one that this node did not write. It stays for whoever finds out where it comes from.
pub(super) const FORGED: &str = "forged";

/// An image and when it was last used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// What is known of it.
    pub record: ImageRecord,
    /// When it was pulled or last published.
    pub last_used: SystemTime,
}

/// What a listing found.
#[derive(Debug, Default)]
pub struct Listing {
    /// The images, least recently used first.
    pub images: Vec<StoredImage>,
    /// Records that cannot be read, and why. As long as there are any, nothing can be swept.
    pub unreadable: Vec<StoreError>,
}

impl Store {
    /// The record of the image with this manifest digest; `None` if it is not in the store. A torn
    /// record is none (it is put aside when the store is opened).
    ///
    /// # Errors
    /// [`StoreError::Future`], [`StoreError::Unauthentic`], and those of reading the file.
    pub fn image(&self, manifest: &Digest) -> Result<Option<ImageRecord>, StoreError> {
        let path = self.layout.image(manifest);
        let Some(bytes) = self.disk.read(&path)? else { return Ok(None) };
        match ImageRecord::parse(&path, manifest, &bytes, &self.key) {
            Ok(record) => Ok(Some(record)),
            Err(torn @ StoreError::Torn { .. }) => {
                tracing::warn!(error = %torn, "image record ignored");
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    /// As [`Store::image`], for whoever can pull the image again: a record that is not authentic is put aside, which
    /// is logged as an error, and then there is none.
    ///
    /// # Errors
    /// [`StoreError::Future`], and those of reading and renaming the file.
    pub fn image_or_aside(&self, manifest: &Digest) -> Result<Option<ImageRecord>, StoreError> {
        match self.image(manifest) {
            Err(StoreError::Unauthentic { path, what }) => {
                self.put_aside(&path, FORGED, &StoreError::Unauthentic { path: path.clone(), what })?;
                Ok(None)
            }
            other => other,
        }
    }

    /// Renames a record that is no good, so that nobody takes it for one.
    pub(super) fn put_aside(
        &self,
        path: &Path,
        extension: &str,
        error: &StoreError,
    ) -> Result<(), StoreError> {
        let aside: PathBuf = path.with_extension(extension);
        if extension == FORGED {
            tracing::error!(%error, aside = %aside.display(), "record put aside");
        } else {
            tracing::warn!(%error, aside = %aside.display(), "record put aside");
        }
        self.disk.step("put aside", path, || match std::fs::rename(path, &aside) {
            // Somebody else was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        })
    }

    /// Every image in the store, least recently used first. One that goes while this runs may
    /// or may not be listed.
    ///
    /// # Errors
    /// Those of reading the directory; a record that cannot be read is part of the answer.
    pub fn images(&self) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        for name in self.disk.list(&self.layout.images())? {
            let Some(manifest) = digest_of(&name, ".json") else { continue };
            match self.stored(&manifest) {
                Ok(Some(image)) => listing.images.push(image),
                Ok(None) => {}
                Err(error) => listing.unreadable.push(error),
            }
        }
        listing.images.sort_by_key(|image| (image.last_used, image.record.manifest));
        Ok(listing)
    }

    fn stored(&self, manifest: &Digest) -> Result<Option<StoredImage>, StoreError> {
        let path = self.layout.image(manifest);
        let Some(bytes) = self.disk.read(&path)? else { return Ok(None) };
        let record = ImageRecord::parse(&path, manifest, &bytes, &self.key)?;
        let used = std::fs::metadata(&path).and_then(|metadata| metadata.modified());
        match used {
            Ok(last_used) => Ok(Some(StoredImage { record, last_used })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.disk.error("inspect", &path, error)),
        }
    }

    /// Notes that the image is used now; the least recently used go first when space runs out.
    /// Survives this process, not a power cut.
    ///
    /// # Errors
    /// [`StoreError::NoImage`], and those of utimensat(2).
    pub fn touch(&self, manifest: &Digest) -> Result<(), StoreError> {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        let path = self.layout.image(manifest);
        let touched = File::open(&path).and_then(|file| Ok(rustix::fs::futimens(&file, &times)?));
        touched.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::NoImage(*manifest),
            _ => self.disk.error("touch", &path, error),
        })
    }

    /// Removes an image's record: it is pulled again. Whatever else is its, the sweep removes.
    ///
    /// # Errors
    /// Those of removing a file.
    pub fn forget(&self, manifest: &Digest) -> Result<(), StoreError> {
        let path = self.layout.image(manifest);
        self.disk.remove(&path)?;
        self.disk.sync_parent(&path)
    }

    /// Keeps the image until [`Store::unpin`], whatever happens.
    ///
    /// # Errors
    /// [`StoreError::NoImage`], and those of writing a file.
    pub fn pin(&self, manifest: &Digest) -> Result<(), StoreError> {
        // The lease keeps the image from being swept between the look and the pin.
        let _lease = self.lease_blocking()?;
        if self.image(manifest)?.is_none() {
            return Err(StoreError::NoImage(*manifest));
        }
        self.disk.write_durably(&self.layout.pin(manifest), b"")
    }

    /// Lets the image go when nothing else needs it. Returns whether it was pinned.
    ///
    /// # Errors
    /// Those of removing a file.
    pub fn unpin(&self, manifest: &Digest) -> Result<bool, StoreError> {
        let path = self.layout.pin(manifest);
        let was_pinned = self.disk.remove(&path)?;
        self.disk.sync_parent(&path)?;
        Ok(was_pinned)
    }

    /// The pinned images.
    ///
    /// # Errors
    /// Those of reading the directory.
    pub fn pins(&self) -> Result<Vec<Digest>, StoreError> {
        let names = self.disk.list(&self.layout.pins())?;
        Ok(names.iter().filter_map(|name| digest_of(name, "")).collect())
    }

    /// Puts torn and unauthentic image records aside, where nobody takes them for images. Exclusive.
    pub(super) fn set_bad_images_aside(&self) -> Result<(), StoreError> {
        for error in self.images()?.unreadable {
            match &error {
                StoreError::Torn { path, .. } => self.put_aside(path, TORN, &error)?,
                StoreError::Unauthentic { path, .. } => self.put_aside(path, FORGED, &error)?,
                _ => {
                    tracing::warn!(%error, "image record left alone; nothing can be swept until it is gone")
                }
            }
        }
        Ok(())
    }
}
