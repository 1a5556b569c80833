//! Fetching the parts of one image: in parallel, each blob once, each checked as it streams.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc;

use super::busy::Occupied;
use super::chunked::capture::Capture;
use super::chunked::list::list_contents;
use super::chunked::memory::TableMemory;
use super::chunked::settings::PartialPulls;
use super::chunked::words::{Given, Parted, Tables};
use super::error::{About as _, WrongDiffId};
use super::metrics::{PullMetrics, Reuse};
use super::progress::{LayerProgress, LayerState, Progress};
use super::recipe::{self, Part};
use super::rights::Rights;
use super::turns::{GaveWay, Turn, TurnRules, Turns};
use super::{PullError, blocking};
use crate::image::access::Origin;
use crate::image::layer;
use crate::image::store::{AccessRecord, Held, Hold, Store};
use crate::oci::Source;
use crate::oci::digest::Digest;
use crate::oci::limits::{Budget, ImageLimits};
use crate::oci::manifest::{LayerCompression, LayerForm};

/// Compressed chunks that wait between the network and the decompressor. A chunk has at most a few hundred KiB, so
/// this bounds what one layer holds in memory.
const CHUNKS_IN_FLIGHT: usize = 8;

/// What all pulls of a node share: the store, and the limits on what runs at once.
#[derive(Debug)]
pub(super) struct LayerFetcher {
    pub(super) store: Arc<Store>,
    turns: Turns,
    parallel: usize,
    pub(super) partial: PartialPulls,
    pub(super) tables: TableMemory,
    pub(super) limits: ImageLimits,
    pub(super) metrics: PullMetrics,
    /// One lock per blob under way and credential. The second caller with the same credential finds the layer in the
    /// store. A caller with another credential may not have it, and must not even notice.
    busy: Mutex<HashMap<LayerKey, Weak<tokio::sync::Mutex<()>>>>,
}

/// The blob, and who fetches it from where. Where a layer lies in an image is no part of it.
type LayerKey = (Digest, Origin, AccessRecord);

/// One layer to be fetched.
pub(super) struct WantedLayer<'a> {
    pub part: &'a Part,
    /// By what the store knows its blob.
    key: Digest,
    pub progress: &'a LayerProgress,
}

/// A layer that was fetched.
struct FetchedLayer {
    diff_id: Digest,
    /// By what the store knows the bytes that came and were hashed: the blob, or the DiffID of a layer that was put
    /// together.
    key: Digest,
}

/// What fetching the parts of one image needs.
pub(super) struct ImageLayers<'a> {
    pub image: &'a str,
    pub source: &'a dyn Source,
    pub rights: &'a Rights,
    /// Keeps what is found and what is made.
    pub hold: &'a Hold,
    pub progress: &'a Progress,
    /// What its layers may unpack to.
    pub budget: Arc<Budget>,
}

impl LayerFetcher {
    /// At most `parallel` layers are fetched at a time, over all pulls, and each stays within `limits`.
    pub(super) fn new(
        store: Arc<Store>,
        (parallel, rules): (usize, TurnRules),
        partial: PartialPulls,
        limits: ImageLimits,
        metrics: PullMetrics,
    ) -> Self {
        let parallel = parallel.max(1);
        let turns = Turns::new(parallel, rules);
        Self {
            store,
            turns,
            parallel,
            partial,
            tables: TableMemory::default(),
            limits,
            metrics,
            busy: Mutex::default(),
        }
    }

    /// How many slots are in use, and how many places beside them.
    pub(super) fn busy(&self) -> (Occupied, Occupied) {
        self.turns.busy()
    }

    /// Fetches every part into the store, several at a time, and returns their DiffIDs in the same order. The progress
    /// has one counter per part.
    pub(super) async fn fetch_all(
        &self,
        pull: &ImageLayers<'_>,
        parts: &[Part],
    ) -> Result<Vec<Digest>, PullError> {
        let each = async |(index, (part, progress)): (usize, (&Part, &LayerProgress))| {
            let key = recipe::key(&part.blob.digest, part.form);
            Ok::<_, PullError>((index, self.layer(pull, &WantedLayer { part, key, progress }).await?))
        };
        let mut found: Vec<(usize, Digest)> =
            stream::iter(parts.iter().zip(&pull.progress.layers).enumerate())
                .map(each)
                .buffer_unordered(self.parallel)
                .try_collect()
                .await?;
        found.sort_unstable_by_key(|(index, _)| *index);
        Ok(found.into_iter().map(|(_, diff_id)| diff_id).collect())
    }

