//! Taking a layer in: blob digest → decompression → DiffID → tar → objects and a record.
//!
//! ```text
//! chunks ─> [decompress: count, blob digest, inflate] ─> [hash: DiffID] ─> [caller: tar, fs-verity, objects, record]
//!                 ^──────────────────── empty buffers ─────────────────────────────┘
//! ```
//! Three threads keep two or three cores busy with one layer. They share 1 MiB of buffers. A tar that is put together
//! from parts ([`ingest_tar()`]) takes the same way from the second thread on.
//!
//! Invariants:
//! * An outcome is returned only when every byte of the blob was read, its size and digest are those of
//!   the descriptor, and every byte of the decompressed stream went into the DiffID. Objects may be stored
//!   before that: they are named by their content, so they can do no harm. The record must not be used
//!   before that; on an error the caller drops it.
//! * The error names the cause. Where content is refused, the rest of the blob is read first. If its size or
//!   digest is wrong, *that* is the error.
//! * If one thread ends, all end: each stops when its neighbour is gone. To cancel, end the chunks: the
//!   blob is then too short.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::{self, ScopedJoinHandle};

use bytes::Bytes;

use super::blob_reader::{Blob, BlobReader};
use super::buffer_pool::{BUFFERS, PoolReader, fill};
use super::compression::{Decoder, MAGIC_LENGTH, detect};
use super::error::{LayerError, LayerFault};
use super::record::RecordWriter;
use super::unpack::{Contents, unpack};
use crate::image::objects::Objects;
use crate::image::tar::{Archive, TarLimits};
use crate::oci::choice::Choice;
use crate::oci::digest::{Digest, Hasher};
use crate::oci::limits::{Budget, Exceeded};

/// A layer that was taken in completely, with its size and digest checked against the descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerOutcome {
    /// The digest of the bytes that came: of the compressed ones, which is the descriptor's and was checked, or of the
    /// tar stream itself where it was put together from parts.
    pub blob: Digest,
    /// The digest of the decompressed stream. The caller compares it with the one in the config.
    pub diff_id: Digest,
    /// Length of the decompressed stream in bytes.
    pub tar_bytes: u64,
    /// What was in it.
    pub contents: Contents,
}

