//! Taking a layer in: blob digest → decompression → DiffID → tar → objects and a record.
//!
//! ```text
//! chunks ─> [decompress: count, blob digest, inflate] ─> [hash: DiffID] ─> [caller: tar, fs-verity, objects, record]
//!                 ^──────────────────── empty buffers ─────────────────────────────┘
//! ```
//! Three threads, so that two or three cores are busy with one layer, and 1 MiB of buffers between them.
//!
//! Invariants:
//! * An outcome is returned only when every byte of the blob was read, its size and digest are those of
//!   the descriptor, and every byte of the decompressed stream went into the DiffID. Until then the
//!   objects may be stored (they are named by their content: nobody can be misled by them), but
//!   the record is the caller's to throw away.
//! * The error tells whose fault it is: where content is refused, the rest of the blob is read
//!   first, and if these are not the bytes that the descriptor means, *that* is the error.
//! * Whatever ends one thread ends all: each stops when its neighbour is gone. To cancel, end the
//!   chunks: the blob is then too short.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::{self, ScopedJoinHandle};

use bytes::Bytes;

use super::blob_reader::BlobReader;
use super::buffer_pool::{BUFFERS, BeltReader, fill};
use super::compression::{Decoder, MAGIC_LENGTH, settle};
use super::error::{LayerError, LayerFault};
use super::record::RecordWriter;
use super::unpack::{Contents, unpack};
use crate::image::objects::Objects;
use crate::image::tar::{Archive, Limits};
use crate::oci::digest::{Digest, Hasher};
use crate::oci::limits::{Budget, Exceeded};
use crate::oci::manifest::LayerCompression;

/// A layer's blob, as its descriptor states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// The digest of its bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// How they are compressed, from the media type.
    pub compression: LayerCompression,
}

/// A layer that was taken in completely, every promise of its descriptor checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerOutcome {
    /// The digest of the compressed bytes: the descriptor's, proven.
    pub blob: Digest,
    /// The digest of the decompressed stream. The caller holds it against the config's.
    pub diff_id: Digest,
    /// Length of the decompressed stream in bytes.
    pub tar_bytes: u64,
    /// What was in it.
    pub contents: Contents,
}

/// Takes a layer in. Blocks: not for an async thread. `chunks` is the blob in pieces of any size
/// (such as the receiving end of a bounded channel); it ends where the blob ends or the source
/// gives up. `record` receives the layer's record and is given back, complete but not synced.
/// What it unpacks to is counted in `image`, which all layers of an image share.
/// `progress` is told the number of compressed bytes each time some were taken.
///
/// # Errors
/// Names the blob, and the entry where it is one entry's fault. Objects may have been stored.
pub fn ingest<W: Write>(
    blob: &Blob,
    chunks: impl Iterator<Item = Bytes> + Send,
    objects: &Objects,
    record: W,
    limits: &Limits,
    image: &Budget,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(LayerOutcome, W), LayerError> {
    let reader = BlobReader::new(chunks, blob, progress);
    pipeline(blob, reader, objects, record, (limits, image))
        .map_err(|fault| LayerError { blob: blob.digest, fault })
}

fn pipeline<W: Write>(
    blob: &Blob,
    reader: BlobReader<'_, impl Iterator<Item = Bytes> + Send>,
    objects: &Objects,
    record: W,
    (limits, image): (&Limits, &Budget),
) -> Result<(LayerOutcome, W), LayerFault> {
    // Set by the last thread if knowing the blob's digest is of no use any more.
    let give_up = AtomicBool::new(false);
    let (full, to_hash) = sync_channel(BUFFERS);
    let (hashed, to_unpack) = sync_channel(BUFFERS);
    let (empty, to_fill) = channel();
    thread::scope(|scope| {
        let decompress = spawn(scope, "layer-inflate", || {
            decompress(blob, reader, (limits, image), &Filling { full, to_fill }, &give_up)
        })?;
        let hash = spawn(scope, "layer-diffid", move || diff_id(&to_hash, &hashed))?;

        let mut archive = Archive::new(BeltReader::new(to_unpack, empty), *limits);
        let mut record = RecordWriter::new(record);
        let unpacked = unpack(&mut archive, objects, &mut record);
        match &unpacked {
            Ok(_) => archive.into_source().drain(),
            Err(fault) => {
                give_up.store(!fault.blames_content(), Ordering::Relaxed);
                drop(archive);
            }
        }
        let (diff_id, tar_bytes) = join(hash, "layer-diffid")?;
        match (join(decompress, "layer-inflate")?, unpacked) {
            (Ok(()), Ok(contents)) => {
                let outcome = LayerOutcome { blob: blob.digest, diff_id, tar_bytes, contents };
                Ok((outcome, record.finish()?))
            }
            // The stream was cut short under the archive: what it says then is only a consequence.
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
    /// The blob's fault.
    Fault(LayerFault),
    /// Another thread ended first and knows why.
    NeighbourGone,
}

/// The first thread's ends of the pool.
struct Filling {
    full: SyncSender<Vec<u8>>,
    to_fill: Receiver<Vec<u8>>,
}

/// The first thread: reads the blob to its end and checks it, and sends what it decompresses to.
fn decompress(
    blob: &Blob,
    reader: BlobReader<'_, impl Iterator<Item = Bytes>>,
    bounds: (&Limits, &Budget),
    pool: &Filling,
    give_up: &AtomicBool,
) -> Result<(), Stopped> {
    let mut reader = reader;
    let compression = match reader.peek(MAGIC_LENGTH) {
        Ok(start) => settle(blob.compression, start),
        Err(_) => Ok(blob.compression), // too long: `verify` says so
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
        Pumped::Failed(error) => {
            Err(Stopped::Fault(decoder.source().verify().err().unwrap_or_else(|| failed(error))))
        }
        Pumped::TooLong(exceeded) => Err(Stopped::Fault(LayerFault::TooLong(exceeded))),
        Pumped::NeighbourGone if give_up.load(Ordering::Relaxed) => Err(Stopped::NeighbourGone),
        Pumped::NeighbourGone => match decoder.source().verify() {
            Err(fault) => Err(Stopped::Fault(fault)),
            Ok(()) => Err(Stopped::NeighbourGone),
        },
    }
}

enum Pumped {
    All,
    Failed(std::io::Error),
    TooLong(Exceeded),
    NeighbourGone,
}

fn pump(decoder: &mut impl std::io::Read, (limits, image): (&Limits, &Budget), pool: &Filling) -> Pumped {
    let mut total = 0u64;
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
        if let Err(exceeded) = image.take(buffer.len() as u64) {
            return Pumped::TooLong(exceeded);
        }
        if pool.full.send(buffer).is_err() {
            return Pumped::NeighbourGone;
        }
    }
}

/// The second thread: hashes the stream on its way.
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

fn spawn<'scope, T: Send + 'scope>(
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

fn join<T>(thread: ScopedJoinHandle<'_, T>, name: &'static str) -> Result<T, LayerFault> {
    thread.join().map_err(|_| LayerFault::Thread {
        name,
        what: "died; report this with the image's reference".into(),
        bug: true,
    })
}