    /// Fetches a layer, unless the caller may use the one that is here. Returns its DiffID.
    async fn layer(&self, pull: &ImageLayers<'_>, layer: &WantedLayer<'_>) -> Result<Digest, PullError> {
        let (key, blob, progress) = (layer.key, layer.part.blob.digest, layer.progress);
        let (origin, reader) = pull.rights.identity();
        let lock = self.lock_of((key, origin, reader));
        // The lock comes before the look: a pull of the same credential may be fetching the layer just now.
        let _locked = lock.lock().await;
        let found = match self.stored_layer(pull, layer).await? {
            Some(diff_id) => {
                progress.set(LayerState::Reused);
                self.metrics.saved(Reuse::Layer, layer.part.blob.size);
                diff_id
            }
            None => {
                let FetchedLayer { diff_id, key } = self.undamaged(pull, layer).await?;
                let (rights, hold) = (pull.rights.clone(), pull.hold.clone());
                blocking(pull.image, move || rights.record_fetch(&hold, &key)).await??;
                progress.set(LayerState::Done);
                diff_id
            }
        };
        // A layer that is here is compared too: the config may claim another one for its blob.
        match layer.part.claimed {
            Some(claimed) if found != claimed => {
                let image = pull.image.to_owned();
                Err(match layer.part.blob.is_zstd_chunked() {
                    true => {
                        let layer = Box::new(WrongDiffId { blob, found, claimed });
                        PullError::ChunkedDiffId { image, layer }
                    }
                    false => PullError::DiffId { image, blob, found, claimed },
                })
            }
            _ => Ok(found),
        }
    }

    /// The layer of a blob, or the one with the DiffID that is claimed for it, if it is here and the caller may use it: if
    /// these bytes once came for him. It stays as long as the pull.
    async fn stored_layer(
        &self,
        pull: &ImageLayers<'_>,
        layer: &WantedLayer<'_>,
    ) -> Result<Option<Digest>, PullError> {
        let keys = std::iter::once(layer.key).chain(layer.part.claimed);
        let (rights, hold, image) = (pull.rights.clone(), pull.hold.clone(), pull.image.to_owned());
        let look = move || {
            for key in keys {
                let Some(diff_id) = rights.layer(&key)? else { continue };
                hold.keep_blocking(&[Held::Layer(diff_id)]).about(&image)?;
                // A collection may have been faster.
                if rights.layer(&key)? == Some(diff_id) {
                    return Ok(Some(diff_id));
                }
            }
            Ok(None)
        };
        blocking(pull.image, look).await?
    }

    /// Streams one blob. If it was damaged on its way it comes once more, because what comes through another cache, or at
    /// another time, may be whole; and then from each other place that there is. A file is not read twice.
    async fn undamaged(
        &self,
        pull: &ImageLayers<'_>,
        layer: &WantedLayer<'_>,
    ) -> Result<FetchedLayer, PullError> {
        let mut once_more = pull.rights.origin().is_remote();
        loop {
            let error = match self.stream(pull, layer).await {
                Err(error) if error.is_damage() => error,
                outcome => return outcome,
            };
            if pull.source.try_elsewhere(&layer.part.blob.digest) {
                tracing::warn!(image.reference = pull.image, %error, "the layer is fetched from another place");
            } else if once_more {
                once_more = false;
                tracing::warn!(image.reference = pull.image, %error, "the layer is fetched once more");
            } else {
                return Err(error);
            }
            layer.progress.restart();
        }
    }

    /// Fetches a layer, in parts if it can be.
    async fn stream(
        &self,
        pull: &ImageLayers<'_>,
        layer: &WantedLayer<'_>,
    ) -> Result<FetchedLayer, PullError> {
        let mut turn = self.turns.begin(pull.rights.tenant(), layer.progress).await;
        let given = match self.in_parts(pull, layer, &mut turn).await? {
            Parted::Stored(diff_id) => return Ok(FetchedLayer { diff_id, key: diff_id }),
            Parted::Whole(given) => given,
        };
        let diff_id = self.whole(pull, layer, &mut turn, given).await?;
        Ok(FetchedLayer { diff_id, key: layer.key })
    }

