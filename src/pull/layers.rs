//! Fetching the parts of one image: in parallel, each blob once, each checked as it streams.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::busy::Occupied;
use super::chunked::memory::{RangeMemory, TableMemory};
use super::chunked::settings::{PartialPulls, ReuseFrom};
use super::chunked::words::{Given, Parted};
use super::error::{About as _, WrongDiffId};
use super::metrics::{PullMetrics, Reuse};
use super::partial::RangeRules;
use super::progress::{LayerProgress, LayerState, Progress};
use super::recipe::{self, Part};
use super::rights::Rights;
use super::turns::{Tenant, Turns};
use super::urgency::Urgency;
use super::{PullError, PullLimits, blocking};
use crate::fair::Gate;
use crate::image::access::Origin;
use crate::image::store::{AccessRecord, Held, Hold, Store};
use crate::oci::Source;
use crate::oci::choice::Choice;
use crate::oci::digest::Digest;
use crate::oci::limits::{Budget, ImageLimits};

/// What all pulls of a node share: the store, and the limits on what runs at once.
#[derive(Debug)]
pub(super) struct LayerFetcher {
    pub(super) store: Arc<Store>,
    pub(super) turns: Turns,
    parallel: usize,
    pub(super) ranges: RangeRules,
    /// Connections of all blobs beyond the first of each.
    pub(super) connections: Gate<Tenant>,
    pub(super) partial: PartialPulls,
    pub(super) tables: TableMemory,
    pub(super) range_memory: RangeMemory,
    pub(super) limits: ImageLimits,
    pub(super) metrics: PullMetrics,
    /// One lock per blob under way and credential. The second caller with the same credential finds the layer in the
    /// store. A caller with another credential may not have it, and must not even notice.
    busy: Mutex<HashMap<LayerKey, Weak<LayerLock>>>,
}

/// The right to fetch a layer.
#[derive(Debug)]
struct LayerLock {
    turn: tokio::sync::Mutex<()>,
    /// Whether one who waits for the layer is waited for.
    wanted: Urgency,
}

/// The blob, and who fetches it from where. Where a layer lies in an image is no part of it.
type LayerKey = (Digest, Origin, AccessRecord);

/// One layer to be fetched.
pub(super) struct WantedLayer<'a> {
    pub part: &'a Part,
    /// By what the store knows its blob, or the part of it that is wanted.
    pub key: Digest,
    pub progress: &'a LayerProgress,
}

/// A layer that was fetched.
struct FetchedLayer {
    /// Its DiffID, or the key of a choice of it.
    id: Digest,
    /// The DiffID.
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
    /// What is fetched at a time, over all pulls, and each layer stay within `limits`.
    pub(super) fn new(store: Arc<Store>, limits: &PullLimits, metrics: PullMetrics) -> Self {
        let parallel = limits.parallel_layers.max(1);
        Self {
            store,
            turns: Turns::new(parallel, limits.turns),
            parallel,
            ranges: limits.ranges,
            connections: limits.ranges.connections(),
            partial: limits.partial,
            tables: TableMemory::default(),
            range_memory: RangeMemory::default(),
            limits: limits.image,
            metrics,
            busy: Mutex::default(),
        }
    }

    /// Whether layers are fetched in parts that can be.
    pub(super) fn fetches_in_parts(&self) -> bool {
        self.partial.from != ReuseFrom::Nothing
    }

    /// How many slots are in use, and how many places beside them.
    pub(super) fn busy(&self) -> (Occupied, Occupied) {
        self.turns.busy()
    }

    /// Fetches or makes every part into the store, several at a time, and returns their DiffIDs in the same order, or the keys of
    /// choices of them. The progress has a counter for each, by the part's number.
    pub(super) async fn fetch_all(
        &self,
        pull: &ImageLayers<'_>,
        parts: &[Part],
    ) -> Result<Vec<Digest>, PullError> {
        let each = async |(index, part): (usize, &Part)| {
            if let Some(content) = &part.made {
                return Ok((index, self.make_file(pull, part, content.clone()).await?));
            }
            let progress = pull.progress.layers.get(part.number).ok_or_else(|| PullError::Lost {
                image: pull.image.to_owned(),
                why: format!("there is no counter for part {}", part.number),
            })?;
            let key = recipe::key((&part.blob.digest, part.form), &part.choice);
            Ok::<_, PullError>((index, self.layer(pull, &WantedLayer { part, key, progress }).await?))
        };
        let mut found: Vec<(usize, Digest)> = stream::iter(parts.iter().enumerate())
            .map(each)
            .buffer_unordered(self.parallel)
            .try_collect()
            .await?;
        found.sort_unstable_by_key(|(index, _)| *index);
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }

