//! Marks: who could read an image or a blob, and where it came from.
//!
//! ```text
//! <store>/access/<manifest hex>/<hash>.json   about an image: durable, and goes with the image's record
//! <store>/fetched/<blob hex>/<hash>.json      about a compressed blob: goes with the blob's DiffID
//! ```
//! One small file per mark, so that setting one needs no lock: the last writer wins, and all write the truth. The
//! hash is over origin and mark, which the file repeats and the node's key authenticates: a file that a power cut has
//! torn, or that somebody else has written, is no mark. Losing one costs a question to the registry, or a fetch. What the marks mean is
//! [`crate::image::access`]'s business.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::layout::digest_of;
use super::{Lease, Store, StoreError};
use crate::oci::CredentialId;
use crate::oci::digest::Digest;

const FORMAT: u32 = 1;
/// The sorts of records, for their codes.
const MARK: &str = "mark";
const READER: &str = "reader";

/// What a mark is about.
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
    /// The origin gave it to somebody without credentials.
    Anonymous,
    /// The origin gave it to a credential, named by [`Store::reader`].
    Reader(String),
}

#[derive(Serialize, Deserialize)]
struct Written {
    format: u32,
    about: Digest,
    origin: String,
    #[serde(flatten)]
    mark: AccessRecord,
    /// When, in seconds since 1970.
    at: u64,
}

impl Store {
    /// When `mark` was set last, in seconds since 1970; `None` if it is not.
    ///
    /// # Errors
    /// Those of reading a file.
    pub fn access_time(
        &self,
        about: AccessSubject<'_>,
        origin: &str,
        mark: &AccessRecord,
    ) -> Result<Option<u64>, StoreError> {
        let path = self.marks_of(about).join(file_name(origin, mark));
        let Some(bytes) = self.disk.read(&path)? else { return Ok(None) };
        let found = self
            .parse_mark(&bytes)
            .filter(|found| found.about == *about.digest() && found.origin == origin && found.mark == *mark);
        Ok(found.map(|found| found.at))
    }

    /// Sets `mark`, at `at` seconds since 1970. That of an image survives a power cut once this returns; that
    /// of a blob after the next commit. The lease keeps away the sweep, which takes marks of what is not here.
    ///
    /// # Errors
    /// Those of writing a file.
    pub fn record_access(
        &self,
        _lease: &Lease,
        about: AccessSubject<'_>,
        origin: &str,
        mark: &AccessRecord,
        at: u64,
    ) -> Result<(), StoreError> {
        let (directory, name) = (self.marks_of(about), file_name(origin, mark));
        let written = Written {
            format: FORMAT,
            about: *about.digest(),
            origin: origin.to_owned(),
            mark: mark.clone(),
            at,
        };
        let bytes = serde_json::to_vec(&written)
            .map_err(|error| self.disk.error("encode", &directory.join(&name), error.into()))?;
        let sealed = self.key().seal_json(MARK, &bytes);
        match about {
            AccessSubject::Image(_) => self.disk.write_durably_in(&directory, &name, &sealed),
            AccessSubject::Blob(_) => {
                self.disk.make(&directory)?;
                self.disk.write_for_this_boot(&directory.join(name), &sealed)
            }
        }
    }

    /// Removes the marks of readers of an image that were set before `at`: they count for nothing any more, and
    /// credentials that are renewed every few hours would leave one each time.
    ///
    /// # Errors
    /// Those of reading a directory and removing files.
    pub fn forget_readers(&self, _lease: &Lease, manifest: &Digest, at: u64) -> Result<(), StoreError> {
        let directory = self.marks_of(AccessSubject::Image(manifest));
        for name in self.disk.list(&directory)? {
            let path = directory.join(name);
            let Some(bytes) = self.disk.read(&path)? else { continue };
            let old = |found: &Written| matches!(found.mark, AccessRecord::Reader(_)) && found.at < at;
            if self.parse_mark(&bytes).as_ref().is_some_and(old) {
                self.disk.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Removes the marks of what is not here any more, and the evidence. Exclusive.
    pub(super) fn sweep_marks(&self) -> Result<(), StoreError> {
        let is_here = |manifest: &Digest| {
            let path = self.layout.image(manifest);
            path.try_exists().map_err(|error| self.disk.error("look for", &path, error))
        };
        self.sweep_marks_in(&self.layout.access(), is_here)?;
        self.sweep_marks_in(&self.layout.evidence(), is_here)?;
        self.sweep_marks_in(&self.layout.fetched(), |blob| Ok(self.known_layer(blob)?.is_some()))
    }

    fn sweep_marks_in(
        &self,
        directory: &Path,
        is_here: impl Fn(&Digest) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        for name in self.disk.list(directory)? {
            let about = digest_of(&name, "");
            if about.as_ref().map(&is_here).transpose()? != Some(true) {
                let path = directory.join(name);
                self.disk.step("remove", &path, || fs::remove_dir_all(&path))?;
            }
        }
        Ok(())
    }

    /// What a credential is called in marks: nobody who reads them can guess a weak password without the node's key.
    pub fn reader(&self, credential: &CredentialId) -> AccessRecord {
        AccessRecord::Reader(hex::encode(self.key().mac(READER, &[credential.hex().as_bytes()])))
    }

    /// A mark; `None` for anything else.
    fn parse_mark(&self, bytes: &[u8]) -> Option<Written> {
        let written: Written = self.key().open_json(MARK, bytes)?;
        Some(written).filter(|written| written.format == FORMAT)
    }

    fn marks_of(&self, about: AccessSubject<'_>) -> PathBuf {
        let directory = match about {
            AccessSubject::Image(_) => self.layout.access(),
            AccessSubject::Blob(_) => self.layout.fetched(),
        };
        directory.join(about.digest().hex())
    }
}

/// What a mark's file is called: a hash, since places and readers are no file names.
fn file_name(origin: &str, mark: &AccessRecord) -> String {
    let (sort, reader) = match mark {
        AccessRecord::Origin => ("origin", ""),
        AccessRecord::Preloaded => ("preloaded", ""),
        AccessRecord::Anonymous => ("anonymous", ""),
        AccessRecord::Reader(reader) => ("reader", reader.as_str()),
    };
    let key = Digest::of(format!("{origin}\0{sort}\0{reader}").as_bytes());
    format!("{}.json", key.hex())
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
