//! Layer records: by the DiffID computed here, staged until the image's sync has covered them.
//!
//! A file is a record ([`crate::image::layer::record`]) and the node key's code over its DiffID and its checksum: a
//! record that was altered, or put in the place of another layer's, ends in an error and not in an image.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::disk::Temp;
use super::images::FORGED;
use super::{Lease, MAC_LENGTH, NodeKey, Store, StoreError};
use crate::image::entry::Entry;
use crate::image::layer::record::CHECKSUM_LENGTH;
use crate::image::layer::{RecordError, RecordReader};
use crate::kind::Kind;
use crate::oci::digest::Digest;

/// The sorts of record, for their codes.
const LAYER: &str = "layer record";
const LINK: &str = "blob link";

impl Store {
    /// The DiffID of a compressed blob that was ingested before, if the layer's record (and so every
    /// object that it names) is still here. The caller holds a lease.
    ///
    /// # Errors
    /// Those of reading files.
    pub fn known_layer(&self, blob: &Digest) -> Result<Option<Digest>, StoreError> {
        let Some(diff_id) = self.blob(blob)? else { return Ok(None) };
        Ok(self.layer_path(&diff_id)?.map(|_| diff_id))
    }

    /// The DiffID that `blob` was found to have.
    pub(super) fn blob(&self, blob: &Digest) -> Result<Option<Digest>, StoreError> {
        let bytes = self.disk.read(&self.layout.blob(blob))?;
        let Some(bytes) = bytes else { return Ok(None) };
        match parse_link(&bytes, blob, &self.key) {
            Link::Holds(diff_id) => Ok(Some(diff_id)),
            Link::Damaged => Ok(None),
            Link::Foreign => {
                let path = self.layout.blob(blob);
                let error = StoreError::unauthentic(&path, format!("the DiffID of blob {blob}"));
                tracing::error!(%error, "blob is fetched again");
                Ok(None)
            }
        }
    }

