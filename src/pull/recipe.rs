//! What a manifest means: a list of parts, from the manifest and its config alone.
//!
//! A [`Part`] says which blob to fetch and what becomes of it. A [`StoredPart`] is what is left of it once it is in
//! the store: what images are built from, and what their records list. A blob, and what is stored for it, is keyed by
//! its content alone. So where a part lies in the tree must not be part of any key: two images may have the same
//! bytes in different places.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::image::layer::file_id;
use crate::image::store::ImageRecord;
use crate::oci::artifact::{self, ArtifactError, MadeFile, Place};
use crate::oci::choice::{Choice, ChoiceError};
use crate::oci::digest::Digest;
use crate::oci::manifest::{Descriptor, ImageConfig, Layer, LayerForm, Manifest, ManifestError};

/// How an image is made of blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recipe {
    /// Its parts; later ones lie on top of earlier ones.
    pub parts: Vec<Part>,
    /// The platform that the config of an image states.
    pub platform: Option<String>,
}

/// One blob and what it adds to the image's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Where its bytes are.
    pub blob: Descriptor,
    /// What they are.
    pub form: LayerForm,
    /// The DiffID that the image claims, if it does.
    pub claimed: Option<Digest>,
    /// Where it lies, if it is not applied on top of what is there.
    pub place: Option<Place>,
    /// Its number among [`layers`]; of what no blob holds, one behind them.
    pub number: usize,
    /// What of it is stored, if it is an archive.
    pub choice: Choice,
    /// The bytes themselves, if they are made of the config and no blob holds them; `blob` then describes them.
    pub made: Option<Bytes>,
}

/// A part whose bytes are in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    /// The DiffID of the layer, which was computed here.
    pub layer: Digest,
    /// Where it lies, if it is not applied on top of what is there.
    pub place: Option<Place>,
}

/// Why a manifest means nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoRecipe {
    /// The config does not fit.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// An artifact has no tree.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

impl Recipe {
    /// The recipe of an image, from its manifest and the bytes of its config.
    ///
    /// # Errors
    /// The config is malformed, or it does not belong to the manifest; an artifact has no tree.
    pub(super) fn parse(manifest: &Manifest, config: &[u8]) -> Result<Self, NoRecipe> {
        if let Some(kind) = manifest.artifact {
            let parts = artifact::parts(kind, manifest, config)?;
            let parts = parts.into_iter().enumerate().map(|(number, part)| Part {
                blob: part.blob.clone(),
                form: part.form,
                claimed: part.diff_id,
                place: Some(part.place),
                number,
                choice: Choice::default(),
                made: None,
            });
            let mut parts: Vec<_> = parts.collect();
            let made = artifact::made(kind, config)?;
            parts.extend(made.map(|file| Part::made(file, parts.len())));
            return Ok(Self { parts, platform: None });
        }
        let config = ImageConfig::parse(config, manifest.layers.len())?;
        let layers = manifest.layers.iter().zip(config.diff_ids);
        let parts = layers.enumerate().map(|(number, (layer, diff_id))| Part {
            blob: layer.descriptor.clone(),
            form: layer.form,
            claimed: Some(diff_id),
            place: None,
            number,
            choice: Choice::default(),
            made: None,
        });
        Ok(Self { parts: parts.collect(), platform: Some(config.platform.to_string()) })
    }

    /// The same with only the parts of which `choice` may take something. A file that it leaves out is none of them; of an
    /// archive only what it takes is to be stored.
    ///
    /// # Errors
    /// The choice takes none, or a pattern of it matches nothing, as far as that is known before anything is fetched.
    pub(super) fn chosen(mut self, choice: &Choice) -> Result<Self, ChoiceError> {
        if choice.is_all() {
            return Ok(self);
        }
        let mut used = choice.unused();
        self.parts.retain_mut(|part| match &part.place {
            Some(Place::File { path, .. }) => choice.takes_noting(path.as_bytes(), &mut used),
            Some(Place::Archive { within: Some(within) }) => choice.may_take_below(within),
            Some(Place::Archive { within: None }) | None => true,
        });
        // What is in an archive is known when it has come.
        if self.parts.iter().all(|part| part.form == LayerForm::File) {
            choice.check_used(&used)?;
            if self.parts.is_empty() {
                return Err(ChoiceError::Nothing { choice: choice.clone() });
            }
        }
        let archives = self.parts.iter_mut().filter(|part| part.form != LayerForm::File);
        archives.for_each(|part| part.choice = choice.clone());
        Ok(self)
    }

