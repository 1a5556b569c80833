//! Fetching a layer in parts: only what the store does not have ([ADR 0036](../../docs/adr/0036-partial-pulls.md)).
//!
//! ```text
//! may anything be used? ─> TOC ─> what is here ─> plan ─> tar-split ─> [ranges] ─> tar ─> as any other layer
//! ```
//! Each step may find that the layer is better fetched whole, and says so in the log; a server that ignores the first range
//! has sent the whole layer already, and goes on with that answer. What is used of the store is what the caller may have
//! in place of a fetch ([ADR 0037](../../docs/adr/0037-whose-files-a-partial-pull-uses.md)).

mod attempt;
mod capture;
mod memory;
mod ranges;
mod search;

use std::sync::Arc;

use self::attempt::Attempt;
pub(super) use self::capture::Capture;
pub(super) use self::memory::TableMemory;
use super::layers::{ImageLayers, LayerFetcher, WantedLayer};
use super::metrics::PartialOutcome;
use super::turns::Turn;
use super::{PullError, blocking};
pub use crate::image::chunked::PlanRules;
use crate::image::chunked::{Positions, Toc};
use crate::image::store::Store;
use crate::oci::BlobStream;
use crate::oci::digest::Digest;
use crate::oci::manifest::LayerCompression;

/// How layers are fetched of which files are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialPulls {
    /// Whose files are used.
    pub from: ReuseFrom,
    /// Which ranges are asked for.
    pub rules: PlanRules,
    /// Requests of a layer at the same time.
    pub connections: usize,
}

/// Of which layers a pull uses files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReuseFrom {
    /// Of none: layers are fetched whole.
    Nothing,
    /// Of those that the caller may have in place of a fetch.
    Own,
    /// Of all that are here: bytes on the wire then tell every tenant which files others have.
    All,
}

impl Default for PartialPulls {
    fn default() -> Self {
        Self { from: ReuseFrom::Own, rules: PlanRules::default(), connections: 16 }
    }
}

/// What became of fetching a layer in parts.
pub(super) enum Parted {
    /// It is in the store, with this DiffID, which is the claimed one.
    Stored(Digest),
    /// It is to be fetched whole.
    Whole(Given),
}

/// What a layer that is fetched whole begins with.
#[derive(Default)]
pub(super) struct Given {
    /// All of its bytes, on an answer that has come already.
    pub stream: Option<BlobStream>,
    pub tables: Tables,
}

/// What is known of a layer's table of contents.
#[derive(Default)]
pub(super) enum Tables {
    /// It has none, or one that is no good.
    #[default]
    None,
    /// Where it is.
    At(Positions),
    /// The table.
    Read(Arc<Toc>),
}

/// Why an attempt ends before the layer is here.
pub(super) enum Stop {
    /// The layer is fetched whole.
    Whole { outcome: PartialOutcome, why: String, stream: Option<BlobStream> },
    /// The pull fails.
    Pull(PullError),
}

impl From<PullError> for Stop {
    fn from(error: PullError) -> Self {
        Self::Pull(error)
    }
}

impl Stop {
    fn whole(outcome: PartialOutcome, why: impl ToString) -> Self {
        Self::Whole { outcome, why: why.to_string(), stream: None }
    }
}

impl LayerFetcher {
    /// Fetches a layer in parts, if it can be and that is worth it.
    pub(super) async fn in_parts(
        &self,
        pull: &ImageLayers<'_>,
        layer: &WantedLayer<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<Parted, PullError> {
        let whole = |tables| Ok(Parted::Whole(Given { stream: None, tables }));
        if self.partial.from == ReuseFrom::Nothing || layer.compression != LayerCompression::Zstd {
            return whole(Tables::None);
        }
        let positions = match Positions::of(layer.blob) {
            Ok(Some(positions)) => positions,
            Ok(None) => return whole(Tables::None),
            Err(doubt) => {
                self.fell_back(pull, layer, PartialOutcome::Tables, &doubt.to_string());
                return whole(Tables::None);
            }
        };
        // Neither is a fallback: nothing was tried.
        if !pull.source.has_ranges() {
            return whole(Tables::At(positions));
        }
        let (store, rights, from) = (Arc::clone(&self.store), pull.rights.clone(), self.partial.from);
        let lists = blocking(pull.image, move || search::lists(&store, &rights, from)).await??;
        if lists.is_empty() {
            return whole(Tables::At(positions));
        }
        let Some(_memory) = self.tables.try_take(&positions) else {
            self.fell_back(pull, layer, PartialOutcome::Busy, "too many layers are put together just now");
            return whole(Tables::At(positions));
        };
        let mut attempt = Attempt::new(self, pull, layer, positions);
        match attempt.run(lists, turn).await {
            Ok(diff_id) => {
                self.metrics.partial(PartialOutcome::Done);
                Ok(Parted::Stored(diff_id))
            }
            Err(Stop::Pull(error)) => Err(error),
            Err(Stop::Whole { outcome, why, stream }) => {
                self.fell_back(pull, layer, outcome, &why);
                Ok(Parted::Whole(Given { stream, tables: attempt.into_tables() }))
            }
        }
    }

    fn fell_back(&self, pull: &ImageLayers<'_>, layer: &WantedLayer<'_>, outcome: PartialOutcome, why: &str) {
        let (image, blob) = (pull.image, layer.blob.digest);
        // Nothing to look into: little of the layer is here, or the node has much to do.
        if matches!(outcome, PartialOutcome::NotWorth | PartialOutcome::Busy) {
            tracing::info!(image.reference = image, %blob, why, "the layer is fetched whole");
        } else {
            tracing::warn!(image.reference = image, %blob, why, "the layer cannot be fetched in parts, and is fetched whole");
        }
        self.metrics.partial(outcome);
    }
}

/// Lists the files of a layer that is here, for the pulls of later versions: under the bytes that came, the blob or the
/// layer itself. They fetch more without the list, so its failure is none of the pull's. Blocking.
pub(super) fn list_contents(store: &Store, (fetched, diff_id): (&Digest, &Digest), toc: &Toc) {
    if let Err(error) = store.layers().list_contents(fetched, diff_id, toc) {
        tracing::warn!(%error, layer = %diff_id, "the files of a layer could not be listed");
    }
}
