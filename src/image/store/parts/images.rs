//! Image records: `images/<manifest hex>.json`. The file's mtime is when the image was last used.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW};

use crate::image::store::aside::Aside;
use crate::image::store::disk::Disk;
use crate::image::store::error::StoreError;
use crate::image::store::file_name::{digest_of, is_digest, json_of};
use crate::image::store::image_record::{ImageRecord, Variant};
use crate::image::store::key::NodeKey;
use crate::oci::digest::Digest;

/// Within this time a use of an image is not noted again: a small part of what a collection tells apart.
const FRESH: Duration = Duration::from_secs(10);

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

/// Which of a file's states was seen: its inode, and when that was changed. Uses of an image change it, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image::store) struct Stamp(u64, i64, i64);

/// What a listing of changed records found.
#[derive(Debug, Default)]
pub(in crate::image::store) struct Changed {
    pub(in crate::image::store) images: Vec<(ImageRecord, Stamp)>,
    /// Records that cannot be read, and why.
    pub(in crate::image::store) unreadable: Vec<StoreError>,
}

/// The image records of a store.
#[derive(Debug)]
pub struct Images {
    disk: Disk,
    key: NodeKey,
    directory: PathBuf,
    /// Held while a record is written, so that a change of one is not lost to another. Another process might still
    /// lose a variant, which is then built again.
    writing: Mutex<()>,
}

impl Images {
    pub(in crate::image::store) const DIRECTORY: &str = "images";

    pub(in crate::image::store) fn new(disk: &Disk, key: &NodeKey) -> Self {
        let directory = disk.root().join(Self::DIRECTORY);
        Self { disk: disk.clone(), key: key.clone(), directory, writing: Mutex::default() }
    }

    /// The record of the image with this manifest digest; `None` if it is not in the store. A torn
    /// record counts as none (it is put aside when the store is opened).
    ///
    /// # Errors
    /// [`StoreError::Future`], [`StoreError::Unauthentic`], and those of reading the file.
    pub fn get(&self, manifest: &Digest) -> Result<Option<ImageRecord>, StoreError> {
        match self.read(manifest) {
            Err(torn @ StoreError::Torn { .. }) => {
                tracing::warn!(error = %torn, "image record ignored");
                Ok(None)
            }
            other => other,
        }
    }

    /// As [`Images::get`], for a caller that can pull the image again: a record that is not authentic is put aside,
    /// which is logged as an error, and then there is none.
    ///
    /// # Errors
    /// [`StoreError::Future`], and those of reading and renaming the file.
    pub fn get_or_set_aside(&self, manifest: &Digest) -> Result<Option<ImageRecord>, StoreError> {
        match self.get(manifest) {
            Err(error @ StoreError::Unauthentic { .. }) => {
                self.disk.put_aside(&self.path(manifest), Aside::Forged, &error)?;
                Ok(None)
            }
            other => other,
        }
    }