    /// The same, storing archives whole.
    pub(super) fn whole(mut self) -> Self {
        self.parts.iter_mut().for_each(|part| part.choice = Choice::default());
        self
    }

    /// Its parts as they are in the store, with the DiffIDs that were computed.
    pub(super) fn stored(&self, found: &[Digest]) -> Vec<StoredPart> {
        let pair = |(part, layer): (&Part, &Digest)| StoredPart { layer: *layer, place: part.place.clone() };
        self.parts.iter().zip(found).map(pair).collect()
    }
}

impl Part {
    /// A file that is made of the config.
    fn made(file: MadeFile, number: usize) -> Self {
        let (digest, size) = (Digest::of(&file.content), file.content.len() as u64);
        let media_type = "application/octet-stream".to_owned();
        Self {
            blob: Descriptor { media_type, digest, size, annotations: BTreeMap::new() },
            form: LayerForm::File,
            claimed: None,
            place: Some(file.place),
            number,
            choice: Choice::default(),
            made: Some(file.content.into()),
        }
    }
}

impl StoredPart {
    /// The parts of an image that is in the store.
    pub fn of(record: &ImageRecord) -> Vec<Self> {
        let places = record.places.iter().cloned().map(Some).chain(std::iter::repeat(None));
        let pair = |(layer, place): (&Digest, Option<Place>)| Self { layer: *layer, place };
        record.layers.iter().zip(places).map(pair).collect()
    }

    /// The parts as a record lists them: DiffIDs, and places if it is an artifact.
    pub(super) fn listed(parts: &[Self]) -> (Vec<Digest>, Vec<Place>) {
        let layers = parts.iter().map(|part| part.layer).collect();
        (layers, parts.iter().filter_map(|part| part.place.clone()).collect())
    }
}

/// By what the store knows a blob of which `choice` is stored: the same bytes are another layer where they are one file and
/// no archive, and where not all of an archive is there.
pub(super) fn key((blob, form): (&Digest, LayerForm), choice: &Choice) -> Digest {
    match form {
        LayerForm::File => file_id(blob),
        LayerForm::Archive(_) | LayerForm::Nothing => choice.key(blob),
    }
}

/// The layers of a manifest that are parts, in their order. They are known before the config is.
pub(super) fn layers(manifest: &Manifest) -> impl Iterator<Item = &Layer> {
    manifest.layers.iter().filter(|layer| layer.form != LayerForm::Nothing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::manifest::LayerCompression;

    fn descriptor(of: &[u8]) -> Descriptor {
        let digest = Digest::of(of);
        Descriptor { media_type: "a/b".to_owned(), digest, size: 7, annotations: BTreeMap::new() }
    }

    fn manifest(layers: &[&[u8]]) -> Manifest {
        let form = LayerForm::Archive(LayerCompression::Gzip);
        let layer = |of: &&[u8]| Layer { descriptor: descriptor(of), form };
        let layers = layers.iter().map(layer).collect();
        Manifest { config: descriptor(b"config"), layers, annotations: BTreeMap::new(), artifact: None }
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
        assert_eq!(recipe.platform.as_deref(), Some("linux/arm64"));
        for ((part, layer), diff_id) in recipe.parts.iter().zip(layers(&manifest)).zip(ids) {
            assert_eq!((&part.blob, part.form), (&layer.descriptor, layer.form));
            assert_eq!((part.claimed, &part.place), (Some(diff_id), &None));
        }
        assert_eq!(StoredPart::listed(&recipe.stored(&ids)), (ids.to_vec(), Vec::new()));
    }

    #[test]
    fn a_config_of_another_manifest_is_refused() {
        let refused = |manifest: &Manifest, config: &[u8]| match Recipe::parse(manifest, config) {
            Err(NoRecipe::Manifest(error)) => error,
            other => panic!("{other:?}"),
        };
        let error = refused(&manifest(&[b"one"]), &config(&[]));
        assert_eq!(error, ManifestError::NoDiffIds { layers: 1 });
        let error = refused(&manifest(&[b"one", b"two"]), &config(&[Digest::of(b"1")]));
        assert_eq!(error, ManifestError::DiffIdCount { diff_ids: 1, layers: 2 });
        assert!(matches!(refused(&manifest(&[]), b"{"), ManifestError::Syntax(_)));
    }
}
