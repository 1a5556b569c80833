//! Streams one blob through the blocking pipeline: from the registry, and from what an earlier pull has received of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::chunked::capture::Capture;
use super::chunked::list::list_contents;
use super::chunked::memory::TableMemory;
use super::chunked::words::{Given, Tables};
use super::error::About as _;
use super::layers::{ImageLayers, LayerFetcher, WantedLayer};
use super::metrics::{PullMetrics, Reuse};
use super::partial::{Feed, PartialFetch, Reader, Rest, Stopped};
use super::turns::{GaveWay, Turn};
use super::{PullError, background, blocking};
use crate::image::layer;
use crate::image::store::{Hold, Partial, PartialOf, Store};
use crate::kind::Kind;
use crate::oci::BlobStream;
use crate::oci::choice::Choice;
use crate::oci::digest::Digest;
use crate::oci::limits::{Budget, ImageLimits};
use crate::oci::manifest::{LayerCompression, LayerForm};

/// Compressed chunks that wait between the network and the decompressor. A chunk has at most a few hundred KiB, so
/// this bounds what one layer holds in memory.
const CHUNKS_IN_FLIGHT: usize = 8;

/// What an earlier pull has received of a blob, and where more of it goes.
struct Kept {
    partial: Arc<Partial>,
    /// Bytes of each piece.
    have: Vec<u64>,
}

impl Kept {
    fn bytes(&self) -> u64 {
        self.have.iter().sum()
    }
}

/// What an attempt begins with.
struct From {
    kept: Option<Kept>,
    /// All of the blob's bytes, on an answer that has come already.
    stream: Option<BlobStream>,
    tables: Tables,
}

/// Where the bytes come from.
enum Begin {
    /// An answer that has come already.
    Stream(BlobStream),
    /// The registry is asked, for what is not kept.
    Ask(Option<(Kept, Feed)>),
}

impl LayerFetcher {
    /// Streams one blob through the pipeline, which ends when there is no more, so a pull that is dropped leaves no thread
    /// behind. Where what was kept proves wrong, all is fetched anew, once. `given` is what the layer begins with.
    pub(super) async fn whole(
        &self,
        pull: &ImageLayers<'_>,
        layer: &WantedLayer<'_>,
        turn: &mut Turn<'_>,
        given: Given,
    ) -> Result<Digest, PullError> {
        let Given { mut stream, tables } = given;
        for may_try_again in [true, false] {
            // An answer that has come already is read on.
            let kept = if stream.is_some() { None } else { self.kept(pull, layer).await? };
            let partial = kept.as_ref().map(|kept| Arc::clone(&kept.partial));
            let bytes = kept.as_ref().map_or(0, Kept::bytes);
            layer.progress.keep(bytes);
            let from = From { kept, stream: stream.take(), tables: tables.clone() };
            let (outcome, unreadable) = self.attempt(turn, pull, layer, from).await?;
            let is_worth_keeping = match &outcome {
                Ok(_) => false,
                // What ends a pull is no fault of the bytes that came.
                Err(error) => {
                    matches!(error.kind(), Kind::Transient | Kind::Denied | Kind::Busy) && !unreadable
                }
            };
            if let (Some(partial), false) = (partial, is_worth_keeping) {
                // Before another attempt, and before the layer is used: a file that stays is collected some time.
                if let Err(error) = blocking(pull.image, move || partial.remove()).await? {
                    tracing::warn!(%error, "what was received of a layer stays until the next collection");
                }
            }
            match outcome {
                Err(error) if may_try_again && (unreadable || error.is_damage() && bytes > 0) => {
                    let blob = layer.part.blob.digest;
                    tracing::warn!(%blob, %error, "what was received of a layer earlier is wrong; fetching it anew");
                    layer.progress.restart();
                }
                Ok(diff_id) => {
                    self.metrics.saved(Reuse::Part, bytes);
                    return Ok(diff_id);
                }
                Err(error) => return Err(error),
            }
        }
        // Only the first of the two may be followed by another.
        Err(PullError::Lost { image: pull.image.to_owned(), why: "no attempt was left".to_owned() })
    }