    /// Where the record of a layer is, synced or staged.
    pub(super) fn layer_path(&self, diff_id: &Digest) -> Result<Option<PathBuf>, StoreError> {
        // The staged one first: a commit may move it meanwhile, and then the other directory has it.
        for path in [self.layout.staged(diff_id), self.layout.layer(diff_id)] {
            if path.try_exists().map_err(|error| self.disk.error("look for", &path, error))? {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// Reads a layer's entries as a stream. The caller holds a lease.
    ///
    /// # Errors
    /// [`StoreError::NoLayer`], and those of reading the record's head.
    pub fn layer(&self, diff_id: &Digest) -> Result<LayerEntries, StoreError> {
        for path in [self.layout.staged(diff_id), self.layout.layer(diff_id)] {
            match File::open(&path) {
                Ok(file) => return LayerEntries::open(file, path, *diff_id, &self.key),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.disk.error("open", &path, error)),
            }
        }
        Err(StoreError::NoLayer(*diff_id))
    }

    /// Puts a layer's record aside if reading it to its end shows that it is damaged or not authentic, so that the
    /// next pull fetches the layer again. Says whether it did.
    ///
    /// # Errors
    /// Those of reading and renaming the file.
    pub fn set_bad_layer_aside(&self, diff_id: &Digest) -> Result<bool, StoreError> {
        let Some(path) = self.layer_path(diff_id)? else { return Ok(false) };
        let read = self.layer(diff_id).and_then(|mut entries| entries.try_for_each(|entry| entry.map(drop)));
        match read {
            Err(error @ (StoreError::Unauthentic { .. } | StoreError::Layer { .. }))
                if error.kind() == Kind::Corrupt =>
            {
                self.put_aside(&path, FORGED, &error).map(|()| true)
            }
            Err(StoreError::NoLayer(_)) | Ok(()) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Starts a layer record. The objects that it names go through [`Store::objects`] under the same
    /// lease; dropped before [`StagedLayer::finish`], it leaves nothing.
    ///
    /// # Errors
    /// Those of creating a file.
    pub fn stage_layer<'a>(&'a self, lease: &'a Lease) -> Result<StagedLayer<'a>, StoreError> {
        Ok(StagedLayer { store: self, _lease: lease, temp: self.disk.temp()? })
    }
}

/// The entries of a layer. They are proven whole only once the iterator has ended without an error.
#[derive(Debug)]
pub struct LayerEntries {
    diff_id: Digest,
    path: PathBuf,
    reader: RecordReader<io::Take<File>>,
    mac: [u8; MAC_LENGTH],
    key: NodeKey,
}

impl LayerEntries {
    fn open(file: File, path: PathBuf, diff_id: Digest, key: &NodeKey) -> Result<Self, StoreError> {
        let fail = |source: RecordError| StoreError::Layer { diff_id, source };
        let length = file.metadata().map_err(|error| fail(error.into()))?.len();
        // Of a file that is too short for it, the record is too short as well.
        let record = length.saturating_sub(MAC_LENGTH as u64);
        let mut mac = [0; MAC_LENGTH];
        if record > 0 {
            file.read_exact_at(&mut mac, record).map_err(|error| fail(error.into()))?;
        }
        let reader = RecordReader::new(file.take(record)).map_err(fail)?;
        Ok(Self { diff_id, path, reader, mac, key: key.clone() })
    }

    /// What a record that has ended well is still to be held against.
    fn authenticate(&self) -> Result<(), StoreError> {
        let authentic = self
            .reader
            .checksum()
            .is_some_and(|checksum| self.key.verify(LAYER, &[self.diff_id.as_bytes(), &checksum], &self.mac));
        if authentic {
            Ok(())
        } else {
            Err(StoreError::unauthentic(&self.path, format!("the record of layer {}", self.diff_id)))
        }
    }
}

impl Iterator for LayerEntries {
    type Item = Result<Entry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.has_ended() {
            return None;
        }
        let fail = |source| StoreError::Layer { diff_id: self.diff_id, source };
        match self.reader.next() {
            Some(entry) => Some(entry.map_err(fail)),
            None => self.authenticate().err().map(Err),
        }
    }
}

/// A layer record being written.
#[derive(Debug)]
pub struct StagedLayer<'a> {
    store: &'a Store,
    _lease: &'a Lease,
    temp: Temp,
}

impl Write for StagedLayer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.temp.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl StagedLayer<'_> {
    /// Authenticates the record and gives it its name: the DiffID computed over the stream, to which the verified `blob`
    /// (which may be the same) was decompressed. Every object it names has been stored.
    ///
    /// # Errors
    /// Those of reading, renaming and writing a file.
    pub fn finish(mut self, diff_id: &Digest, blob: &Digest) -> Result<(), StoreError> {
        let store = self.store;
        // The sweep removes empty directories of this boot too, so it may have to be made again.
        let staging = store.layout.staging();
        store.disk.step("make", &staging, || fs::create_dir_all(&staging))?;
        self.authenticate(diff_id)?;
        // Also where there is a record already: this one is known to be good, and it is found first.
        self.temp.rename(&store.disk, &store.layout.staged(diff_id))?;
        if store.blob(blob)? != Some(*diff_id) {
            let line = render_link(blob, diff_id, &store.key);
            store.disk.write_for_this_boot(&store.layout.blob(blob), line.as_bytes())?;
        }
        Ok(())
    }

    /// Appends the code. A record ends with its checksum.
    fn authenticate(&mut self, diff_id: &Digest) -> Result<(), StoreError> {
        let file = &mut self.temp.file;
        let append = || {
            let end = file.metadata()?.len();
            let mut checksum = [0; CHECKSUM_LENGTH];
            file.read_exact_at(&mut checksum, end.saturating_sub(CHECKSUM_LENGTH as u64))?;
            let mac = self.store.key.mac(LAYER, &[diff_id.as_bytes(), &checksum]);
            file.write_all(&mac)
        };
        self.store.disk.step("authenticate", &self.temp.path, append)
    }
}

/// What a file of `blobs/` says.
enum Link {
    /// The blob's DiffID.
    Holds(Digest),
    /// What a power cut left, or an earlier release wrote.
    Damaged,
    /// A link that this node did not write.
    Foreign,
}

/// `sha256:<blob> sha256:<diffid> <code>`: the blob is repeated so that a block that a power cut left from
/// another file is not taken for the answer.
fn parse_link(bytes: &[u8], blob: &Digest, key: &NodeKey) -> Link {
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
        None => Link::Damaged,
        Some((diff_id, mac)) if key.verify(LINK, &[blob.as_bytes(), diff_id.as_bytes()], &mac) => {
            Link::Holds(diff_id)
        }
        Some(_) => Link::Foreign,
    }
}

fn render_link(blob: &Digest, diff_id: &Digest, key: &NodeKey) -> String {
    let mac = key.mac(LINK, &[blob.as_bytes(), diff_id.as_bytes()]);
    format!("{blob} {diff_id} {}\n", hex::encode(mac))
}
