//! Access records: who could read an image or a blob, and where it came from.
//!
//! ```text
//! <store>/access/<manifest hex>/<hash>.json   about an image: durable, and goes with the image's record
//! <store>/fetched/<blob hex>/<hash>.json      about a compressed blob: goes with the blob's DiffID
//! ```
//! One small file per fact, so that writing one needs no lock: the last writer wins, and all write the truth. The
//! hash is over origin and fact, which the file repeats and the node's key authenticates: a file that a power cut has
//! torn, or that another writer has made, is no record. Losing one costs a question to the registry, or a fetch. What
//! the records mean is [`crate::image::access`]'s business.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::image::store::disk::Disk;
use crate::image::store::error::StoreError;
use crate::image::store::file_name::{digest_of, json_of};
use crate::image::store::held::Held;
use crate::image::store::hold::Hold;
use crate::image::store::key::NodeKey;
use crate::image::store::record::{self, Record};
use crate::image::store::useless::Useless;
use crate::oci::CredentialId;
use crate::oci::digest::Digest;

/// What the name of a credential is a code for.
const READER: &str = "reader";

/// What an access record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessSubject<'a> {
    /// An image, by its manifest.
    Image(&'a Digest),
    /// A layer's compressed blob.
    Blob(&'a Digest),
}

/// A fact about an image or a blob at an origin.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "mark", content = "reader")]
pub enum AccessRecord {
    /// It came from the origin, or was proven to be the same as there.
    Origin,
    /// The operator pulled it from the origin.
    Preloaded,
    /// The origin gave it without credentials.
    Anonymous,
    /// The origin gave it to a credential, named by [`Access::reader`].
    Reader(String),
}

/// An access record as it is on disk.
#[derive(Serialize, Deserialize)]
struct WrittenAccess {
    about: Digest,
    origin: String,
    #[serde(flatten)]
    fact: AccessRecord,
    /// When, in seconds since 1970.
    at: u64,
}

impl Record for WrittenAccess {
    const DOMAIN: &'static str = "mark";
    const FORMAT: Option<u32> = Some(1);
}

/// The access records of a store.
#[derive(Debug)]
pub struct Access {
    disk: Disk,
    key: NodeKey,
    images: PathBuf,
    blobs: PathBuf,
}

impl Access {
    pub(in crate::image::store) const IMAGES: &str = "access";
    pub(in crate::image::store) const BLOBS: &str = "fetched";

    pub(in crate::image::store) fn new(disk: &Disk, key: &NodeKey) -> Self {
        let [images, blobs] = [Self::IMAGES, Self::BLOBS].map(|name| disk.root().join(name));
        Self { disk: disk.clone(), key: key.clone(), images, blobs }
    }

    /// When `fact` was recorded last, in seconds since 1970; `None` if it is not.
    ///
    /// # Errors
    /// Those of reading a file.
    pub fn time_of(
        &self,
        about: AccessSubject<'_>,
        origin: &str,
        fact: &AccessRecord,
    ) -> Result<Option<u64>, StoreError> {
        let path = self.directory_of(about).join(file_name(origin, fact));
        let Some(bytes) = self.disk.read(&path)? else { return Ok(None) };
        // The file may be one that was moved here.
        let found = self
            .decode(&bytes)
            .filter(|found| found.about == *about.digest() && found.origin == origin && found.fact == *fact);
        Ok(found.map(|found| found.at))
    }

    /// Records `fact`, at `at` seconds since 1970. A record about an image survives a power cut once this returns, one
    /// about a blob after the next commit. The hold keeps what is recorded about an image from the sweep, and so does the layer of a blob.
    ///
    /// # Errors
    /// Those of writing a file.
    pub fn record(
        &self,
        hold: &Hold,
        about: AccessSubject<'_>,
        origin: &str,
        fact: &AccessRecord,
        at: u64,
    ) -> Result<(), StoreError> {
        if let AccessSubject::Image(manifest) = about {
            hold.keep_blocking(&[Held::Manifest(*manifest)])?;
        }
        let (directory, name) = (self.directory_of(about), file_name(origin, fact));
        let written =
            WrittenAccess { about: *about.digest(), origin: origin.to_owned(), fact: fact.clone(), at };
        let bytes = record::encode(&written, &self.key)
            .map_err(|error| self.disk.error("encode", &directory.join(&name), error.into()))?;
        match about {
            AccessSubject::Image(_) => self.disk.write_durably_in(&directory, &name, &bytes),
            AccessSubject::Blob(_) => {
                // Losing it costs a fetch, which is no reason to wait for the disk at every layer.
                self.disk.make(&directory)?;
                self.disk.write_for_this_boot(&directory.join(name), &bytes)
            }
        }
    }

    /// Removes the records of readers of an image that were made before `at`: they count for nothing any more, and
    /// credentials that are renewed every few hours would leave one each time.
    ///
    /// # Errors
    /// Those of reading a directory and removing files.
    pub fn forget_readers(&self, manifest: &Digest, at: u64) -> Result<(), StoreError> {
        let directory = self.directory_of(AccessSubject::Image(manifest));
        for name in self.disk.list(&directory)? {
            let path = directory.join(name);
            let Some(bytes) = self.disk.read(&path)? else { continue };
            let old = |found: &WrittenAccess| matches!(found.fact, AccessRecord::Reader(_)) && found.at < at;
            if self.decode(&bytes).as_ref().is_some_and(old) {
                self.disk.remove(&path)?;
            }
        }
        Ok(())
    }

    /// What a credential is called in the records: without the node's key a weak password cannot be guessed from it.
    pub fn reader(&self, credential: &CredentialId) -> AccessRecord {
        AccessRecord::Reader(hex::encode(self.key.mac(READER, &[credential.hex().as_bytes()])))
    }

    /// Finds or removes the records about images that are gone.
    pub(in crate::image::store) fn sweep_images(
        &self,
        useless: &mut Useless,
        has_image: impl Fn(&Digest) -> bool,
    ) -> Result<(), StoreError> {
        useless.sweep_directories(&self.disk, &self.images, |name| {
            Ok(digest_of(name, "").is_none_or(|manifest| !has_image(&manifest)))
        })
    }

    /// The same about blobs.
    pub(in crate::image::store) fn sweep_blobs(
        &self,
        useless: &mut Useless,
        has_blob: impl Fn(&Digest) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        useless.sweep_directories(&self.disk, &self.blobs, |name| match digest_of(name, "") {
            Some(blob) => Ok(!has_blob(&blob)?),
            None => Ok(true),
        })
    }

    /// `None` for anything but a record.
    fn decode(&self, bytes: &[u8]) -> Option<WrittenAccess> {
        record::decode(bytes, &self.key).ok()
    }

    fn directory_of(&self, about: AccessSubject<'_>) -> PathBuf {
        let directory = match about {
            AccessSubject::Image(_) => &self.images,
            AccessSubject::Blob(_) => &self.blobs,
        };
        directory.join(about.digest().hex())
    }
}

/// What a record's file is called: a hash, since origins and readers are no file names.
fn file_name(origin: &str, fact: &AccessRecord) -> String {
    let (sort, reader) = match fact {
        AccessRecord::Origin => ("origin", ""),
        AccessRecord::Preloaded => ("preloaded", ""),
        AccessRecord::Anonymous => ("anonymous", ""),
        AccessRecord::Reader(reader) => ("reader", reader.as_str()),
    };
    json_of(&Digest::of(format!("{origin}\0{sort}\0{reader}").as_bytes()))
}

impl AccessSubject<'_> {
    fn digest(&self) -> &Digest {
        match self {
            Self::Image(digest) | Self::Blob(digest) => digest,
        }
    }
}

#[cfg(test)]
mod tests;
