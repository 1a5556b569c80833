//! The DiffIDs of compressed blobs: `blobs/<blob hex>`.
//!
//! A file is one line, `sha256:<blob> sha256:<diffid> <code>`. The blob is repeated so that a block that a power cut
//! left from another file is not taken for the answer.

use std::path::PathBuf;

use crate::image::store::disk::Disk;
use crate::image::store::error::StoreError;
use crate::image::store::file_name::digest_of;
use crate::image::store::key::{MAC_LENGTH, NodeKey};
use crate::image::store::useless::Useless;
use crate::oci::digest::Digest;

/// What the codes of these lines are made for.
const DOMAIN: &str = "blob link";

/// The directory of these files.
#[derive(Debug)]
pub(super) struct BlobLinks {
    disk: Disk,
    key: NodeKey,
    directory: PathBuf,
}

impl BlobLinks {
    pub(super) fn new(disk: &Disk, key: &NodeKey, directory: PathBuf) -> Self {
        Self { disk: disk.clone(), key: key.clone(), directory }
    }

    /// The DiffID that `blob` was found to have.
    pub(super) fn get(&self, blob: &Digest) -> Result<Option<Digest>, StoreError> {
        let path = self.path(blob);
        let Some(bytes) = self.disk.read(&path)? else { return Ok(None) };
        match parse(&bytes, blob, &self.key) {
            BlobLink::Holds(diff_id) => Ok(Some(diff_id)),
            BlobLink::Torn => Ok(None),
            BlobLink::Unauthentic => {
                // Not put aside: the fetch that follows writes the right line over it.
                let error = StoreError::unauthentic(&path, format!("the DiffID of blob {blob}"));
                tracing::error!(%error, "blob is fetched again");
                Ok(None)
            }
        }
    }

    /// Records the DiffID of `blob`. Survives a power cut after the next commit.
    pub(super) fn set(&self, blob: &Digest, diff_id: &Digest) -> Result<(), StoreError> {
        self.disk.write_for_this_boot(&self.path(blob), render(blob, diff_id, &self.key).as_bytes())
    }

    /// Finds or removes the DiffIDs of blobs that are not `known` any more.
    pub(super) fn sweep(
        &self,
        useless: &mut Useless,
        known: impl Fn(&Digest) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        useless.sweep_files(&self.disk, &self.directory, |name| match digest_of(name, "") {
            Some(blob) => Ok(!known(&blob)?),
            None => Ok(true),
        })
    }

    fn path(&self, blob: &Digest) -> PathBuf {
        self.directory.join(blob.hex())
    }
}

/// What a file says.
enum BlobLink {
    /// The blob's DiffID.
    Holds(Digest),
    /// Not a line of this release: a power cut tore it, or an earlier release wrote it.
    Torn,
    /// This node did not write it.
    Unauthentic,
}

fn parse(bytes: &[u8], blob: &Digest, key: &NodeKey) -> BlobLink {
    let parts = || -> Option<(Digest, [u8; MAC_LENGTH])> {
        let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
        let mut words = line.split(' ');
        let about: Digest = words.next()?.parse().ok()?;
        let diff_id = words.next()?.parse().ok()?;
        let mut mac = [0; MAC_LENGTH];
        hex::decode_to_slice(words.next()?, &mut mac).ok()?;
        (about == *blob && words.next().is_none()).then_some((diff_id, mac))
    };
    match parts() {
        None => BlobLink::Torn,
        Some((diff_id, mac)) if key.verify(DOMAIN, &[blob.as_bytes(), diff_id.as_bytes()], &mac) => {
            BlobLink::Holds(diff_id)
        }
        Some(_) => BlobLink::Unauthentic,
    }
}

fn render(blob: &Digest, diff_id: &Digest, key: &NodeKey) -> String {
    let mac = key.mac(DOMAIN, &[blob.as_bytes(), diff_id.as_bytes()]);
    format!("{blob} {diff_id} {}\n", hex::encode(mac))
}