/// Takes a layer in. Blocks: not for an async thread. `chunks` is the blob in pieces of any size
/// (such as the receiving end of a bounded channel). It ends where the blob ends or the source
/// gives up. `record` receives the layer's record and is returned complete, but not synced.
/// The decompressed bytes are counted in `image`, which all layers of an image share.
/// `progress` is called with the number of compressed bytes each time some were read.
///
/// # Errors
/// The error names the blob, and the entry if one entry caused it. Objects may have been stored.
pub fn ingest<W: Write>(
    blob: &Blob,
    chunks: impl Iterator<Item = Bytes> + Send,
    objects: &Objects,
    record: W,
    limits: &TarLimits,
    image: &Budget,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(LayerOutcome, W), LayerError> {
    ingest_chosen(blob, chunks, objects, record, (limits, &Choice::default()), image, progress)
}

/// The same, storing only what `choice` takes: the other files are entries without content in the record
/// ([`EntryKind::LeftOut`](crate::image::entry::EntryKind::LeftOut)). All bytes are read and checked.
///
/// # Errors
/// Those of [`ingest`].
pub fn ingest_chosen<W: Write>(
    blob: &Blob,
    chunks: impl Iterator<Item = Bytes> + Send,
    objects: &Objects,
    record: W,
    (limits, choice): (&TarLimits, &Choice),
    image: &Budget,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(LayerOutcome, W), LayerError> {
    let reader = BlobReader::new(chunks, blob, progress);
    let source =
        |pool: &Filling, give_up: &AtomicBool| decompress(blob, reader, (limits, image), pool, give_up);
    let taken = pipeline(source, objects, record, (limits, image, choice));
    let (outcome, record) = taken.map_err(|fault| LayerError { blob: blob.digest, fault })?;
    Ok((LayerOutcome { blob: blob.digest, ..outcome }, record))
}

/// Takes in the tar stream of a layer whose blob was not read; `blob` is its name in errors. Whether the stream is the
/// layer's, its DiffID alone tells, which the caller must compare.
///
/// # Errors
/// Those of [`ingest`], and [`LayerFault::Source`] where `tar` fails.
pub fn ingest_tar<W: Write>(
    blob: &Digest,
    tar: impl Read + Send,
    objects: &Objects,
    record: W,
    limits: &TarLimits,
    image: &Budget,
) -> Result<(LayerOutcome, W), LayerError> {
    let mut tar = tar;
    let source = |pool: &Filling, _: &AtomicBool| match pump(&mut tar, (limits, image), pool) {
        Pumped::All => Ok(()),
        Pumped::Failed(error) => Err(Stopped::Fault(LayerFault::Source(error))),
        Pumped::TooLong(exceeded) => Err(Stopped::Fault(LayerFault::TooLong(exceeded))),
        Pumped::NeighbourGone => Err(Stopped::NeighbourGone),
    };
    let bounds = (limits, image, &Choice::default());
    pipeline(source, objects, record, bounds).map_err(|fault| LayerError { blob: *blob, fault })
}

fn pipeline<W: Write>(
    source: impl FnOnce(&Filling, &AtomicBool) -> Result<(), Stopped> + Send,
    objects: &Objects,
    record: W,
    (limits, image, choice): (&TarLimits, &Budget, &Choice),
) -> Result<(LayerOutcome, W), LayerFault> {
    // Set by the last thread if the rest of the blob need not be read to tell the cause of an error.
    let give_up = AtomicBool::new(false);
    let (full, to_hash) = sync_channel(BUFFERS);
    let (hashed, to_unpack) = sync_channel(BUFFERS);
    let (empty, to_fill) = channel();
    thread::scope(|scope| {
        let pool = Filling { full, to_fill };
        let give_up_flag = &give_up;
        let inflate = spawn(scope, "layer-inflate", move || source(&pool, give_up_flag))?;
        let hash = spawn(scope, "layer-diffid", move || diff_id(&to_hash, &hashed))?;

        let mut archive = Archive::new(PoolReader::new(to_unpack, empty), *limits);
        let mut record = RecordWriter::new(record);
        let unpacked = unpack(&mut archive, objects, &mut record, (image, choice));
        match &unpacked {
            Ok(_) => archive.into_source().drain(),
            // Dropping the archive ends the other threads, which then read the flag.
            Err(fault) => {
                give_up.store(!fault.blames_content(), Ordering::Relaxed);
                drop(archive);
            }
        }
        let (diff_id, tar_bytes) = join(hash, "layer-diffid")?;
        match (join(inflate, "layer-inflate")?, unpacked) {
            (Ok(()), Ok(contents)) => {
                let outcome = LayerOutcome { blob: diff_id, diff_id, tar_bytes, contents };
                Ok((outcome, record.finish()?))
            }
            // The stream was cut short under the archive, whose error is only a consequence.
            (Err(Stopped::Fault(fault)), _) => Err(fault),
            (_, Err(fault)) => Err(fault),
            (Err(Stopped::NeighbourGone), Ok(_)) => Err(LayerFault::Thread {
                name: "layer-inflate",
                what: "stopped early; report this with the image's reference".into(),
                bug: true,
            }),
        }
    })
}

/// Why the first thread ended before the blob did.
enum Stopped {
    /// Something is wrong with the blob.
    Fault(LayerFault),
    /// Another thread ended first, and has the error.
    NeighbourGone,
}

/// The first thread's ends of the buffer pool.
struct Filling {
    full: SyncSender<Vec<u8>>,
    to_fill: Receiver<Vec<u8>>,
}

/// The first thread: reads the blob to its end and checks it, and sends the decompressed bytes on.
fn decompress(
    blob: &Blob,
    reader: BlobReader<'_, impl Iterator<Item = Bytes>>,
    bounds: (&TarLimits, &Budget),
    pool: &Filling,
    give_up: &AtomicBool,
) -> Result<(), Stopped> {
    let mut reader = reader;
    let compression = match reader.peek(MAGIC_LENGTH) {
        Ok(start) => detect(blob.compression, start),
        // The blob is too long, which `verify` reports.
        Err(_) => Ok(blob.compression),
    };
    let compression = match compression {
        Ok(compression) => compression,
        Err(fault) => return Err(Stopped::Fault(reader.verify().err().unwrap_or(fault))),
    };
    let failed = |error| LayerFault::decompress(compression, error);
    let mut decoder = match Decoder::new(compression, reader) {
        Ok(decoder) => decoder,
        Err(error) => return Err(Stopped::Fault(failed(error))),
    };
    match pump(&mut decoder, bounds, pool) {
        Pumped::All => decoder.source().verify().map_err(Stopped::Fault),
        // Data that does not decompress: a wrong digest is the better explanation.
        Pumped::Failed(error) => {
            Err(Stopped::Fault(decoder.source().verify().err().unwrap_or_else(|| failed(error))))
        }
        Pumped::TooLong(exceeded) => Err(Stopped::Fault(LayerFault::TooLong(exceeded))),
        Pumped::NeighbourGone if give_up.load(Ordering::Relaxed) => Err(Stopped::NeighbourGone),
        // The archive was refused. The same applies.
        Pumped::NeighbourGone => match decoder.source().verify() {
            Err(fault) => Err(Stopped::Fault(fault)),
            Ok(()) => Err(Stopped::NeighbourGone),
        },
    }
}

/// Why [`pump`] ended.
enum Pumped {
    All,
    Failed(std::io::Error),
    TooLong(Exceeded),
    NeighbourGone,
}

/// Decompresses into the buffers of the pool, within the bounds.
fn pump(decoder: &mut impl Read, (limits, image): (&TarLimits, &Budget), pool: &Filling) -> Pumped {
    let mut total = 0u64;
    // Buffers are created on first use: a small layer needs few.
    let mut made = 0;
    loop {
        let mut buffer = if made < BUFFERS {
            made += 1;
            Vec::new()
        } else {
            match pool.to_fill.recv() {
                Ok(buffer) => buffer,
                Err(_) => return Pumped::NeighbourGone,
            }
        };
        if let Err(error) = fill(&mut buffer, &mut *decoder) {
            return Pumped::Failed(error);
        }
        if buffer.is_empty() {
            return Pumped::All;
        }
        total += buffer.len() as u64;
        if total > limits.bytes {
            return Pumped::TooLong(limits.bytes_cap.exceeded(total, limits.bytes));
        }
        // Once per buffer: the layers of an image share this counter.
        if let Err(exceeded) = image.take(buffer.len() as u64) {
            return Pumped::TooLong(exceeded);
        }
        if pool.full.send(buffer).is_err() {
            return Pumped::NeighbourGone;
        }
    }
}

/// The second thread: hashes the decompressed stream.
fn diff_id(from: &Receiver<Vec<u8>>, to: &SyncSender<Vec<u8>>) -> (Digest, u64) {
    let mut hasher = Hasher::default();
    let mut bytes = 0;
    while let Ok(buffer) = from.recv() {
        hasher.update(&buffer);
        bytes += buffer.len() as u64;
        if to.send(buffer).is_err() {
            break;
        }
    }
    (hasher.finish(), bytes)
}

pub(super) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, LayerFault> {
    thread::Builder::new().name(name.into()).spawn_scoped(scope, work).map_err(|error| LayerFault::Thread {
        name,
        what: format!("could not be started ({error}); raise the plugin's limit of processes"),
        bug: false,
    })
}

pub(super) fn join<T>(thread: ScopedJoinHandle<'_, T>, name: &'static str) -> Result<T, LayerFault> {
    thread.join().map_err(|_| LayerFault::Thread {
        name,
        what: "died; report this with the image's reference".into(),
        bug: true,
    })
}
