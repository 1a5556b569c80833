//! What a manifest means: a list of parts, from the manifest and its config alone.
//!
//! A [`Part`] says which blob to fetch and what becomes of it. A [`StoredPart`] is what is left of it once it is in
//! the store: what images are built from, and what their records list. A blob, and what is stored for it, is keyed by
//! its content alone. So where a part lies in the tree must not be part of any key: two images may have the same
//! bytes in different places.

use crate::image::store::ImageRecord;
use crate::oci::digest::Digest;
use crate::oci::manifest::{Descriptor, ImageConfig, LayerCompression, Manifest, ManifestError};

/// How an image is made of blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recipe {
    /// Its parts; later ones lie on top of earlier ones.
    pub parts: Vec<Part>,
    /// The platform that the config states.
    pub platform: String,
}

/// One blob and what it adds to the image's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// A tar archive whose entries are applied to the tree.
    Layer {
        /// Where its bytes are.
        blob: Descriptor,
        /// How they are compressed.
        compression: LayerCompression,
        /// The DiffID that the config claims.
        diff_id: Digest,
    },
}

/// A part whose bytes are in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredPart {
    /// The layer with this DiffID, which was computed here.
    Layer(Digest),
}

impl Recipe {
    /// The recipe of an image, from its manifest and the bytes of its config.
    ///
    /// # Errors
    /// The config is malformed, or it does not belong to the manifest.
    pub(super) fn parse(manifest: &Manifest, config: &[u8]) -> Result<Self, ManifestError> {
        let config = ImageConfig::parse(config, manifest.layers.len())?;
        let layers = manifest.layers.iter().zip(config.diff_ids);
        let parts = layers.map(|(layer, diff_id)| Part::Layer {
            blob: layer.descriptor.clone(),
            compression: layer.compression,
            diff_id,
        });
        Ok(Self { parts: parts.collect(), platform: config.platform.to_string() })
    }

    /// Its parts as they are in the store, if every blob is what the config claims.
    pub(super) fn stored(&self) -> Vec<StoredPart> {
        self.parts.iter().map(Part::stored).collect()
    }
}

impl Part {
    fn stored(&self) -> StoredPart {
        match self {
            Self::Layer { diff_id, .. } => StoredPart::Layer(*diff_id),
        }
    }
}

impl StoredPart {
    /// The parts of an image that is in the store.
    pub fn of(record: &ImageRecord) -> Vec<Self> {
        record.layers.iter().copied().map(Self::Layer).collect()
    }

    /// The parts as a record lists them: DiffIDs.
    pub(super) fn layers(parts: &[Self]) -> Vec<Digest> {
        parts.iter().map(|Self::Layer(diff_id)| *diff_id).collect()
    }
}

/// The blobs of a manifest's parts in their order. They are known before the config is.
pub(super) fn blobs(manifest: &Manifest) -> impl Iterator<Item = &Descriptor> {
    manifest.layers.iter().map(|layer| &layer.descriptor)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::oci::manifest::Layer;

    fn descriptor(of: &[u8]) -> Descriptor {
        let digest = Digest::of(of);
        Descriptor { media_type: "a/b".to_owned(), digest, size: 7, annotations: BTreeMap::new() }
    }

    fn manifest(layers: &[&[u8]]) -> Manifest {
        let layer = |of: &&[u8]| Layer { descriptor: descriptor(of), compression: LayerCompression::Gzip };
        let layers = layers.iter().map(layer).collect();
        Manifest { config: descriptor(b"config"), layers, annotations: BTreeMap::new() }
    }

    fn config(diff_ids: &[Digest]) -> Vec<u8> {
        let rootfs = serde_json::json!({"type": "layers", "diff_ids": diff_ids});
        serde_json::json!({"os": "linux", "architecture": "arm64", "rootfs": rootfs}).to_string().into_bytes()
    }

    #[test]
    fn each_layer_is_paired_with_its_diff_id() {
        let manifest = manifest(&[b"low", b"high", b"low"]);
        let ids = [Digest::of(b"1"), Digest::of(b"2"), Digest::of(b"1")];
        let recipe = Recipe::parse(&manifest, &config(&ids)).unwrap();
        assert_eq!(recipe.platform, "linux/arm64");
        assert_eq!(StoredPart::layers(&recipe.stored()), ids);
        for (part, blob) in recipe.parts.iter().zip(blobs(&manifest)) {
            let Part::Layer { blob: own, compression, .. } = part;
            assert_eq!((own, *compression), (blob, LayerCompression::Gzip));
        }
    }

    #[test]
    fn a_config_of_another_manifest_is_refused() {
        let refused = Recipe::parse(&manifest(&[b"one"]), &config(&[]));
        assert_eq!(refused, Err(ManifestError::NoDiffIds { layers: 1 }));
        let refused = Recipe::parse(&manifest(&[b"one", b"two"]), &config(&[Digest::of(b"1")]));
        assert_eq!(refused, Err(ManifestError::DiffIdCount { diff_ids: 1, layers: 2 }));
        assert!(matches!(Recipe::parse(&manifest(&[]), b"{"), Err(ManifestError::Syntax(_))));
    }
}
