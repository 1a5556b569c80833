//! Whether a layer is fetched in parts, and what comes of it.

use std::sync::Arc;

use super::attempt::Attempt;
use super::search;
use super::words::{Given, Parted, Stop, Tables};
use crate::image::chunked::Positions;
use crate::oci::manifest::{LayerCompression, LayerForm};
use crate::pull::blocking::blocking;
use crate::pull::error::PullError;
use crate::pull::layers::{ImageLayers, LayerFetcher, WantedLayer};
use crate::pull::metrics::PartialOutcome;
use crate::pull::turns::Turn;

impl LayerFetcher {
    /// Fetches a layer in parts, if it can be and that is worth it.
    pub(in crate::pull) async fn in_parts(
        &self,
        pull: &ImageLayers<'_>,
        layer: &WantedLayer<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<Parted, PullError> {
        let whole = |tables| Ok(Parted::Whole(Given { stream: None, tables }));
        let part = layer.part;
        let (LayerForm::Archive(LayerCompression::Zstd), Some(claimed)) = (part.form, part.claimed) else {
            return whole(Tables::None);
        };
        if !self.fetches_in_parts() {
            return whole(Tables::None);
        }
        let positions = match Positions::of(&part.blob) {
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
        let mut attempt = Attempt::new(self, pull, layer, (positions, claimed));
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
        let (image, blob) = (pull.image, layer.part.blob.digest);
        // Nothing to look into: little of the layer is here, or the node has much to do.
        if matches!(outcome, PartialOutcome::NotWorth | PartialOutcome::Busy) {
            tracing::info!(image.reference = image, %blob, why, "the layer is fetched whole");
        } else {
            tracing::warn!(image.reference = image, %blob, why, "the layer cannot be fetched in parts, and is fetched whole");
        }
        self.metrics.partial(outcome);
    }
}
