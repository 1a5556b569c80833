//! The path from what a reference resolved to, through indexes, to the manifest of one platform.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::PullError;
use super::error::About as _;
use crate::oci::Source;
use crate::oci::digest::Digest;
use crate::oci::limits::ImageLimits;
use crate::oci::manifest::{Descriptor, Document, Manifest, ManifestError};
use crate::oci::platform::Platform;
use crate::oci::reference::Version;

/// Indexes within indexes beyond this depth are refused.
const INDEX_DEPTH_MAX: usize = 4;

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
        let mut wanted = (top, None);
        let (mut indexes, mut documents, mut target) = (Vec::new(), Vec::new(), None);
        // An index may list indexes (image-spec 1.1, image-index.md); nobody nests them deeply.
        for _ in 0..INDEX_DEPTH_MAX {
            let raw = source.manifest(&Version::Digest(wanted.0)).await.about(image)?;
            let stated = agreed(wanted.1, raw.media_type).about(image)?;
            let document = Document::parse_within(limits, &raw.bytes, stated.as_deref()).about(image)?;
            let own = Descriptor {
                media_type: stated.unwrap_or_else(|| unstated(&document).to_owned()),
                digest: raw.digest,
                size: raw.bytes.len() as u64,
                annotations: BTreeMap::new(),
            };
            // Evidence is kept as JSON, which cannot hold a document that is not UTF-8.
            if let Ok(text) = String::from_utf8(raw.bytes.into()) {
                documents.push(Arc::new(RawDocument { media_type: own.media_type.clone(), text }));
            }
            match document {
                Document::Image(manifest) => {
                    let (digest, target) = (own.digest, target.unwrap_or(own));
                    return Ok(Self { manifest, digest, indexes, documents, target });
                }
                Document::Index(index) => {
                    let chosen = &index.choose(platform).about(image)?.descriptor;
                    wanted = (chosen.digest, Some(chosen.media_type.clone()));
                    indexes.insert(0, own.digest);
                    target.get_or_insert(own);
                }
            }
        }
        Err(PullError::Nested(image.to_owned()))
    }

    /// The digests that a signature may be over: the manifest's, then the indexes'.
    pub fn digests(&self) -> Vec<Digest> {
        std::iter::once(self.digest).chain(self.indexes.iter().copied()).collect()
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
