//! Helm charts: the file's name is in the config.

use serde::Deserialize;

use super::{ArtifactError, shown};
use crate::oci::manifest::{ArtifactKind, Manifest};

#[derive(Deserialize)]
struct Chart {
    name: String,
    version: String,
}

/// `NAME-VERSION.tgz` and `NAME-VERSION.tgz.prov`, as `helm pull` names them. The tag has `_` for the `+` of a version.
pub(super) fn names(manifest: &Manifest, config: &[u8]) -> Result<Vec<Option<String>>, ArtifactError> {
    let chart: Chart = serde_json::from_slice(config).map_err(|error| ArtifactError::Config {
        kind: ArtifactKind::Helm,
        why: shown(&error.to_string()),
    })?;
    let file = format!("{}-{}.tgz", chart.name, chart.version);
    let name = |media_type: &str| {
        if media_type.ends_with(".prov") { format!("{file}.prov") } else { file.clone() }
    };
    Ok(manifest.layers.iter().map(|layer| Some(name(&layer.descriptor.media_type))).collect())
}
