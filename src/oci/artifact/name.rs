//! Names of files as annotations state them.

use super::{ArtifactError, TITLE, shown};
use crate::oci::manifest::{ArtifactKind, Descriptor};

const FILEPATH: &str = "org.cncf.model.filepath";
const OLD_FILEPATH: &str = "org.cnai.model.filepath";

/// Longest path and longest name in bytes: `PATH_MAX` less the NUL, and `NAME_MAX`.
const PATH_MAX: usize = 4095;
const NAME_MAX: usize = 255;

/// The name that a layer's annotations state, clean, if they state one.
pub(super) fn stated(
    kind: ArtifactKind,
    index: usize,
    blob: &Descriptor,
) -> Result<Option<String>, ArtifactError> {
    // For models the path is what their tools read, and the title is for others. Elsewhere the title is meant.
    let order = match kind {
        ArtifactKind::ModelPack | ArtifactKind::Docker => [FILEPATH, OLD_FILEPATH, TITLE],
        _ => [TITLE, FILEPATH, OLD_FILEPATH],
    };
    let found = order.into_iter().find_map(|key| {
        let value = blob.annotations.get(key)?;
        (!value.is_empty()).then_some((key, value))
    });
    let Some((annotation, value)) = found else { return Ok(None) };
    let path = value.strip_prefix("./").unwrap_or(value);
    check(index, annotation, path)?;
    Ok(Some(path.to_owned()))
}

/// The directory that a title names; `None` for the root.
pub(super) fn directory(
    index: usize,
    annotation: &'static str,
    title: &str,
) -> Result<Option<String>, ArtifactError> {
    let path = title.strip_prefix("./").unwrap_or(title);
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() || path == "." {
        return Ok(None);
    }
    check(index, annotation, path)?;
    Ok(Some(path.to_owned()))
}

/// Refuses a path that leaves the root or that no filesystem holds.
pub(super) fn check(layer: usize, annotation: &'static str, path: &str) -> Result<(), ArtifactError> {
    let why = if path.is_empty() {
        Some("is empty")
    } else if path.starts_with('/') {
        Some("is absolute")
    } else if path.len() > PATH_MAX {
        Some("is longer than a path can be")
    } else {
        path.split('/').find_map(|part| match part {
            "" => Some("has an empty component"),
            "." | ".." => Some("has a component . or .."),
            long if long.len() > NAME_MAX => Some("has a component that is longer than 255 bytes"),
            nul if nul.contains('\0') => Some("holds a NUL byte"),
            _ => None,
        })
    };
    match why {
        Some(why) => Err(ArtifactError::Name { layer, annotation, name: shown(path), why }),
        None => Ok(()),
    }
}
