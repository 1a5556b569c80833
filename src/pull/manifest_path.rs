//! The path from what a reference resolved to, through indexes, to the manifest of one platform.
//!
//! Where an index does not say for what its entries are, their configs are read, and nested indexes are looked into. The
//! depth, and the number of documents in all, are bounded.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::PullError;
use super::error::About as _;
use crate::kind::Kind;
use crate::oci::digest::Digest;
use crate::oci::limits::ImageLimits;
use crate::oci::manifest::{Descriptor, Document, ImageConfig, Index, IndexEntry, Manifest, ManifestError};
use crate::oci::platform::{Choice, Platform, PlatformError};
use crate::oci::reference::Version;
use crate::oci::{Source, read_blob};

/// Documents one below the other, the manifest included; nobody nests indexes deeply.
const DEPTH_MAX: usize = 4;

/// Documents and configs that are read in all to find the manifest of a platform.
const READ_MAX: usize = 32;

/// A manifest or an index, byte for byte as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RawDocument {
    /// The media type that the index above, or the registry, gives it.
    pub media_type: String,
    /// Its bytes; JSON is UTF-8.
    pub text: String,
}

/// A platform's manifest and everything that leads to it. All of it was read by digest, so it cannot change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestPath {
    /// The platform's manifest.
    pub manifest: Manifest,
    /// Its digest.
    pub digest: Digest,
    /// The indexes that lead to it, the nearest first. A signature over any of them covers the manifest.
    pub indexes: Vec<Digest>,
    /// Their bytes: those of the indexes from the top, then those of the manifest.
    pub documents: Vec<Arc<RawDocument>>,
    /// What the reference resolved to: the last of the indexes, or the manifest.
    pub target: Descriptor,
}

impl ManifestPath {
    /// Follows `top` to the manifest for `platform`; `image` is for messages.
    ///
    /// # Errors
    /// The source does not have it, or what it has is malformed, or there is nothing for the platform.
    pub async fn resolve_platform(
        source: &dyn Source,
        top: Digest,
        limits: &ImageLimits,
        platform: &Platform,
        image: &str,
    ) -> Result<Self, PullError> {
        let mut search = Search { source, limits, platform, image, left: READ_MAX };
        let Found { manifest, own, mut above, .. } = search.follow((top, None), DEPTH_MAX).await?;
        let target = above.first().unwrap_or(&own).descriptor.clone();
        let documents = above.iter().chain([&own]).filter_map(|document| document.raw.clone()).collect();
        let digest = own.descriptor.digest;
        above.reverse();
        let indexes = above.into_iter().map(|index| index.descriptor.digest).collect();
        Ok(Self { manifest, digest, indexes, documents, target })
    }

    /// The digests that a signature may be over: the manifest's, then the indexes'.
    pub fn digests(&self) -> Vec<Digest> {
        std::iter::once(self.digest).chain(self.indexes.iter().copied()).collect()
    }
}

/// One document on the way.
struct ReadDocument {
    descriptor: Descriptor,
    /// Evidence is kept as JSON, which cannot hold a document that is not UTF-8.
    raw: Option<Arc<RawDocument>>,
}

/// A manifest that a search has led to.
struct Found {
    manifest: Manifest,
    own: ReadDocument,
    /// The indexes above it, from the top.
    above: Vec<ReadDocument>,
    /// The platform that the nearest index states.
    stated: Option<Platform>,
}

/// The search for the manifest of a platform.
struct Search<'a> {
    source: &'a dyn Source,
    limits: &'a ImageLimits,
    platform: &'a Platform,
    image: &'a str,
    /// How many documents may still be read.
    left: usize,
}

