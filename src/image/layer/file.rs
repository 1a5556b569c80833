//! Taking in a blob that is one file: blob digest and fs-verity digest in one pass, the content an object.
//!
//! ```text
//! chunks ─> [hash: count, blob digest] ─> [caller: fs-verity, object, record]
//! ```
//! The record has one entry. Its name and metadata mean nothing: the same bytes may be several files, in one artifact
//! and in many. So it is kept under [`file_id`] and not under a DiffID, since the same bytes may also be an
//! uncompressed archive in some image.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use bytes::Bytes;

use super::blob_reader::Blob;
use super::error::{LayerError, LayerFault};
use super::ingest::{LayerOutcome, join, spawn};
use super::record::RecordWriter;
use super::unpack::{Contents, GATHER_MAX};
use crate::image::entry::{EntryKind, INLINE_MAX, LayerEntry, Meta};
use crate::image::objects::{ObjectError, Objects, Put};
use crate::image::tar::{TarLimits, TarSubject};
use crate::oci::digest::{Digest, Hasher};
use crate::oci::limits::Budget;

/// Chunks that wait between the threads. A chunk has at most a few hundred KiB.
const CHUNKS: usize = 8;
/// The path of a record's one entry.
const NAME: &[u8] = b"content";

/// What stands for the DiffID of a blob that is one file. It is the digest of no archive.
pub fn file_id(blob: &Digest) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(b"composefs-csi: the blob as one file\0");
    hasher.update(blob.to_string().as_bytes());
    hasher.finish()
}

/// Takes a blob in as one file. Blocks, as [`super::ingest()`] does, and with the same arguments; the same invariants
/// hold. The outcome's DiffID is [`file_id`].
///
/// # Errors
/// The error names the blob. An object may have been stored.
pub fn ingest_file<W: Write>(
    blob: &Blob,
    chunks: impl Iterator<Item = Bytes> + Send,
    objects: &Objects,
    record: W,
    limits: &TarLimits,
    image: &Budget,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(LayerOutcome, W), LayerError> {
    pipeline(blob, chunks, objects, record, (limits, image), progress)
        .map_err(|fault| LayerError { blob: blob.digest, fault })
}

fn pipeline<W: Write>(
    blob: &Blob,
    chunks: impl Iterator<Item = Bytes> + Send,
    objects: &Objects,
    record: W,
    (limits, image): (&TarLimits, &Budget),
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(LayerOutcome, W), LayerFault> {
    // The size is known before anything is fetched.
    if blob.size > limits.bytes {
        return Err(LayerFault::TooLong(limits.bytes_cap.exceeded(blob.size, limits.bytes)));
    }
    image.take(blob.size).map_err(LayerFault::TooLong)?;
    let (hashed, to_store) = sync_channel(CHUNKS);
    let (stored, checked) = thread::scope(|scope| {
        let hash = spawn(scope, "layer-hash", move || hash(blob, chunks, &hashed, progress))?;
        let stored = store(blob.size, to_store, objects);
        Ok::<_, LayerFault>((stored, join(hash, "layer-hash")?))
    })?;
    // A blob that is not what the descriptor says explains more than what became of it.
    checked?;
    let (kind, put) = stored?;
    let mut contents = Contents { entries: 1, bytes: blob.size, ..Contents::default() };
    match put {
        Some(Put::Written) => {
            contents.new_objects = 1;
            contents.new_bytes = blob.size;
        }
        Some(Put::Present) => contents.shared_bytes = blob.size,
        None => {}
    }
    let mut record = RecordWriter::new(record);
    record.push(&LayerEntry { path: NAME.into(), meta: Meta::default(), kind })?;
    image.take_entry(record.bytes_in_full()).map_err(LayerFault::Entries)?;
    let diff_id = file_id(&blob.digest);
    let outcome = LayerOutcome { blob: blob.digest, diff_id, tar_bytes: blob.size, contents };
    Ok((outcome, record.finish()?))
}

/// The first thread: passes the chunks on, and compares size and digest with the descriptor.
fn hash(
    blob: &Blob,
    chunks: impl Iterator<Item = Bytes>,
    to: &SyncSender<Bytes>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), LayerFault> {
    let (mut hasher, mut got) = (Hasher::default(), 0);
    for chunk in chunks {
        got += chunk.len() as u64;
        if got > blob.size {
            return Err(LayerFault::Long { size: blob.size });
        }
        hasher.update(&chunk);
        progress(chunk.len() as u64);
        // The other thread ends early only if the disk fails, and has the error: the rest of the blob tells nothing.
        if to.send(chunk).is_err() {
            return Ok(());
        }
    }
    if got < blob.size {
        return Err(LayerFault::Short { got, size: blob.size });
    }
    match hasher.finish() {
        found if found == blob.digest => Ok(()),
        found => Err(LayerFault::Digest { found }),
    }
}

/// The second thread: stores the content.
fn store(
    size: u64,
    chunks: Receiver<Bytes>,
    objects: &Objects,
) -> Result<(EntryKind, Option<Put>), LayerFault> {
    let blame = |error: ObjectError| LayerFault::Object { entry: TarSubject::Entry(NAME.into()), error };
    if size <= GATHER_MAX {
        // Content that the store has already is never written.
        let mut content = Vec::new();
        for chunk in chunks {
            content.extend_from_slice(&chunk);
        }
        if size <= INLINE_MAX as u64 {
            return Ok((EntryKind::Inline(content.into()), None));
        }
        let (digest, put) = objects.put(&content).map_err(blame)?;
        return Ok((EntryKind::Object(digest, size), Some(put)));
    }
    let mut writer = objects.writer().map_err(blame)?;
    let mut got = 0;
    for chunk in chunks {
        got += chunk.len() as u64;
        writer.write(&chunk).map_err(blame)?;
    }
    // What is cut short would be an object that nothing names.
    if got < size {
        return Err(LayerFault::Short { got, size });
    }
    let (digest, put) = writer.finish().map_err(blame)?;
    Ok((EntryKind::Object(digest, size), Some(put)))
}

#[cfg(test)]
mod tests;
