//! Parts that no blob holds: files that are made of an artifact's config.
//!
//! Whoever pulls has just read the config with their own credentials, so the bytes are theirs without any further proof. They
//! are stored as the bytes of a blob would be, but nobody is recorded as having fetched such a blob.

use std::sync::Arc;

use bytes::Bytes;

use super::error::About as _;
use super::layers::{ImageLayers, LayerFetcher};
use super::recipe::{self, Part};
use super::{PullError, blocking};
use crate::image::layer::{self, TarLimits};
use crate::oci::choice::Choice;
use crate::oci::digest::Digest;
use crate::oci::manifest::LayerCompression;

impl LayerFetcher {
    /// Stores the content of a part, and returns what stands for its DiffID.
    pub(super) async fn make_file(
        &self,
        pull: &ImageLayers<'_>,
        part: &Part,
        content: Bytes,
    ) -> Result<Digest, PullError> {
        let (store, hold, budget) = (Arc::clone(&self.store), pull.hold.clone(), Arc::clone(&pull.budget));
        let (image, size) = (pull.image.to_owned(), part.blob.size);
        let blob = layer::Blob { digest: part.blob.digest, size, compression: LayerCompression::None };
        let key = recipe::key((&part.blob.digest, part.form), &Choice::default());
        let limits = TarLimits::for_blob(&self.limits, size);
        let make = move || {
            let objects = store.objects().under(&hold).about(&image)?;
            let record = store.layers().stage(&hold).about(&image)?;
            let chunks = std::iter::once(content);
            let taken = layer::ingest_file(&blob, chunks, &objects, record, &limits, &budget, &|_| ());
            let (found, record) = taken.about(&image)?;
            record.finish(&found.diff_id, &key).about(&image)?;
            Ok(found.diff_id)
        };
        blocking(pull.image, make).await?
    }
}
