//! The blobs of an artifact: streamed through the decompressor, and compared with their digests.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use tokio::sync::mpsc;

use crate::image::lazy::{Artifact, FirstList, LazyError, OffsetMap, PackedBlob};
use crate::image::objects::Objects;
use crate::image::store::{Hold, Store};
use crate::image::verity::VerityDigest;
use crate::oci::digest::{Digest, Hasher};
use crate::oci::limits::ImageLimits;
use crate::oci::manifest::Descriptor;
use crate::oci::{BlobStream, Source, SourceError};
use crate::pull::error::About as _;
use crate::pull::{PullError, background};

/// Chunks between the network and the decompressor, of a few hundred KiB at most.
const CHUNKS_IN_FLIGHT: usize = 4;
/// Bytes that are decompressed at a time.
const BUFFER: usize = 128 << 10;
const IMAGE: &str = "image";
const MAP: &str = "offset map";
const FIRST: &str = "list of first uses";

/// Fetches the map of an artifact; what it says is only within bounds. `image` is for messages. The inner error says why it
/// cannot be used.
///
/// # Errors
/// The source fails.
pub async fn fetch_map(
    source: &dyn Source,
    artifact: &Artifact,
    limits: &ImageLimits,
    image: &str,
) -> Result<Result<OffsetMap, LazyError>, PullError> {
    let (blob, limits, limit) = (artifact.map, *limits, OffsetMap::bytes_max(limits));
    if blob.unpacked > limit {
        return Ok(Err(LazyError::TooLarge { part: MAP, limit }));
    }
    let read = move |packed: &mut Chunks| -> Result<OffsetMap, Failed> {
        Ok(OffsetMap::read(blob.unpack(packed, MAP)?.into(), &limits)?)
    };
    fetch(source, &blob.to_fetch(), image, || -> Work<_> { Box::new(read) }).await
}

/// Fetches the list of first uses of an artifact; an empty one if it has none.
///
/// # Errors
/// As of [`fetch_map`].
pub(super) async fn fetch_first(
    source: &dyn Source,
    artifact: &Artifact,
    image: &str,
) -> Result<Result<FirstList, LazyError>, PullError> {
    let Some(blob) = artifact.first else { return Ok(Ok(FirstList::default())) };
    if blob.unpacked > FirstList::BYTES_MAX {
        return Ok(Err(LazyError::TooLarge { part: FIRST, limit: FirstList::BYTES_MAX }));
    }
    let read = move |packed: &mut Chunks| -> Result<FirstList, Failed> {
        Ok(FirstList::read(&blob.unpack(packed, FIRST)?)?)
    };
    fetch(source, &blob.to_fetch(), image, || -> Work<_> { Box::new(read) }).await
}

/// Fetches the composefs image of an artifact into the store, where `hold` keeps it, if its digest is the one that counts.
///
/// # Errors
/// As of [`fetch_map`], and those of the store.
pub(super) async fn fetch_image(
    (store, hold): (&Arc<Store>, &Hold),
    source: &dyn Source,
    artifact: &Artifact,
    image: &str,
) -> Result<Result<(), LazyError>, PullError> {
    let (blob, expected) = (artifact.image, artifact.seal.digest);
    let work = || -> Work<()> {
        let (store, hold, image) = (Arc::clone(store), hold.clone(), image.to_owned());
        Box::new(move |packed: &mut Chunks| {
            let objects = store.objects().under(&hold).about(&image)?;
            unpack_into(&objects, packed, &blob, expected, &image)
        })
    };
    fetch(source, &blob.to_fetch(), image, work).await
}