impl Search<'_> {
    /// Follows a document, given with the media type that the index above states, to the manifest for the platform.
    async fn follow(&mut self, wanted: (Digest, Option<String>), depth: usize) -> Result<Found, PullError> {
        let image = self.image;
        self.count()?;
        let raw = self.source.manifest(&Version::Digest(wanted.0)).await.about(image)?;
        let stated = agreed(wanted.1, raw.media_type).about(image)?;
        let document = Document::parse_within(self.limits, &raw.bytes, stated.as_deref()).about(image)?;
        let descriptor = Descriptor {
            media_type: stated.unwrap_or_else(|| unstated(&document).to_owned()),
            digest: raw.digest,
            size: raw.bytes.len() as u64,
            annotations: BTreeMap::new(),
        };
        let media_type = descriptor.media_type.clone();
        let text = String::from_utf8(raw.bytes.into()).ok();
        let raw = text.map(|text| Arc::new(RawDocument { media_type, text }));
        let own = ReadDocument { descriptor, raw };
        match document {
            Document::Image(manifest) => Ok(Found { manifest, own, above: Vec::new(), stated: None }),
            Document::Index(_) if depth <= 1 => Err(PullError::Nested(image.to_owned())),
            Document::Index(index) => {
                let mut found = self.choose(&index, depth - 1).await?;
                found.above.insert(0, own);
                Ok(found)
            }
        }
    }

    async fn choose(&mut self, index: &Index, depth: usize) -> Result<Found, PullError> {
        let (unstated, otherwise) = match index.choose(self.platform).about(self.image)? {
            Choice::Entry(entry) => return self.enter(entry, depth).await,
            Choice::Ask { unstated, otherwise } => (unstated, otherwise),
        };
        let mut offered: Vec<Platform> = index.entries.iter().filter_map(|e| e.platform.clone()).collect();
        let mut best: Option<(u8, Found)> = None;
        for entry in unstated {
            let found = match self.enter(entry, depth).await {
                Ok(found) => found,
                // A nested index without anything for this platform.
                Err(PullError::Platform { source, .. }) => {
                    if let PlatformError::NoMatch { offered: there, .. } = &*source {
                        offered.extend(there.iter().cloned());
                    }
                    continue;
                }
                // Something of another kind beside the images.
                Err(PullError::Manifest { source, .. }) if source.kind() == Kind::Unsupported => continue,
                Err(error) => return Err(error),
            };
            let platform = match found.stated.clone() {
                Some(stated) => stated,
                // Its config says nothing of platforms.
                None if found.manifest.artifact.is_some() => continue,
                None => self.config_platform(&found.manifest).await?,
            };
            let score = self.platform.suitability(&platform);
            // Of equals the first wins.
            if let Some(score) = score.filter(|score| best.as_ref().is_none_or(|(high, _)| score > high)) {
                best = Some((score, found));
            }
            offered.extend((!platform.is_empty()).then_some(platform));
        }
        match (best, otherwise) {
            (Some((_, found)), _) => Ok(found),
            (None, Some(entry)) => self.enter(entry, depth).await,
            (None, None) => Err(self.platform.no_match(offered.iter())).about(self.image),
        }
    }

    async fn enter(&mut self, entry: &IndexEntry, depth: usize) -> Result<Found, PullError> {
        let described = &entry.descriptor;
        let wanted = (described.digest, described.stated_type().map(str::to_owned));
        let mut found = Box::pin(self.follow(wanted, depth)).await?;
        found.stated = found.stated.or_else(|| entry.platform.clone());
        Ok(found)
    }

    /// The platform for which a manifest's config says it is.
    async fn config_platform(&mut self, manifest: &Manifest) -> Result<Platform, PullError> {
        self.count()?;
        let bytes = read_blob(self.source, &manifest.config, self.limits.config_bytes).await;
        ImageConfig::platform_of(&bytes.about(self.image)?).about(self.image)
    }

    fn count(&mut self) -> Result<(), PullError> {
        self.left = self.left.checked_sub(1).ok_or_else(|| PullError::Nested(self.image.to_owned()))?;
        Ok(())
    }
}

/// The media type of a document. If the index above and the registry both give one, they must agree.
fn agreed(index: Option<String>, registry: Option<String>) -> Result<Option<String>, ManifestError> {
    match (index, registry) {
        (Some(document), Some(stated)) if document != stated => {
            Err(ManifestError::MediaTypeMismatch { document, stated })
        }
        (index, registry) => Ok(index.or(registry)),
    }
}

/// The media type of a document for which none is stated: a layout that is read by digest may not state one.
fn unstated(document: &Document) -> &'static str {
    match document {
        Document::Image(_) => "application/vnd.oci.image.manifest.v1+json",
        Document::Index(_) => "application/vnd.oci.image.index.v1+json",
    }
}

#[cfg(test)]
mod tests;
