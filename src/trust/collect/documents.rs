//! The documents of a search: each is asked for within the limits, and counted while it is held.

use std::collections::BTreeMap;

use super::wrapper::{Layer, Wrapper};
use super::{ASKED_MAX, DOCUMENT_MAX, End, Search};
use crate::oci::manifest::Descriptor;
use crate::oci::reference::Version;
use crate::oci::{SourceError, read_blob};
use crate::trust::memory::Held;
use crate::trust::signature::CLAIM_MAX;

impl Search<'_> {
    /// A manifest, if it exists and can be parsed.
    pub(super) async fn wrapper(&mut self, version: &Version) -> Result<Option<Held<Wrapper>>, End> {
        // As it came and as it is parsed.
        let room = self.ask(2 * DOCUMENT_MAX)?;
        let Some(raw) = there(self.source.manifest(version).await, &version.to_string())? else {
            return Ok(None);
        };
        let text = raw.bytes.len();
        self.share.has_read(text)?;
        if text > DOCUMENT_MAX {
            return Ok(None);
        }
        let Some(wrapper) = Wrapper::parse(&raw.bytes) else {
            tracing::debug!(%version, "not the manifest of a signature");
            return Ok(None);
        };
        let size = wrapper.size(text);
        Ok(Some(room.mapped(|()| wrapper, size)))
    }

    /// A small blob of text, its digest checked.
    pub(super) async fn text(&mut self, layer: &Layer) -> Result<Option<Held<String>>, End> {
        let Ok(size) = usize::try_from(layer.size) else { return Ok(None) };
        if size > CLAIM_MAX {
            return Ok(None);
        }
        let room = self.ask(size)?;
        let annotations = BTreeMap::new();
        let blob = Descriptor {
            media_type: layer.media_type.clone(),
            digest: layer.digest,
            size: layer.size,
            annotations,
        };
        let read = there(read_blob(self.source, &blob, CLAIM_MAX).await, &layer.digest.to_string())?;
        self.share.has_read(size)?;
        let text = read.and_then(|bytes| String::from_utf8(bytes.into()).ok());
        Ok(text.map(|text| room.mapped(|()| text, size)))
    }

    /// Counts a request for a document, and sets room for it aside.
    pub(super) fn ask(&mut self, size: usize) -> Result<Held<()>, End> {
        self.asked += 1;
        if self.asked > ASKED_MAX || tokio::time::Instant::now() > self.until {
            return Err(End::Limit);
        }
        Ok(self.share.reserve(size)?)
    }
}

/// Separates failures that the pusher of a claim can cause, which skip the claim, from failures of the source.
fn there<T>(result: Result<T, SourceError>, what: &str) -> Result<Option<T>, SourceError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(SourceError::NotFound { .. }) => Ok(None),
        Err(
            error @ (SourceError::TooLarge { .. }
            | SourceError::Limit { .. }
            | SourceError::WrongDigest { .. }
            | SourceError::WrongSize { .. }
            | SourceError::Manifest { .. }
            | SourceError::SeveralImages { .. }),
        ) => {
            tracing::debug!(what, %error, "skipped a claim to be a signature");
            Ok(None)
        }
        Err(other) => Err(other),
    }
}
