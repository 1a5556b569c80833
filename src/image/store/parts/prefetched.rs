//! What prefetches keep: `prefetched/<owner>.<wish hex>.<image key hex>`, a file for each image that one has
//! brought.
//!
//! The file's content is the digest that the wish was resolved to. Files that cannot be read that way keep their image
//! all the same: their names say which.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::image::store::disk::Disk;
use crate::image::store::error::StoreError;
use crate::image::store::hold::Hold;
use crate::image::store::image_record::ImageRecord;
use crate::oci::digest::Digest;

/// Longest owner, in bytes; with two digests it fits into a file's name.
const OWNER_MAX: usize = 64;

/// What the prefetches of a store keep.
#[derive(Debug)]
pub struct Prefetched {
    disk: Disk,
    directory: PathBuf,
}

/// One image that a prefetch keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefetchPin {
    /// Whose it is: letters, digits and dashes, as Kubernetes' unique ids are.
    pub owner: String,
    /// For which of the owner's wishes it is.
    pub wish: Digest,
    /// The key of the image's record.
    pub image: Digest,
}

impl PrefetchPin {
    fn file_name(&self) -> String {
        format!("{}.{}.{}", self.owner, self.wish.hex(), self.image.hex())
    }

    fn of(name: &OsStr) -> Option<Self> {
        let mut parts = name.to_str()?.split('.');
        let (owner, wish, image) = (parts.next()?, parts.next()?, parts.next()?);
        let digest = |hex: &str| format!("sha256:{hex}").parse().ok();
        let whole = parts.next().is_none() && is_owner(owner);
        whole.then_some(Self { owner: owner.to_owned(), wish: digest(wish)?, image: digest(image)? })
    }
}

fn is_owner(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    !text.is_empty() && text.len() <= OWNER_MAX && text.chars().all(plain)
}

impl Prefetched {
    pub(in crate::image::store) const DIRECTORY: &str = "prefetched";

    pub(in crate::image::store) fn new(disk: &Disk) -> Self {
        Self { disk: disk.clone(), directory: disk.root().join(Self::DIRECTORY) }
    }

    /// Where they are.
    pub(in crate::image::store) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Keeps the image until [`Prefetched::remove`], durably; `target` is what the wish was resolved to. The image was read
    /// after it was noted in the hold. An owner by whose name no file can be called keeps nothing.
    pub(in crate::image::store) fn add(
        &self,
        _hold: &Hold,
        (owner, wish, target): (&str, Digest, Digest),
        image: &ImageRecord,
    ) -> Result<(), StoreError> {
        if !is_owner(owner) {
            return Ok(());
        }
        let pin = PrefetchPin { owner: owner.to_owned(), wish, image: image.key() };
        self.disk.write_durably(&self.path(&pin), target.to_string().as_bytes())
    }

    /// Lets an image go when nothing else needs it, durably.
    ///
    /// # Errors
    /// Those of removing a file.
    pub fn remove(&self, pin: &PrefetchPin) -> Result<(), StoreError> {
        self.disk.remove(&self.path(pin))?;
        self.disk.sync_directory(&self.directory)
    }

    /// All that is kept.
    ///
    /// # Errors
    /// Those of reading the directory.
    pub fn list(&self) -> Result<Vec<PrefetchPin>, StoreError> {
        let names = self.disk.files(&self.directory, |name| PrefetchPin::of(name).is_some())?;
        Ok(names.iter().filter_map(|name| PrefetchPin::of(name)).collect())
    }

    /// What the wish was resolved to when the image came; `None` if that cannot be told.
    ///
    /// # Errors
    /// Those of reading the file.
    pub fn target(&self, pin: &PrefetchPin) -> Result<Option<Digest>, StoreError> {
        let bytes = self.disk.read(&self.path(pin))?;
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok()))
    }

    fn path(&self, pin: &PrefetchPin) -> PathBuf {
        self.directory.join(pin.file_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_say_what_they_keep() {
        let pin = PrefetchPin {
            owner: "0b1a6a44-52c4-4f5a-9b2c-8d6d1b0f8e11".to_owned(),
            wish: Digest::of(b"wish"),
            image: Digest::of(b"image"),
        };
        let name = pin.file_name();
        assert_eq!(PrefetchPin::of(name.as_ref()), Some(pin));
        let others = [format!("{name}.x"), format!("../{name}"), name.replace('.', "-"), format!(".{name}")];
        for other in others {
            assert_eq!(PrefetchPin::of(other.as_ref()), None, "{other}");
        }
    }
}