/// Decompresses an image to an object, if it is the one with this digest.
fn unpack_into(
    objects: &Objects,
    packed: &mut Chunks,
    blob: &PackedBlob,
    expected: VerityDigest,
    image: &str,
) -> Result<(), Failed> {
    let unreadable = |error: io::Error| LazyError::Malformed {
        part: IMAGE,
        why: format!("cannot be decompressed: {error}"),
    };
    let mut decoder = blob.decoder(packed).map_err(unreadable)?;
    let mut object = objects.expecting(&expected).about(image)?;
    let (mut buffer, mut size) = (vec![0; BUFFER], 0_u64);
    loop {
        let count = match decoder.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(error).into()),
        };
        size += count as u64;
        object.write(buffer.get(..count).unwrap_or_default()).about(image)?;
    }
    if size != blob.unpacked {
        let why = format!("has not the {} bytes that are stated", blob.unpacked);
        return Err(LazyError::Malformed { part: IMAGE, why }.into());
    }
    let finished = object.finish().about(image)?;
    Ok(finished.map(drop).map_err(|found| LazyError::OtherImage { part: IMAGE, found, expected })?)
}

/// What becomes of a blob's bytes, on a thread of its own.
pub(super) type Work<T> = Box<dyn FnOnce(&mut Chunks) -> Result<T, Failed> + Send>;

/// Why it came to nothing.
pub(super) enum Failed {
    Lazy(LazyError),
    Pull(PullError),
}

impl From<LazyError> for Failed {
    fn from(error: LazyError) -> Self {
        Self::Lazy(error)
    }
}

impl From<PullError> for Failed {
    fn from(error: PullError) -> Self {
        Self::Pull(error)
    }
}

/// Fetches a blob through the work that `work` makes. One that comes damaged is fetched once more.
pub(super) async fn fetch<T: Send + 'static>(
    source: &dyn Source,
    blob: &Descriptor,
    image: &str,
    work: impl Fn() -> Work<T>,
) -> Result<Result<T, LazyError>, PullError> {
    match fetch_once(source, blob, image, work()).await {
        Err(error) if error.is_damage() => {
            tracing::warn!(image.reference = image, %error, "it is fetched once more");
            fetch_once(source, blob, image, work()).await
        }
        outcome => outcome,
    }
}

async fn fetch_once<T: Send + 'static>(
    source: &dyn Source,
    blob: &Descriptor,
    image: &str,
    work: Work<T>,
) -> Result<Result<T, LazyError>, PullError> {
    let stream = source.blob(blob).await.about(image)?;
    let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
    let job = background(image, move || {
        let mut chunks = Chunks { receiver, chunk: Bytes::new(), hasher: Hasher::default() };
        let made = work(&mut chunks);
        (made, chunks.finish())
    });
    let fed = feed(stream, sender).await;
    let (made, actual) = job.outcome().await?;
    fed.about(image)?;
    // What was made of other bytes than those that are named says nothing about these.
    if actual != blob.digest {
        let (subject, expected) = (format!("blob {}", blob.digest), blob.digest);
        return Err(SourceError::WrongDigest { subject, expected, actual }).about(image);
    }
    match made {
        Ok(made) => Ok(Ok(made)),
        Err(Failed::Lazy(error)) => Ok(Err(error)),
        Err(Failed::Pull(error)) => Err(error),
    }
}

/// Sends the bytes on as they come: as many as the descriptor says.
async fn feed(mut stream: BlobStream, sender: mpsc::Sender<Bytes>) -> Result<(), SourceError> {
    while let Some(chunk) = stream.try_next().await? {
        if sender.send(chunk).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The bytes of a blob as they arrive, hashed.
pub(super) struct Chunks {
    receiver: mpsc::Receiver<Bytes>,
    chunk: Bytes,
    hasher: Hasher,
}

impl Chunks {
    /// Reads the rest. Returns the digest of all.
    fn finish(mut self) -> Digest {
        // What is left of the last chunk was hashed when it came.
        while let Some(chunk) = self.receiver.blocking_recv() {
            self.hasher.update(&chunk);
        }
        self.hasher.finish()
    }
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() {
            let Some(chunk) = self.receiver.blocking_recv() else { return Ok(&[]) };
            self.hasher.update(&chunk);
            self.chunk = chunk;
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, count: usize) {
        bytes::Buf::advance(&mut self.chunk, count);
    }
}

impl Read for Chunks {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(into.len());
        into[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}
