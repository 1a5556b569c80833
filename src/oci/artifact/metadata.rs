//! What ModelPack says of a file besides its name (model-spec, annotations.md: `file.metadata+json`).

use serde::Deserialize;

use super::{ArtifactError, shown};
use crate::oci::manifest::Descriptor;

const METADATA: &str = "org.cncf.model.file.metadata+json";
const OLD_METADATA: &str = "org.cnai.model.file.metadata+json";

/// What the tree takes of it. Owners are the builder's and mean nothing on a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Metadata {
    pub executable: bool,
    pub seconds: i64,
    pub nanos: u32,
}

#[derive(Deserialize)]
struct Wire {
    mode: Option<u32>,
    mtime: Option<String>,
    typeflag: Option<u32>,
}

/// Reads a layer's metadata; without any a file is not executable and from 1970.
pub(super) fn of(layer: usize, blob: &Descriptor) -> Result<Metadata, ArtifactError> {
    let found = [METADATA, OLD_METADATA].into_iter().find_map(|key| Some((key, blob.annotations.get(key)?)));
    let Some((annotation, text)) = found else { return Ok(Metadata::default()) };
    let malformed = |why: String| ArtifactError::Annotation { layer, annotation, why: shown(&why) };
    let wire: Wire = serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
    // Number 0 is a regular file, as in a tar header without the character. Writers follow links and skip the rest.
    if let Some(other) = wire.typeflag.filter(|flag| *flag != 0) {
        return Err(malformed(format!("typeflag {other} is not that of a regular file")));
    }
    let mut metadata =
        Metadata { executable: wire.mode.is_some_and(|mode| mode & 0o111 != 0), ..Metadata::default() };
    if let Some(mtime) = wire.mtime.filter(|mtime| !mtime.is_empty()) {
        let time: jiff::Timestamp =
            mtime.parse().map_err(|error: jiff::Error| malformed(format!("mtime: {error}")))?;
        let nanos = time.as_nanosecond();
        metadata.seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).unwrap_or_default();
        metadata.nanos = u32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or_default();
    }
    Ok(metadata)
}
