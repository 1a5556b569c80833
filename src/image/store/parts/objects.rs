//! The objects of a store, and the markers of those that no sync has covered.

mod enable_verity;

pub(in crate::image::store) use enable_verity::{Enabled, UNSEALED};

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::image::objects::{Arrivals, Objects};
use crate::image::store::disk::Disk;
use crate::image::store::error::StoreError;
use crate::image::store::hold::Hold;
use crate::image::store::markers::Markers;
use crate::image::verity::{VerityDigest, VerityHasher};

/// The objects of a store.
#[derive(Debug)]
pub struct StoredObjects {
    disk: Disk,
    objects: Objects,
    markers: Markers,
}

impl StoredObjects {
    pub(in crate::image::store) const DIRECTORY: &str = "objects";

    pub(in crate::image::store) fn new(disk: &Disk, objects: Objects, markers: Markers) -> Self {
        Self { disk: disk.clone(), objects, markers }
    }

    /// The objects, to write to under `hold`, which keeps each one that is put. The first call of a hold waits for the
    /// disk: the marker of its writes must be there before they are.
    ///
    /// # Errors
    /// [`StoreError::Unsound`] if what a power cut may have torn could not be removed when the store was opened, and those
    /// of writing the marker.
    pub fn under(&self, hold: &Hold) -> Result<Objects, StoreError> {
        hold.begin_writing(|| {
            // Here and not when the store is opened, which a full disk must not prevent.
            self.note_lack_of_verity()?;
            self.disk.room().look_next();
            match self.markers.of_other_boots()?.is_empty() {
                true => self.markers.make(),
                false => Err(StoreError::Unsound { store: self.root().to_owned() }),
            }
        })?;
        Ok(self.objects.kept_by(Arc::new(hold.clone())))
    }

    /// Tells `listener` of every object that this process writes, as long as the listener lives.
    pub fn tell(&self, listener: &Arc<dyn Arrivals>) {
        self.objects.tell(listener);
    }

    /// Where an object is, or would be.
    pub fn path(&self, digest: &VerityDigest) -> PathBuf {
        self.objects.path(digest)
    }

    /// Whether the object is here in full, as [`Objects::contains`]. Blocking.
    ///
    /// # Errors
    /// Those of statx(2) other than `ENOENT`.
    pub fn contains(&self, digest: &VerityDigest, size: u64) -> Result<bool, StoreError> {
        Ok(self.objects.contains(digest, size)?)
    }

    /// All bytes of an object, for what is held in memory whole: composefs images. Whether they are the right ones is for
    /// the caller to see. Blocking.
    ///
    /// # Errors
    /// The object is not here, and those of reading it.
    pub fn read_whole(&self, digest: &VerityDigest) -> Result<Vec<u8>, StoreError> {
        let path = self.path(digest);
        let mut bytes = Vec::new();
        let mut file = fs::File::from(self.objects.get(digest)?);
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        bytes.reserve_exact(usize::try_from(size).unwrap_or(0));
        file.read_to_end(&mut bytes).map_err(|error| self.error("read", &path, error))?;
        Ok(bytes)
    }

    /// Objects whose file has this inode number: one, or none. Blocking; reads all directories.
    ///
    /// # Errors
    /// Those of reading the directories.
    pub fn with_inode(&self, inode: u64) -> Result<Vec<VerityDigest>, StoreError> {
        let mut found = Vec::new();
        self.objects.for_each_inode(|digest, number| {
            if number == inode {
                found.push(digest);
            }
            Ok::<(), StoreError>(())
        })?;
        Ok(found)
    }

    /// Objects there are whose name ends in these 62 digits.
    pub fn with_last_digits(&self, digits: &str) -> Vec<VerityDigest> {
        let named = (0..=255u8).filter_map(|byte| VerityDigest::from_hex(&format!("{byte:02x}{digits}")));
        named.filter(|digest| matches!(self.objects.stat(digest), Ok(Some(_)))).collect()
    }

    /// Objects whose name begins with these hexadecimal digits; none if there are fewer than two. Blocking; reads one
    /// directory.
    ///
    /// # Errors
    /// Those of reading the directory.
    pub fn with_first_digits(&self, digits: &str) -> Result<Vec<VerityDigest>, StoreError> {
        let mut found = Vec::new();
        if let Some(byte) = digits.get(..2).and_then(|byte| u8::from_str_radix(byte, 16).ok()) {
            self.objects.for_each_of(byte, &mut |digest: VerityDigest, _| {
                if digest.hex().starts_with(digits) {
                    found.push(digest);
                }
                Ok::<(), StoreError>(())
            })?;
        }
        Ok(found)
    }

    /// The objects, to look at. Writing goes by way of [`StoredObjects::under`].
    pub(in crate::image::store) fn all(&self) -> &Objects {
        &self.objects
    }

    pub(in crate::image::store) fn markers(&self) -> &Markers {
        &self.markers
    }

    /// How many objects there are, and the bytes allocated for them. Blocking, one statx(2) per object.
    pub(in crate::image::store) fn total(&self) -> Result<(u64, u64), StoreError> {
        let (mut count, mut bytes) = (0, 0);
        self.objects.for_each(|digest| {
            count += 1;
            bytes += self.objects.stat(&digest)?.map_or(0, |stat| stat.allocated);
            Ok::<(), StoreError>(())
        })?;
        Ok((count, bytes))
    }

    /// The objects that are not `marked`.
    pub(in crate::image::store) fn list_unless(
        &self,
        marked: impl Fn(&VerityDigest) -> bool,
    ) -> Result<Vec<VerityDigest>, StoreError> {
        let mut garbage = Vec::new();
        self.objects.for_each(|digest| {
            if !marked(&digest) {
                garbage.push(digest);
            }
            Ok::<(), StoreError>(())
        })?;
        Ok(garbage)
    }

    /// Removes an object; returns whether it was there. Needs the store's exclusive lock.
    pub(in crate::image::store) fn remove(&self, digest: &VerityDigest) -> Result<bool, StoreError> {
        // A step for the tests' hook only: the removal has errors of its own.
        self.disk.step("remove an object of", self.disk.root(), || Ok(()))?;
        Ok(self.objects.remove(digest)?)
    }

    /// Whether an object's content hashes to its name.
    pub(in crate::image::store) fn is_whole(&self, digest: &VerityDigest) -> Result<bool, StoreError> {
        let mut file = fs::File::from(self.objects.get(digest)?);
        let mut hasher = VerityHasher::default();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finish() == *digest),
                Ok(count) => hasher.update(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A file with fs-verity and damaged blocks.
                Err(_) => return Ok(false),
            }
        }
    }

    /// The error of a step on an object.
    pub(in crate::image::store) fn error(
        &self,
        doing: &'static str,
        path: &Path,
        source: io::Error,
    ) -> StoreError {
        self.disk.error(doing, path, source)
    }

    fn root(&self) -> &Path {
        self.disk.root()
    }
}