    /// Streams one blob through the blocking pipeline. The pipeline ends when the channel closes, so a pull that is
    /// dropped leaves no thread behind.
    async fn whole(
        &self,
        pull: &ImageLayers<'_>,
        layer: &WantedLayer<'_>,
        turn: &mut Turn<'_>,
        given: Given,
    ) -> Result<Digest, PullError> {
        let blob = layer.part.blob.digest;
        let gave_way = |GaveWay { rate }| PullError::GaveWay { image: pull.image.to_owned(), blob, rate };
        let mut bytes = match given.stream {
            Some(stream) => stream,
            // A registry that does not answer keeps a slot no longer than one that sends nothing.
            None => {
                turn.during(pull.source.blob(&layer.part.blob)).await.map_err(gave_way)?.about(pull.image)?
            }
        };
        let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let budget = Arc::new(pull.budget.attempt());
        let compression = match layer.part.form {
            LayerForm::Archive(compression) => compression,
            LayerForm::File | LayerForm::Nothing => LayerCompression::None,
        };
        let task = LayerPipeline {
            store: Arc::clone(&self.store),
            hold: pull.hold.clone(),
            image: pull.image.to_owned(),
            blob: layer::Blob { digest: blob, size: layer.part.blob.size, compression },
            form: layer.part.form,
            key: layer.key,
            counter: layer.progress.counter(),
            metrics: self.metrics.clone(),
            limits: self.limits,
            budget: Arc::clone(&budget),
            tables: (given.tables, self.tables.clone()),
        };
        let pipeline = tokio::task::spawn_blocking(move || task.run(receiver));
        let fed: Result<(), PullError> = async {
            while let Some(chunk) = turn.during(bytes.next()).await.map_err(gave_way)? {
                let chunk = chunk.about(pull.image)?;
                self.metrics.fetched.add(chunk.len() as u64);
                turn.took(chunk.len()).await.map_err(gave_way)?;
                if sender.send(chunk).await.is_err() {
                    break; // The pipeline has failed, and its result says why.
                }
            }
            Ok(())
        }
        .await;
        // Without this the pipeline would wait for more.
        drop(sender);
        let outcome = pipeline
            .await
            .map_err(|error| PullError::Lost { image: pull.image.to_owned(), why: error.to_string() })?;
        // The error of a broken stream explains more than that of the truncated layer which it causes.
        let outcome = fed.and(outcome);
        if outcome.is_err() {
            budget.give_back();
        }
        outcome
    }

    fn lock_of(&self, layer: LayerKey) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        // Locks that nobody holds are removed here, so the map stays as small as what is under way.
        busy.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = busy.get(&layer).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        busy.insert(layer, Arc::downgrade(&lock));
        lock
    }
}

/// The blocking half of fetching a layer. It owns everything that it needs.
struct LayerPipeline {
    store: Arc<Store>,
    hold: Hold,
    image: String,
    blob: layer::Blob,
    form: LayerForm,
    /// By what the store knows the blob.
    key: Digest,
    counter: Arc<AtomicU64>,
    metrics: PullMetrics,
    limits: ImageLimits,
    budget: Arc<Budget>,
    /// What is known of its table of contents, and the memory for it.
    tables: (Tables, TableMemory),
}

impl LayerPipeline {
    /// Stores the layer and returns the DiffID computed over it.
    fn run(self, mut chunks: mpsc::Receiver<Bytes>) -> Result<Digest, PullError> {
        let image = &self.image;
        let objects = self.store.objects().under(&self.hold).about(image)?;
        let record = self.store.layers().stage(&self.hold).about(image)?;
        let mut capture = Capture::of(&self.tables.0);
        let chunks = std::iter::from_fn(|| chunks.blocking_recv()).inspect(|chunk| capture.see(chunk));
        let count = |bytes| {
            self.counter.fetch_add(bytes, Ordering::Relaxed);
        };
        let limits = layer::TarLimits::for_blob(&self.limits, self.blob.size);
        let (blob, budget) = (&self.blob, &self.budget);
        let taken = match self.form {
            LayerForm::Archive(_) => layer::ingest(blob, chunks, &objects, record, &limits, budget, &count),
            LayerForm::File | LayerForm::Nothing => {
                layer::ingest_file(blob, chunks, &objects, record, &limits, budget, &count)
            }
        };
        let (found, record) = taken.about(image)?;
        record.finish(&found.diff_id, &self.key).about(image)?;
        self.metrics.saved(Reuse::Object, found.contents.shared_bytes);
        let (tables, memory) = self.tables;
        if let Some(toc) = capture.end(tables, &memory, self.limits.entries) {
            list_contents(&self.store, (&self.key, &found.diff_id), &toc);
        }
        Ok(found.diff_id)
    }
}