    /// What is kept of the blob for this very credential, or a new file; `None` where there is none. Nothing that goes
    /// wrong with it is an error of the pull.
    async fn kept(&self, pull: &ImageLayers<'_>, layer: &WantedLayer<'_>) -> Result<Option<Kept>, PullError> {
        let (digest, size) = (layer.part.blob.digest, layer.part.blob.size);
        if !self.ranges.are_for(size) || !pull.source.has_ranges() {
            return Ok(None);
        }
        let (store, (origin, reader)) = (Arc::clone(&self.store), pull.rights.identity());
        let piece = self.ranges.piece();
        let open = move || {
            let reader = format!("{reader:?}");
            let of = PartialOf { blob: &digest, size, host: origin.host(), reader: &reader };
            store.partials().open(of, piece)
        };
        Ok(match blocking(pull.image, open).await? {
            Ok(Some((partial, have))) => {
                let kept = Kept { partial: Arc::new(partial), have };
                if kept.bytes() > 0 {
                    let bytes = kept.bytes();
                    tracing::info!(blob = %digest, bytes, size, "going on with a layer that an earlier pull had begun");
                }
                Some(kept)
            }
            Ok(None) => None,
            Err(error) => {
                tracing::info!(blob = %digest, %error, "what comes of the layer is not kept");
                None
            }
        })
    }

    /// One attempt, and whether what was kept could not be read.
    ///
    /// # Errors
    /// The pipeline is lost. Its own errors, and those of the source, are in the first part of the outcome.
    async fn attempt(
        &self,
        turn: &mut Turn<'_>,
        pull: &ImageLayers<'_>,
        layer: &WantedLayer<'_>,
        from: From,
    ) -> Result<(Result<Digest, PullError>, bool), PullError> {
        let From { kept, stream, tables } = from;
        let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let feed = kept.as_ref().map(|kept| Feed::new(&kept.partial));
        let (feed, reader) = feed.unzip();
        let damage = feed.as_ref().map(Feed::damage);
        let compression = match layer.part.form {
            LayerForm::Archive(compression) => compression,
            LayerForm::File | LayerForm::Nothing => LayerCompression::None,
        };
        let budget = Arc::new(pull.budget.attempt());
        let task = LayerPipeline {
            store: Arc::clone(&self.store),
            hold: pull.hold.clone(),
            image: pull.image.to_owned(),
            blob: layer::Blob { digest: layer.part.blob.digest, size: layer.part.blob.size, compression },
            form: layer.part.form,
            choice: layer.part.choice.clone(),
            key: layer.key,
            counter: layer.progress.counter(),
            metrics: self.metrics.clone(),
            limits: self.limits,
            budget: Arc::clone(&budget),
            tables: (tables, self.tables.clone()),
        };
        let pipeline = background(pull.image, move || task.run(reader, receiver));
        let begin = match stream {
            Some(stream) => Begin::Stream(stream),
            None => Begin::Ask(kept.zip(feed)),
        };
        let fed = self.feed(turn, pull, layer, begin, sender).await;
        let outcome = pipeline.outcome().await?;
        // The error of a broken stream explains more than that of the truncated layer which it causes.
        let outcome = fed.and(outcome);
        if outcome.is_err() {
            budget.give_back();
        }
        Ok((outcome, damage.is_some_and(|damage| damage.is_found())))
    }

