//! The config and the manifest of what is pushed (OCI image-spec 1.1, config.md and manifest.md). Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::compress::Compression;
use super::describe::Blob;
use super::error::PushError;
use super::item::Item;
use super::model;
use crate::oci::digest::Digest;
use crate::oci::manifest::OCI_MANIFEST;
use crate::oci::platform::Platform;

const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const TITLE: &str = "org.opencontainers.image.title";

/// What a directory becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// An image, for this platform.
    Image {
        /// How its layers are compressed.
        compression: Compression,
        /// The platform that its config names.
        platform: Platform,
    },
    /// A model by the CNCF's ModelPack, each file a blob.
    ModelPack,
    /// An artifact of this type, each file a blob, as `oras` pushes them.
    Files(String),
}

/// A manifest, and the config that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Documents {
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
}

/// Writes the documents for blobs that are layers of an image.
pub(super) fn image(
    blobs: &[Blob],
    compression: Compression,
    platform: &Platform,
    annotations: &BTreeMap<String, String>,
) -> Documents {
    let diff_ids: Vec<Digest> = blobs.iter().filter_map(|blob| blob.facts.diff_id).collect();
    let platform = platform.to_string();
    let mut words = platform.splitn(3, '/');
    let (os, architecture, variant) = (words.next(), words.next(), words.next());
    let mut config = json!({
        "architecture": architecture, "os": os, "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    if let Some(variant) = variant {
        config["variant"] = variant.into();
    }
    let layer = |blob: &Blob| descriptor(compression.media_type(), blob, &blob.facts.annotations);
    let layers: Vec<Value> = blobs.iter().map(layer).collect();
    documents(None, (IMAGE_CONFIG, config), &layers, annotations)
}

/// Writes the documents for blobs that are files, in the order of `items`.
///
/// # Errors
/// A name is not UTF-8.
pub(super) fn artifact(
    blobs: &[Blob],
    items: &[&Item],
    shape: &Shape,
    annotations: &BTreeMap<String, String>,
) -> Result<Documents, PushError> {
    let is_model = matches!(shape, Shape::ModelPack);
    let layers = blobs.iter().zip(items).map(|(blob, item)| {
        let path = std::str::from_utf8(&item.path).map_err(|_| PushError::NotText { path: item.shown() })?;
        let mut said = BTreeMap::from([(TITLE.to_owned(), path.to_owned())]);
        let mut media_type = "application/octet-stream".to_owned();
        if is_model {
            said.insert(model::FILEPATH.to_owned(), path.to_owned());
            said.insert(model::METADATA.to_owned(), model::metadata(item, path));
            media_type = model::media_type(path);
        }
        Ok(descriptor(&media_type, blob, &said))
    });
    let layers = layers.collect::<Result<Vec<_>, PushError>>()?;
    let files: Vec<Digest> = blobs.iter().map(|blob| blob.new.digest).collect();
    Ok(match shape {
        Shape::Files(kind) => documents(Some(kind), (EMPTY, json!({})), &layers, annotations),
        _ => {
            let config = json!({
                "descriptor": {}, "config": {}, "modelfs": {"type": "layers", "diffIds": files},
            });
            documents(Some(model::ARTIFACT), (model::CONFIG, config), &layers, annotations)
        }
    })
}

fn descriptor(media_type: &str, blob: &Blob, annotations: &BTreeMap<String, String>) -> Value {
    let mut descriptor = json!({"mediaType": media_type, "digest": blob.new.digest, "size": blob.new.size});
    if !annotations.is_empty() {
        descriptor["annotations"] = json!(annotations);
    }
    descriptor
}

fn documents(
    artifact: Option<&str>,
    (media_type, config): (&str, Value),
    layers: &[Value],
    annotations: &BTreeMap<String, String>,
) -> Documents {
    let config = config.to_string().into_bytes();
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": media_type, "digest": Digest::of(&config), "size": config.len()},
        "layers": layers,
    });
    if let Some(artifact) = artifact {
        manifest["artifactType"] = artifact.into();
    }
    if !annotations.is_empty() {
        manifest["annotations"] = json!(annotations);
    }
    Documents { config, manifest: manifest.to_string().into_bytes() }
}
