//! Artifacts: what a manifest means that is not an image's.
//!
//! A layer's media type does not say whether it is an archive: `oras push` calls any file an image layer. So the
//! *kind* of an artifact decides ([`ArtifactKind`]), then what each layer is ([`LayerForm`]), then where it lies in
//! the tree ([`Place`]). All of it is decided from the manifest and its config alone, before a layer is fetched. What
//! the writers do is in `docs/artifacts.md`, with the versions that were looked at.

use serde::{Deserialize, Serialize};

use crate::oci::digest::Digest;
use crate::oci::manifest::{ArtifactKind, Descriptor, LayerForm, Manifest};

mod docker;
mod error;
mod helm;
mod kitops;
mod metadata;
mod name;
mod ollama;
mod yaml;

pub use error::ArtifactError;

/// The annotation that names a layer's file (OCI image-spec 1.1, annotations.md).
const TITLE: &str = "org.opencontainers.image.title";

/// Where a part lies in an artifact's tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The blob is the content of this file. It belongs to root.
    File {
        /// Relative to the root, in the form of [`crate::image::entry::LayerEntry::path`].
        path: String,
        /// Whether anybody may execute it: mode 0555 instead of 0444.
        executable: bool,
        /// Seconds since 1970, rounded down.
        seconds: i64,
        /// Nanoseconds to add.
        nanos: u32,
    },
    /// The blob is an archive whose entries lie at their own names.
    Archive {
        /// Where all entries must lie; anywhere if there is nothing.
        within: Option<String>,
    },
}

/// A layer of an artifact, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactPart<'a> {
    /// Where its bytes are.
    pub blob: &'a Descriptor,
    /// What they are.
    pub form: LayerForm,
    /// Where they lie in the tree.
    pub place: Place,
    /// The digest of the uncompressed archive, where the artifact states it.
    pub diff_id: Option<Digest>,
}

/// A file of an artifact that no blob holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeFile {
    /// Where it lies in the tree.
    pub place: Place,
    /// What is in it; at most 1 MiB.
    pub content: Vec<u8>,
}

/// The file that an artifact's readers make of its config, if its kind has one.
///
/// # Errors
/// The config is malformed, or the file would be too large.
pub fn made(kind: ArtifactKind, config: &[u8]) -> Result<Option<MadeFile>, ArtifactError> {
    if kind != ArtifactKind::KitOps {
        return Ok(None);
    }
    let path = kitops::KITFILE.to_owned();
    let place = Place::File { path, executable: false, seconds: 0, nanos: 0 };
    Ok(Some(MadeFile { place, content: kitops::kitfile(config)? }))
}

/// The parts of an artifact in the order of its layers, from the manifest and the bytes of its config.
///
/// # Errors
/// A layer has no name, or one that cannot lie in a tree; the config or an annotation is malformed; there is nothing
/// to show. A volume is never empty without an error.
pub fn parts<'a>(
    kind: ArtifactKind,
    manifest: &'a Manifest,
    config: &[u8],
) -> Result<Vec<ArtifactPart<'a>>, ArtifactError> {
    let names = match kind {
        ArtifactKind::Helm => helm::names(manifest, config)?,
        ArtifactKind::Ollama => ollama::names(manifest),
        ArtifactKind::Docker => docker::names(manifest),
        ArtifactKind::KitOps => {
            kitops::check(manifest, config)?;
            Vec::new()
        }
        ArtifactKind::Wasm => vec![Some("module.wasm".to_owned())],
        ArtifactKind::ModelPack | ArtifactKind::Other => Vec::new(),
    };
    let mut names = names.into_iter().chain(std::iter::repeat_with(|| None));
    let mut parts = Vec::new();
    for (index, layer) in manifest.layers.iter().enumerate() {
        let known = names.next().flatten();
        let blob = &layer.descriptor;
        let (place, diff_id) = match layer.form {
            LayerForm::Nothing => continue,
            LayerForm::Archive(_) => (archive(kind, index, blob)?, stated_diff_id(index, blob)?),
            LayerForm::File => (file(kind, index, blob, known)?, None),
        };
        parts.push(ArtifactPart { blob, form: layer.form, place, diff_id });
    }
    if parts.is_empty() {
        return Err(ArtifactError::Empty { kind });
    }
    Ok(parts)
}

/// Where an archive's entries may lie.
fn archive(kind: ArtifactKind, index: usize, blob: &Descriptor) -> Result<Place, ArtifactError> {
    // `oras` names the directory that it packed, and every entry starts with that name. Others pack from the root.
    let within = match blob.annotations.get(TITLE) {
        Some(title) if kind == ArtifactKind::Other => name::directory(index, TITLE, title)?,
        _ => None,
    };
    Ok(Place::Archive { within })
}

/// The digest that `oras` states for a directory that it packed.
fn stated_diff_id(index: usize, blob: &Descriptor) -> Result<Option<Digest>, ArtifactError> {
    const CONTENT_DIGEST: &str = "io.deis.oras.content.digest";
    let Some(text) = blob.annotations.get(CONTENT_DIGEST) else { return Ok(None) };
    let parsed = text.parse().map_err(|error: crate::oci::digest::DigestError| {
        ArtifactError::Annotation { layer: index, annotation: CONTENT_DIGEST, why: error.to_string() }
    })?;
    Ok(Some(parsed))
}

/// Where a blob that is a file lies. `known` is the name that the kind itself gives it.
fn file(
    kind: ArtifactKind,
    index: usize,
    blob: &Descriptor,
    known: Option<String>,
) -> Result<Place, ArtifactError> {
    let stated = name::stated(kind, index, blob)?;
    let path = match stated.or(known) {
        Some(path) => path,
        // As podman does: a file whose name nobody has said is still one that somebody has pushed.
        None if kind == ArtifactKind::Other => format!("sha256-{}", blob.digest.hex()),
        None => {
            return Err(ArtifactError::NoName { layer: index, media_type: shown(&blob.media_type), kind });
        }
    };
    name::check(index, "name", &path)?;
    let metadata = metadata::of(index, blob)?;
    Ok(Place::File {
        path,
        executable: metadata.executable,
        seconds: metadata.seconds,
        nanos: metadata.nanos,
    })
}

/// A foreign text, short enough for a message.
fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests;