    /// Feeds the pipeline until all has come, or it has ended. What it is fed through is gone then: it would wait for more.
    async fn feed(
        &self,
        turn: &mut Turn<'_>,
        pull: &ImageLayers<'_>,
        layer: &WantedLayer<'_>,
        begin: Begin,
        sender: mpsc::Sender<Bytes>,
    ) -> Result<(), PullError> {
        let gave_way = |GaveWay { rate }| PullError::GaveWay {
            image: pull.image.to_owned(),
            blob: layer.part.blob.digest,
            rate,
        };
        let count = |bytes| self.metrics.fetched.add(bytes);
        let rest = match begin {
            Begin::Stream(stream) => Rest::Stream(stream),
            Begin::Ask(None) => Rest::From(0),
            Begin::Ask(Some((Kept { partial, have }, feed))) => {
                let fetch = PartialFetch {
                    source: pull.source,
                    blob: &layer.part.blob,
                    partial,
                    have,
                    rules: self.ranges,
                    connections: &self.connections,
                    tenant: pull.rights.tenant(),
                    count: &count,
                };
                match fetch.run(turn, feed).await {
                    Ok(rest) => rest,
                    Err(Stopped::GaveWay(why)) => return Err(gave_way(why)),
                    Err(Stopped::Source(error)) => return Err(error).about(pull.image),
                }
            }
        };
        let mut bytes = match rest {
            Rest::Nothing => return Ok(()),
            Rest::Stream(stream) => stream,
            // A registry that does not answer keeps a slot no longer than one that sends nothing.
            Rest::From(offset) => {
                let opened =
                    turn.during(pull.source.blob_from(&layer.part.blob, offset)).await.map_err(gave_way)?;
                opened.about(pull.image)?
            }
        };
        while let Some(chunk) = turn.during(bytes.next()).await.map_err(gave_way)? {
            let chunk = chunk.about(pull.image)?;
            count(chunk.len() as u64);
            turn.took(chunk.len()).await.map_err(gave_way)?;
            if sender.send(chunk).await.is_err() {
                break; // The pipeline has failed, and its result says why.
            }
        }
        Ok(())
    }
}

/// The blocking half of fetching a layer. It owns everything that it needs.
struct LayerPipeline {
    store: Arc<Store>,
    hold: Hold,
    image: String,
    blob: layer::Blob,
    form: LayerForm,
    /// What of it is stored.
    choice: Choice,
    /// By what the store knows the blob.
    key: Digest,
    /// What is unpacked of the blob.
    counter: Arc<AtomicU64>,
    metrics: PullMetrics,
    limits: ImageLimits,
    budget: Arc<Budget>,
    /// What is known of its table of contents, and the memory for it.
    tables: (Tables, TableMemory),
}

impl LayerPipeline {
    /// Stores the layer, under the key of its choice, and returns the DiffID computed over it. The blob is what `kept` gives, and then `chunks`.
    fn run(self, kept: Option<Reader>, mut chunks: mpsc::Receiver<Bytes>) -> Result<Digest, PullError> {
        let image = &self.image;
        let received = std::iter::from_fn(|| chunks.blocking_recv());
        let mut chunks = kept.into_iter().flatten().chain(received).peekable();
        if chunks.peek().is_none() && self.blob.size > 0 {
            // Nothing is written for a registry that refuses: the first write of a pull waits for the disk.
            let fault = layer::LayerFault::Short { got: 0, size: self.blob.size };
            return Err(layer::LayerError { blob: self.blob.digest, fault }).about(image);
        }
        let objects = self.store.objects().under(&self.hold).about(image)?;
        let record = self.store.layers().stage(&self.hold).about(image)?;
        let mut capture = Capture::of(&self.tables.0);
        let chunks = chunks.inspect(|chunk| capture.see(chunk));
        let limits = layer::TarLimits::for_blob(&self.limits, self.blob.size);
        let (blob, budget) = (&self.blob, &self.budget);
        // What comes over the wire is counted where it comes from: some may be here from before.
        let count = |bytes| {
            self.counter.fetch_add(bytes, Ordering::Relaxed);
        };
        let taken = match self.form {
            LayerForm::Archive(_) => {
                let bounds = (&limits, &self.choice);
                layer::ingest_chosen(blob, chunks, &objects, record, bounds, budget, &count)
            }
            LayerForm::File | LayerForm::Nothing => {
                layer::ingest_file(blob, chunks, &objects, record, &limits, budget, &count)
            }
        };
        let (found, record) = taken.about(image)?;
        let id = self.choice.key(&found.diff_id);
        record.finish(&id, &self.key).about(image)?;
        self.metrics.saved(Reuse::Object, found.contents.shared_bytes);
        let (tables, memory) = self.tables;
        if let Some(toc) = capture.end(tables, &memory, self.limits.entries) {
            list_contents(&self.store, (&self.key, &id), &toc);
        }
        Ok(found.diff_id)
    }
}
