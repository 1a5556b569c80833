//! Fetching the layers of one image: in parallel, each blob once, each checked as it streams.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::{Semaphore, mpsc};

use super::PullError;
use super::error::About as _;
use super::metrics::{PullMetrics, Shared};
use super::progress::{LayerProgress, LayerState, Progress};
use super::rights::Rights;
use crate::image::access::Origin;
use crate::image::layer;
use crate::image::store::{AccessRecord, Lease, Store};
use crate::oci::Source;
use crate::oci::digest::Digest;
use crate::oci::limits::{Budget, Limits};
use crate::oci::manifest::Layer;

/// Compressed chunks that wait between the network and the decompressor. With chunks of at most
/// a few hundred KiB this bounds what one layer holds in memory.
const CHUNKS_IN_FLIGHT: usize = 8;

/// What all pulls of a node share: the store, and the limits on what runs at once.
#[derive(Debug)]
pub(super) struct LayerFetcher {
    store: Arc<Store>,
    slots: Semaphore,
    parallel: usize,
    limits: Limits,
    metrics: PullMetrics,
    /// One lock per blob under way and credential: whoever comes second with the same one finds the layer in the
    /// store. With another one he may not have it, and must not even notice.
    busy: Mutex<HashMap<Turn, Weak<tokio::sync::Mutex<()>>>>,
}

type Turn = (Digest, Origin, AccessRecord);

/// One image's pull, as far as its layers are concerned.
pub(super) struct ImageLayers<'a> {
    pub image: &'a str,
    pub source: &'a dyn Source,
    pub rights: &'a Rights,
    pub lease: &'a Lease,
    pub progress: &'a Progress,
    /// What its layers may unpack to.
    pub unpacked: Arc<Budget>,
}

impl LayerFetcher {
    /// At most `parallel` layers are fetched at a time, over all pulls, and each stays within `limits`.
    pub(super) fn new(store: Arc<Store>, parallel: usize, limits: Limits, metrics: PullMetrics) -> Self {
        let parallel = parallel.max(1);
        Self { store, slots: Semaphore::new(parallel), parallel, limits, metrics, busy: Mutex::default() }
    }

    /// Brings every layer into the store. `layers` and `diff_ids` run in parallel, lowest first.
    pub(super) async fn fetch_all(
        &self,
        pull: &ImageLayers<'_>,
        layers: &[Layer],
        diff_ids: &[Digest],
    ) -> Result<(), PullError> {
        let each = |i: usize| self.fetch(pull, &layers[i], diff_ids[i], &pull.progress.layers[i]);
        stream::iter(0..layers.len().min(diff_ids.len()))
            .map(each)
            .buffer_unordered(self.parallel)
            .try_collect::<()>()
            .await
    }

    async fn fetch(
        &self,
        pull: &ImageLayers<'_>,
        layer: &Layer,
        claimed: Digest,
        progress: &LayerProgress,
    ) -> Result<(), PullError> {
        let blob = layer.descriptor.digest;
        let (origin, reader) = pull.rights.identity();
        let turn = self.turn((blob, origin, reader));
        let _mine = turn.lock().await;
        let found = match pull.rights.layer(&blob)? {
            Some(diff_id) => {
                progress.set(LayerState::Reused);
                self.metrics.saved(Shared::Layer, layer.descriptor.size);
                diff_id
            }
            None => {
                let _slot = self.slots.acquire().await;
                progress.set(LayerState::Fetching);
                let diff_id = self.stream(pull, layer, progress).await?;
                pull.rights.fetched(pull.lease, &blob)?;
                progress.set(LayerState::Done);
                diff_id
            }
        };
        if found != claimed {
            return Err(PullError::DiffId { image: pull.image.to_owned(), blob, found, claimed });
        }
        Ok(())
    }

    /// Streams one blob through the blocking pipeline. The pipeline ends by itself when the
    /// channel closes, so a pull that is dropped leaves no thread behind.
    async fn stream(
        &self,
        pull: &ImageLayers<'_>,
        layer: &Layer,
        progress: &LayerProgress,
    ) -> Result<Digest, PullError> {
        let mut bytes = pull.source.blob(&layer.descriptor).await.about(pull.image)?;
        let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let task = LayerTask {
            store: Arc::clone(&self.store),
            lease: pull.lease.clone(),
            image: pull.image.to_owned(),
            blob: layer::Blob {
                digest: layer.descriptor.digest,
                size: layer.descriptor.size,
                compression: layer.compression,
            },
            counter: progress.counter(),
            shared: progress.shared(),
            metrics: self.metrics.clone(),
            limits: self.limits,
            unpacked: Arc::clone(&pull.unpacked),
        };
        let pipeline = tokio::task::spawn_blocking(move || task.run(receiver));
        let fed: Result<(), PullError> = async {
            while let Some(chunk) = bytes.next().await {
                if sender.send(chunk.about(pull.image)?).await.is_err() {
                    break; // The pipeline has failed and says why.
                }
            }
            Ok(())
        }
        .await;
        drop(sender);
        let outcome = pipeline
            .await
            .map_err(|error| PullError::Lost { image: pull.image.to_owned(), why: error.to_string() })?;
        // A broken stream explains more than the truncated layer that it leaves behind.
        fed?;
        outcome
    }

    fn turn(&self, of: Turn) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = busy.get(&of).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::default();
        busy.insert(of, Arc::downgrade(&lock));
        lock
    }
}

/// The blocking half of a layer: everything it needs, owned.
struct LayerTask {
    store: Arc<Store>,
    lease: Lease,
    image: String,
    blob: layer::Blob,
    counter: Arc<AtomicU64>,
    shared: Arc<AtomicU64>,
    metrics: PullMetrics,
    limits: Limits,
    unpacked: Arc<Budget>,
}

impl LayerTask {
    /// Takes the layer in and returns the DiffID that it was found to have.
    fn run(self, mut chunks: mpsc::Receiver<Bytes>) -> Result<Digest, PullError> {
        let image = &self.image;
        let objects = self.store.objects().under(&self.lease).about(image)?;
        let record = self.store.layers().stage(&self.lease).about(image)?;
        let chunks = std::iter::from_fn(|| chunks.blocking_recv());
        let count = |bytes| {
            self.counter.fetch_add(bytes, Ordering::Relaxed);
            self.metrics.fetched.add(bytes);
        };
        let limits = layer::Limits::for_blob(&self.limits, self.blob.size);
        let taken = layer::ingest(&self.blob, chunks, &objects, record, &limits, &self.unpacked, &count);
        let (found, record) = taken.about(image)?;
        record.finish(&found.diff_id, &found.blob).about(image)?;
        self.shared.store(found.contents.shared_bytes, Ordering::Relaxed);
        self.metrics.saved(Shared::Object, found.contents.shared_bytes);
        Ok(found.diff_id)
    }
}
