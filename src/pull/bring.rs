//! Bringing single objects of an image that is mounted already: those that readers wait for, and then those that are known
//! to be read first. Only what has a range in its layer comes so; the rest comes with the layers.
//!
//! The map is not believed: an object is stored under the digest that the image has for it, or not at all. Nothing here is an
//! error of the image, since the layers bring everything, whatever becomes of a range.

use std::collections::HashSet;
use std::io::{self, BufRead, Read};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::sync::mpsc;

use super::error::About as _;
use super::lazy::LazyImage;
use super::{PullError, background, blocking};
use crate::image::lazy::{Located, OffsetMap, Packing};
use crate::image::objects::Objects;
use crate::image::store::{Hold, Store};
use crate::image::verity::VerityDigest;
use crate::oci::manifest::Descriptor;
use crate::oci::{BlobStream, Ranged, Source, SourceError};

/// Objects that come at the same time.
const AT_ONCE: usize = 8;
/// Of these, how many that nobody waits for yet.
const AHEAD: usize = 4;
/// Wishes that are remembered. What is forgotten comes with its layer.
const WISHES: usize = 1024;
/// Chunks between the network and the decompressor, of a few hundred KiB at most.
const CHUNKS_IN_FLIGHT: usize = 4;
/// Bytes that are decompressed at a time.
const BUFFER: usize = 128 << 10;

/// Says which objects are waited for. Never waits.
#[derive(Debug, Clone)]
pub struct Wishes(mpsc::Sender<VerityDigest>);

impl Wishes {
    /// Somebody waits for the object.
    pub fn want(&self, object: &VerityDigest) {
        // Full: so much is waited for that the layers are as fast.
        let _ = self.0.try_send(*object);
    }
}

/// Brings objects of one image by ranges.
#[derive(Debug)]
pub struct Bring {
    from: Arc<From>,
    first: Vec<VerityDigest>,
    wishes: mpsc::Receiver<VerityDigest>,
}

/// Where the objects come from, and where they go.
#[derive(Debug)]
struct From {
    /// For messages.
    image: String,
    map: Arc<OffsetMap>,
    source: Arc<dyn Source>,
    store: Arc<Store>,
    hold: Hold,
}

impl Bring {
    /// Prepares to bring objects of `lazy` from `source`.
    pub(super) fn new(
        image: String,
        lazy: &LazyImage,
        source: &Arc<dyn Source>,
        store: &Arc<Store>,
    ) -> (Wishes, Self) {
        let (sender, wishes) = mpsc::channel(WISHES);
        let from = From {
            image,
            map: Arc::clone(&lazy.map),
            source: Arc::clone(source),
            store: Arc::clone(store),
            hold: lazy.hold.clone(),
        };
        let first = lazy.first.objects().to_vec();
        (Wishes(sender), Self { from: Arc::new(from), first, wishes })
    }

    /// Brings what is wished, and else what is read first. Ends when nobody can wish any more.
    pub async fn run(self) {
        let Self { from, first, mut wishes } = self;
        let mut ahead = first.into_iter();
        let (mut running, mut busy) = (FuturesUnordered::new(), HashSet::new());
        loop {
            while running.len() < AHEAD
                && let Some(object) = ahead.next()
            {
                if busy.insert(object) {
                    running.push(from.bring(object));
                }
            }
            tokio::select! {
                // Who waits goes first.
                biased;
                wish = wishes.recv(), if running.len() < AT_ONCE => match wish {
                    Some(object) if busy.insert(object) => running.push(from.bring(object)),
                    Some(_) => {}
                    None => return,
                },
                Some(object) = running.next() => {
                    busy.remove(&object);
                }
            }
        }
    }
}

impl From {
    /// Brings one object if it has a range, and returns it. What goes wrong is written to the log.
    async fn bring(&self, object: VerityDigest) -> VerityDigest {
        match self.try_to_bring(object).await {
            Ok(Some(bytes)) => tracing::debug!(%object, bytes, "an object came before its layer"),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(image.reference = self.image, %object, %error, "an object comes with its layer only");
            }
        }
        object
    }

    /// The bytes that came for it; `None` if it is here, or has no range.
    async fn try_to_bring(&self, object: VerityDigest) -> Result<Option<u64>, PullError> {
        let Some(located) = self.map.get(&object) else { return Ok(None) };
        let (Some(range), Some(layer)) = (located.range(), self.map.layers().get(located.layer)) else {
            return Ok(None);
        };
        let (store, size) = (Arc::clone(&self.store), located.size);
        let is_here = move || store.objects().contains(&object, size);
        if !self.source.has_ranges() || blocking(&self.image, is_here).await?.about(&self.image)? {
            return Ok(None);
        }
        let bytes = range.end.saturating_sub(range.start);
        let blob = Descriptor {
            media_type: String::new(),
            digest: layer.blob,
            size: layer.size,
            annotations: Default::default(),
        };
        let stream = match self.source.blob_range(&blob, range).await.about(&self.image)? {
            Ranged::Part(stream) => stream,
            Ranged::Whole(_) | Ranged::Refused(_) => return Ok(None),
        };
        let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let (store, hold, image) = (Arc::clone(&self.store), self.hold.clone(), self.image.clone());
        let packing = layer.packing;
        let job = background(&self.image, move || {
            let objects = store.objects().under(&hold).about(&image)?;
            store_content(&objects, &located, packing, Chunks { receiver, chunk: Bytes::new() }, &image)
        });
        let fed = feed(stream, sender).await;
        let stored = job.outcome().await?;
        fed.about(&self.image)?;
        stored?;
        Ok(Some(bytes))
    }
}

/// Stores what `range` holds, if it is the object.
fn store_content(
    objects: &Objects,
    located: &Located,
    packing: Packing,
    range: Chunks,
    image: &str,
) -> Result<(), PullError> {
    let lies = |why: String| PullError::NotThere { image: image.to_owned(), object: located.object, why };
    let mut content = located.content(packing, range).map_err(|error| lies(error.to_string()))?;
    let mut object = objects.expecting(&located.object).about(image)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => object.write(buffer.get(..count).unwrap_or_default()).about(image)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(lies(error.to_string())),
        }
    }
    match object.finish().about(image)? {
        Ok(_) => Ok(()),
        Err(found) => Err(lies(format!("what is there has the digest {found}"))),
    }
}

async fn feed(mut stream: BlobStream, sender: mpsc::Sender<Bytes>) -> Result<(), SourceError> {
    while let Some(chunk) = stream.try_next().await? {
        if sender.send(chunk).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The bytes of a range as they come.
struct Chunks {
    receiver: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() {
            let Some(chunk) = self.receiver.blocking_recv() else { return Ok(&[]) };
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
