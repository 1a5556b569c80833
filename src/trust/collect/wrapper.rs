//! The manifest that holds claims: only what of it is needed is kept, whatever else is in it.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use crate::oci::digest::Digest;

/// How many layers are kept; the others are only counted.
pub(super) const LAYERS_MAX: usize = 1024;

/// The parts of a manifest that show whether it holds claims.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wrapper {
    pub artifact_type: Option<String>,
    #[serde(default)]
    pub layers: Layers,
    pub subject: Option<Pointer>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Pointer {
    pub digest: Digest,
}

/// The first layers, and the number of all.
#[derive(Debug, Default)]
pub(super) struct Layers {
    pub first: Vec<Layer>,
    pub count: usize,
}

/// A layer as far as it can hold a claim. Other fields and annotations take no memory.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Layer {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default)]
    pub annotations: Option<Annotations>,
}

/// The annotations of a cosign `.sig` signature (cosign's SIGNATURE_SPEC.md).
#[derive(Debug, Default, Deserialize)]
pub(super) struct Annotations {
    #[serde(rename = "dev.cosignproject.cosign/signature")]
    pub signature: Option<String>,
    #[serde(rename = "dev.sigstore.cosign/certificate")]
    pub certificate: Option<String>,
    #[serde(rename = "dev.sigstore.cosign/chain")]
    pub chain: Option<String>,
    #[serde(rename = "dev.sigstore.cosign/bundle")]
    pub bundle: Option<String>,
    #[serde(rename = "dev.sigstore.cosign/rfc3161timestamp")]
    pub timestamp: Option<String>,
}

impl<'de> Deserialize<'de> for Layers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(LayersVisitor)
    }
}

struct LayersVisitor;

impl<'de> Visitor<'de> for LayersVisitor {
    type Value = Layers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of layers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Layers, A::Error> {
        let mut layers = Layers::default();
        while let Some(layer) = access.next_element::<Layer>()? {
            layers.count += 1;
            if layers.first.len() < LAYERS_MAX {
                layers.first.push(layer);
            }
        }
        Ok(layers)
    }
}

impl Wrapper {
    /// Parses a manifest; `None` for anything else.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// What it takes in memory, in bytes, if it was parsed from so many.
    pub(super) fn size(&self, text: usize) -> usize {
        // Every string of it was in the text.
        text + self.layers.first.len() * size_of::<Layer>()
    }
}

impl Annotations {
    /// The length of all of them, in bytes.
    pub(super) fn size(&self) -> usize {
        let all = [&self.signature, &self.certificate, &self.chain, &self.bundle, &self.timestamp];
        all.into_iter().flatten().map(String::len).sum()
    }
}
