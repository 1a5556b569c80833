//! Manifests, indexes and configs: OCI image-spec 1.1 and Docker image manifest v2 schema 2.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::image::digest::Digest;

/// A typed pointer to a blob or manifest (OCI image-spec 1.1, descriptor.md). `urls` and `data`
/// are not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type of the bytes pointed at.
    pub media_type: String,
    /// Their digest.
    pub digest: Digest,
    /// Their length in bytes.
    pub size: u64,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}