    /// Fetches a layer, unless the caller may use the one that is here. Returns its DiffID, or the key of a choice of it.
    async fn layer(&self, pull: &ImageLayers<'_>, layer: &WantedLayer<'_>) -> Result<Digest, PullError> {
        let (key, blob, progress) = (layer.key, layer.part.blob.digest, layer.progress);
        let (origin, reader) = pull.rights.identity();
        let lock = self.lock_of((key, origin, reader));
        let urgency = pull.progress.urgency();
        if urgency.is_urgent() {
            lock.wanted.hurry();
        }
        // The lock comes before the look: a pull of the same credential may be fetching the layer just now.
        let _locked = lock.turn.lock().await;
        let (id, found) = match self.stored_layer(pull, layer).await? {
            Some(id) => {
                progress.set(LayerState::Reused);
                self.metrics.saved(Reuse::Layer, layer.part.blob.size);
                (id, id)
            }
            None => {
                let FetchedLayer { id, diff_id, key } =
                    urgency.hurried_by(&lock.wanted, self.undamaged(pull, layer)).await?;
                let (rights, hold) = (pull.rights.clone(), pull.hold.clone());
                blocking(pull.image, move || rights.record_fetch(&hold, &key)).await??;
                progress.set(LayerState::Done);
                (id, diff_id)
            }
        };
        // A layer that is here is compared too: the config may claim another one for its blob.
        match layer.part.claimed {
            Some(claimed) if id != claimed && id != layer.part.choice.key(&claimed) => {
                let image = pull.image.to_owned();
                Err(match layer.part.blob.is_zstd_chunked() {
                    true => {
                        let layer = Box::new(WrongDiffId { blob, found, claimed });
                        PullError::ChunkedDiffId { image, layer }
                    }
                    false => PullError::DiffId { image, blob, found, claimed },
                })
            }
            _ => Ok(id),
        }
    }

    /// The layer of a blob, or the one with the DiffID that is claimed for it, if it is here and the caller may use it: if
    /// these bytes once came for him. It stays as long as the pull.
    async fn stored_layer(
        &self,
        pull: &ImageLayers<'_>,
        layer: &WantedLayer<'_>,
    ) -> Result<Option<Digest>, PullError> {
        // A whole layer has what any choice takes of it.
        let part = layer.part;
        let whole = recipe::key((&part.blob.digest, part.form), &Choice::default());
        let keys = std::iter::once(whole).chain(part.claimed).chain([layer.key]);
        let (rights, hold, image) = (pull.rights.clone(), pull.hold.clone(), pull.image.to_owned());
        let store = Arc::clone(&self.store);
        let look = move || {
            for key in keys {
                let Some(diff_id) = rights.layer(&key)? else { continue };
                hold.keep_blocking(&[Held::Layer(diff_id)]).about(&image)?;
                // A collection may have been faster.
                if rights.layer(&key)? == Some(diff_id) {
                    // What it names is to be written anew.
                    if store.is_layer_damaged(&diff_id).about(&image)? {
                        return Ok(None);
                    }
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
        let mut turn = self.turns.begin(pull.rights.tenant(), layer.progress, pull.progress.urgency()).await;
        // A layer that is put together from parts is stored whole.
        let parted = match layer.part.choice.is_all() {
            true => self.in_parts(pull, layer, &mut turn).await?,
            false => Parted::Whole(Given::default()),
        };
        let given = match parted {
            Parted::Stored(diff_id) => return Ok(FetchedLayer { id: diff_id, diff_id, key: diff_id }),
            Parted::Whole(given) => given,
        };
        let diff_id = self.whole(pull, layer, &mut turn, given).await?;
        Ok(FetchedLayer { id: layer.part.choice.key(&diff_id), diff_id, key: layer.key })
    }

    fn lock_of(&self, layer: LayerKey) -> Arc<LayerLock> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        // Locks that nobody holds are removed here, so the map stays as small as what is under way.
        busy.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = busy.get(&layer).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(LayerLock { turn: tokio::sync::Mutex::default(), wanted: Urgency::patient() });
        busy.insert(layer, Arc::downgrade(&lock));
        lock
    }
}
