//! KitOps' ModelKits: tar archives from the root, described by their config.

use serde::Deserialize;

use super::{ArtifactError, shown};
use crate::oci::manifest::{ArtifactKind, Manifest};

#[derive(Deserialize)]
struct Kit {
    model: Option<Model>,
}

#[derive(Deserialize)]
struct Model {
    path: Option<String>,
}

/// Refuses a ModelKit that is not whole: its model may be that of another one, by reference.
pub(super) fn check(manifest: &Manifest, config: &[u8]) -> Result<(), ArtifactError> {
    let kit: Kit = serde_json::from_slice(config).map_err(|error| ArtifactError::Config {
        kind: ArtifactKind::KitOps,
        why: shown(&error.to_string()),
    })?;
    let holds_model = manifest
        .layers
        .iter()
        .any(|layer| layer.descriptor.media_type.starts_with("application/vnd.kitops.modelkit.model."));
    match kit.model.and_then(|model| model.path) {
        Some(path) if !holds_model && !path.is_empty() => {
            Err(ArtifactError::OtherKit { reference: shown(&path) })
        }
        _ => Ok(()),
    }
}