    /// Every image in the store, least recently used first. One that goes while this runs may
    /// or may not be listed.
    ///
    /// # Errors
    /// Those of reading the directory; a record that cannot be read is part of the answer.
    pub fn list(&self) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        for manifest in self.manifests()? {
            match self.stored(&manifest) {
                Ok(Some(image)) => listing.images.push(image),
                Ok(None) => {}
                Err(error) => listing.unreadable.push(error),
            }
        }
        // By manifest as well: mtimes may be equal, and what each image frees is reckoned in this order.
        listing.images.sort_by_key(|image| (image.last_used, image.record.key()));
        Ok(listing)
    }

    /// The images whose records have changed since they were `seen`, and the records that cannot be read. The caller
    /// adds to `seen` what it is done with.
    ///
    /// # Errors
    /// Those of reading the directory.
    pub(in crate::image::store) fn list_changed(
        &self,
        seen: &HashMap<Digest, Stamp>,
    ) -> Result<Changed, StoreError> {
        let mut found = Changed::default();
        for manifest in self.manifests()? {
            // Before the record is read: one that is replaced meanwhile has changed again.
            let Some(stamp) = self.stamp(&manifest)? else { continue };
            if seen.get(&manifest) == Some(&stamp) {
                continue;
            }
            match self.read(&manifest) {
                Ok(record) => found.images.extend(record.map(|record| (record, stamp))),
                Err(error) => found.unreadable.push(error),
            }
        }
        Ok(found)
    }

    /// Where they are.
    pub(in crate::image::store) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Notes that the image is used now; the least recently used go first when space runs out.
    /// Survives this process, not a power cut.
    ///
    /// # Errors
    /// [`StoreError::NoImage`], and those of utimensat(2).
    pub fn touch(&self, manifest: &Digest) -> Result<(), StoreError> {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        let path = self.path(manifest);
        let touched = File::open(&path).and_then(|file| Ok(rustix::fs::futimens(&file, &times)?));
        touched.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::NoImage(*manifest),
            _ => self.disk.error("touch", &path, error),
        })
    }

    /// [`Images::touch`], unless it was noted in the last seconds: thirty pods that start at once would make as many
    /// transactions of the filesystem, and the collector read the record anew for each. A record from the future is
    /// touched: the clock was set back.
    ///
    /// # Errors
    /// The same.
    pub fn touch_if_stale(&self, manifest: &Digest) -> Result<(), StoreError> {
        let used = fs::metadata(self.path(manifest)).and_then(|found| found.modified());
        let age = used.ok().and_then(|used| SystemTime::now().duration_since(used).ok());
        if age.is_some_and(|age| age < FRESH) { Ok(()) } else { self.touch(manifest) }
    }

    /// Notes that images are used now which by their records were used in the future: a clock was ahead, and would keep them
    /// until then.
    ///
    /// # Errors
    /// Those of reading the directory and of utimensat(2).
    pub(in crate::image::store) fn touch_future(&self, now: SystemTime) -> Result<(), StoreError> {
        for manifest in self.manifests()? {
            let used = fs::metadata(self.path(&manifest)).and_then(|found| found.modified());
            if used.is_ok_and(|used| used > now + FRESH) {
                tracing::warn!(image.digest = %manifest, "the image was used in the future: a clock was ahead");
                match self.touch(&manifest) {
                    // Removed meanwhile.
                    Err(StoreError::NoImage(_)) => {}
                    touched => touched?,
                }
            }
        }
        Ok(())
    }

    /// Removes an image's record, durably: the image is pulled again. The sweep removes what only this image had.
    ///
    /// # Errors
    /// Those of removing a file.
    pub fn forget(&self, manifest: &Digest) -> Result<(), StoreError> {
        self.remove(manifest)?;
        self.sync()
    }

    /// The manifests of all records, readable or not.
    pub(in crate::image::store) fn manifests(&self) -> Result<Vec<Digest>, StoreError> {
        let names = self.disk.files(&self.directory, is_record)?;
        Ok(names.iter().filter_map(|name| digest_of(name, ".json")).collect())
    }

    /// Writes a record, durably, replacing an older one.
    pub(in crate::image::store) fn write(&self, record: &ImageRecord) -> Result<(), StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_alone(record)
    }

    /// Adds a variant to a record, durably, in the place of one by the same rules; returns the new record.
    pub(in crate::image::store) fn add_variant(
        &self,
        manifest: &Digest,
        variant: Variant,
    ) -> Result<ImageRecord, StoreError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut record = self.get(manifest)?.ok_or(StoreError::NoImage(*manifest))?;
        record.variants.retain(|old| old.rules != variant.rules);
        record.variants.push(variant);
        self.write_alone(&record)?;
        Ok(record)
    }

    fn write_alone(&self, record: &ImageRecord) -> Result<(), StoreError> {
        let path = self.path(&record.key());
        let bytes =
            record.render(&self.key).map_err(|error| self.disk.error("encode", &path, error.into()))?;
        self.disk.write_durably(&path, &bytes)
    }

    /// Removes a record, to be followed by [`Images::sync`].
    pub(in crate::image::store) fn remove(&self, manifest: &Digest) -> Result<(), StoreError> {
        self.disk.remove(&self.path(manifest)).map(drop)
    }

    pub(in crate::image::store) fn sync(&self) -> Result<(), StoreError> {
        self.disk.sync_directory(&self.directory)
    }

    /// Puts torn and unauthentic records aside. Needs the store's exclusive lock.
    pub(in crate::image::store) fn set_bad_aside(&self) -> Result<(), StoreError> {
        for error in self.list()?.unreadable {
            match &error {
                StoreError::Torn { path, .. } => self.disk.put_aside(path, Aside::Torn, &error)?,
                StoreError::Unauthentic { path, .. } => self.disk.put_aside(path, Aside::Forged, &error)?,
                // A later release's, or one that cannot be read: it may be good.
                _ => {
                    tracing::warn!(%error, "image record left alone; nothing can be swept until it is gone")
                }
            }
        }
        Ok(())
    }

    /// The files of records that were put aside because they are not authentic.
    pub(in crate::image::store) fn forged(&self) -> Result<Vec<OsString>, StoreError> {
        let names = self.disk.files(&self.directory, is_record)?.into_iter();
        let suffix = format!(".{}", Aside::Forged.extension());
        Ok(names.filter(|name| digest_of(name, &suffix).is_some()).collect())
    }

    /// Removes the torn records that were put aside. Needs the store's exclusive lock.
    pub(in crate::image::store) fn sweep_torn(&self) -> Result<(), StoreError> {
        let suffix = format!(".{}", Aside::Torn.extension());
        for name in self.disk.files(&self.directory, is_record)? {
            if digest_of(&name, &suffix).is_some() {
                self.disk.remove(&self.directory.join(name))?;
            }
        }
        Ok(())
    }

    fn read(&self, manifest: &Digest) -> Result<Option<ImageRecord>, StoreError> {
        let path = self.path(manifest);
        let Some(bytes) = self.disk.read(&path)? else { return Ok(None) };
        ImageRecord::parse(&path, manifest, &bytes, &self.key).map(Some)
    }

    fn stamp(&self, manifest: &Digest) -> Result<Option<Stamp>, StoreError> {
        let path = self.path(manifest);
        match std::fs::metadata(&path) {
            Ok(found) => Ok(Some(Stamp(found.ino(), found.ctime(), found.ctime_nsec()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.disk.error("inspect", &path, error)),
        }
    }

    /// The image with the time of its last use; `None` if it has no record.
    pub(in crate::image::store) fn stored(
        &self,
        manifest: &Digest,
    ) -> Result<Option<StoredImage>, StoreError> {
        let Some(record) = self.read(manifest)? else { return Ok(None) };
        let path = self.path(manifest);
        let used = std::fs::metadata(&path).and_then(|metadata| metadata.modified());
        match used {
            Ok(last_used) => Ok(Some(StoredImage { record, last_used })),
            // Removed between the two calls.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.disk.error("inspect", &path, error)),
        }
    }

    fn path(&self, manifest: &Digest) -> PathBuf {
        self.directory.join(json_of(manifest))
    }
}

/// Whether an image's record may be called so, or one that was put aside.
fn is_record(name: &OsStr) -> bool {
    is_digest(name, &[".json", ".torn", ".forged"])
}
