//! What an image or artifact holds, before any of it is fetched: as far as manifest and config tell.

use std::collections::BTreeSet;

use serde::Serialize;

use super::PullError;
use super::error::About as _;
use super::recipe::{Part, Recipe};
use crate::oci::artifact::Place;
use crate::oci::choice::Choice;
use crate::oci::digest::Digest;
use crate::oci::limits::ImageLimits;
use crate::oci::manifest::Manifest;
use crate::oci::{Source, read_blob};

/// What an image or artifact holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outline {
    /// What it is: `image`, or the kind of artifact.
    pub kind: String,
    /// The platform that the config of an image states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// What it is made of, in the order of its layers.
    pub parts: Vec<OutlinedPart>,
    /// Bytes of all their blobs.
    pub total_bytes: u64,
    /// Bytes of those that are wanted.
    pub wanted_bytes: u64,
}

/// A layer, or what is made of the config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutlinedPart {
    /// Its blob, or the bytes that are made.
    pub digest: Digest,
    /// Bytes of it.
    pub size: u64,
    /// The blob's media type.
    pub media_type: String,
    /// The path of the file that the blob is. Without it the blob is an archive, whose files are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The file's mode in the volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// The directory in which an archive's files lie, if it states one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// Whether it would be fetched, or made.
    pub wanted: bool,
    /// Whether it is made of the config, and no blob holds it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub made: bool,
}

/// What the manifest says that there is, and what of it `choice` needs. Reads the config. `image` is for messages.
///
/// # Errors
/// The source does not give the config, or manifest, config and choice mean nothing, as for a pull.
pub async fn outline(
    source: &dyn Source,
    manifest: &Manifest,
    choice: &Choice,
    limits: &ImageLimits,
    image: &str,
) -> Result<Outline, PullError> {
    let config = read_blob(source, &manifest.config, limits.config_bytes).await.about(image)?;
    let recipe = Recipe::parse(manifest, &config).about(image)?;
    let chosen = recipe.clone().chosen(choice).about(image)?;
    let wanted: BTreeSet<usize> = chosen.parts.iter().map(|part| part.number).collect();
    let parts: Vec<_> =
        recipe.parts.iter().map(|part| outlined(part, wanted.contains(&part.number))).collect();
    let sum = |all: &[OutlinedPart], only: bool| {
        let fetched = all.iter().filter(|part| !part.made && (part.wanted || !only));
        let sizes = fetched.map(|part| part.size);
        sizes.fold(0, u64::saturating_add)
    };
    Ok(Outline {
        kind: manifest.artifact.map_or_else(|| "image".to_owned(), |kind| kind.to_string()),
        platform: recipe.platform,
        total_bytes: sum(&parts, false),
        wanted_bytes: sum(&parts, true),
        parts,
    })
}

fn outlined(part: &Part, wanted: bool) -> OutlinedPart {
    let (path, mode, within) = match &part.place {
        Some(Place::File { path, executable, .. }) => {
            (Some(path.clone()), Some(if *executable { 0o555 } else { 0o444 }), None)
        }
        Some(Place::Archive { within }) => (None, None, within.clone()),
        None => (None, None, None),
    };
    let (digest, size, media_type) = (part.blob.digest, part.blob.size, part.blob.media_type.clone());
    OutlinedPart { digest, size, media_type, path, mode, within, wanted, made: part.made.is_some() }
}
