//! Writing seals into manifests, and sealed manifests into indexes: from document to document, without I/O.
//!
//! Everything else in a document stays. It is edited as JSON and not as the types of [`crate::oci::manifest`],
//! which have only the fields that this driver uses.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{FAITHFUL, MERGED, Seal, SealError};
use crate::image::verity::VerityDigest;
use crate::kind::Kind;
use crate::oci::digest::Digest;
use crate::oci::manifest::{Document, ManifestError};

/// Why a document cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// It is sealed with another digest.
    #[error(
        "annotation {annotation} says {found}, but the image is {computed}; another image was sealed. \
         Find out why, or replace the digest with --force"
    )]
    Sealed {
        /// The annotation.
        annotation: &'static str,
        /// The digest in the manifest.
        found: VerityDigest,
        /// The digest that was computed here.
        computed: VerityDigest,
    },
    /// It is sealed by other rules.
    #[error("it is sealed by annotation {0}, for an image made by other rules; replace that with --force")]
    OtherRules(&'static str),
    /// The document's format has no annotations.
    #[error(
        "it is a Docker manifest (schema 2), which has no annotations; convert it first, for example with \
         `skopeo copy --format=oci`"
    )]
    Docker,
    /// Its seal is malformed.
    #[error("{0}")]
    Seal(#[from] SealError),
    /// It is not a manifest.
    #[error("{0}")]
    Manifest(#[from] ManifestError),
    /// A part is not of the JSON type that the specification requires.
    #[error("its {0} is not what the specification says; push the image again")]
    Shape(&'static str),
}

impl EditError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Sealed { .. } | Self::OtherRules(_) => Kind::Conflict,
            Self::Docker => Kind::Unsupported,
            Self::Seal(error) => error.kind(),
            Self::Manifest(error) => error.kind(),
            Self::Shape(_) => Kind::Invalid,
        }
    }
}

/// What became of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edited {
    /// It was so already.
    Unchanged,
    /// The new document.
    Changed(Vec<u8>),
}

/// Writes `seal` into a manifest. If the manifest is sealed already, its digest may also be one of `accepted` (of
/// the other canonical rules). Any other digest is refused. With `force`, every other digest is replaced.
///
/// # Errors
/// See [`EditError`].
pub fn seal_manifest(
    bytes: &[u8],
    seal: Seal,
    accepted: &[VerityDigest],
    force: bool,
) -> Result<Edited, EditError> {
    let Document::Image(manifest) = Document::parse(bytes, None)? else {
        return Err(EditError::Shape("document"));
    };
    match Seal::of(&manifest) {
        Ok(Some(found)) if found.annotation == seal.annotation => {
            // Sealed by a tool that follows the other canonical rule: nothing to correct.
            if found.digest == seal.digest || !force && accepted.contains(&found.digest) {
                return Ok(Edited::Unchanged);
            }
            if !force {
                let Seal { annotation, digest } = found;
                return Err(EditError::Sealed { annotation, found: digest, computed: seal.digest });
            }
        }
        Ok(Some(found)) if !force => return Err(EditError::OtherRules(found.annotation)),
        Ok(_) => {}
        // A malformed annotation is replaced like a wrong one.
        Err(_) if force => {}
        Err(error) => return Err(error.into()),
    }
    // A manifest without a media type is OCI's.
    let mut document = object(bytes)?;
    let oci = |value: &Value| value.as_str().is_some_and(|name| name.starts_with("application/vnd.oci."));
    if document.get("mediaType").is_some_and(|value| !oci(value)) {
        return Err(EditError::Docker);
    }
    let annotations = document.entry("annotations").or_insert(Value::Null);
    if annotations.is_null() {
        *annotations = Value::Object(Map::new());
    }
    let annotations = annotations.as_object_mut().ok_or(EditError::Shape("annotations"))?;
    // Only one annotation is compared. The other one would stay with a digest that nobody checks.
    for annotation in [MERGED, FAITHFUL] {
        annotations.remove(annotation);
    }
    annotations.insert(seal.annotation.to_owned(), seal.digest.hex().into());
    Ok(Edited::Changed(Value::Object(document).to_string().into_bytes()))
}

/// Replaces manifests that an index lists. The map leads from the old digest to the new one and its size.
///
/// # Errors
/// The document is not an index.
pub fn replace_manifests(
    bytes: &[u8],
    replacements: &BTreeMap<Digest, (Digest, u64)>,
) -> Result<Edited, EditError> {
    let Document::Index(_) = Document::parse(bytes, None)? else {
        return Err(EditError::Shape("document"));
    };
    let mut document = object(bytes)?;
    let entries = document.get_mut("manifests").and_then(Value::as_array_mut);
    let mut changed = false;
    for entry in entries.ok_or(EditError::Shape("list of manifests"))? {
        let digest = entry.get("digest").and_then(Value::as_str).and_then(|text| text.parse().ok());
        if let Some((digest, size)) = digest.and_then(|digest: Digest| replacements.get(&digest)) {
            let entry = entry.as_object_mut().ok_or(EditError::Shape("list of manifests"))?;
            entry.insert("digest".to_owned(), digest.to_string().into());
            entry.insert("size".to_owned(), (*size).into());
            // An embedded copy of the old manifest.
            entry.remove("data");
            changed = true;
        }
    }
    // An index that stays keeps its bytes, and so its digest.
    if !changed {
        return Ok(Edited::Unchanged);
    }
    Ok(Edited::Changed(Value::Object(document).to_string().into_bytes()))
}

/// The document as a JSON object.
fn object(bytes: &[u8]) -> Result<Map<String, Value>, EditError> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(EditError::Shape("document")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

    fn seal(byte: u8) -> Seal {
        Seal { annotation: MERGED, digest: VerityDigest([byte; 32]) }
    }

    fn manifest(media_type: &str) -> Vec<u8> {
        let digest = Digest::of(b"").to_string();
        let config = "application/vnd.oci.image.config.v1+json";
        serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type, "layers": [], "future": {"kept": [1, 2.5]},
            "config": {"mediaType": config, "digest": digest, "size": 2}, "annotations": {"mine": "stays"},
        })
        .to_string()
        .into_bytes()
    }

    fn changed(edited: Edited) -> Vec<u8> {
        let Edited::Changed(bytes) = edited else { panic!("unchanged") };
        bytes
    }

    #[test]
    fn a_seal_is_written_once_and_everything_else_stays() {
        let sealed = changed(seal_manifest(&manifest(OCI), seal(1), &[], false).unwrap());
        let value: Value = serde_json::from_slice(&sealed).unwrap();
        assert_eq!(value["annotations"][MERGED], "01".repeat(32));
        assert_eq!(
            (&value["annotations"]["mine"], &value["future"]["kept"][1]),
            (&"stays".into(), &2.5.into())
        );
        assert_eq!(seal_manifest(&sealed, seal(1), &[], false).unwrap(), Edited::Unchanged);
        let other_rules = seal_manifest(&sealed, seal(2), &[VerityDigest([1; 32])], false).unwrap();
        assert_eq!(other_rules, Edited::Unchanged);
        let error = seal_manifest(&sealed, seal(2), &[], false).unwrap_err();
        assert!(
            matches!(error, EditError::Sealed { .. }) && error.to_string().contains("--force"),
            "{error}"
        );
        let forced = changed(seal_manifest(&sealed, seal(2), &[], true).unwrap());
        let value: Value = serde_json::from_slice(&forced).unwrap();
        assert_eq!(value["annotations"][MERGED], "02".repeat(32));
        let ours = Seal { annotation: FAITHFUL, ..seal(3) };
        assert!(matches!(seal_manifest(&forced, ours, &[], false), Err(EditError::OtherRules(MERGED))));
        let value: Value =
            serde_json::from_slice(&changed(seal_manifest(&forced, ours, &[], true).unwrap())).unwrap();
        assert!(value["annotations"].get(MERGED).is_none(), "one of them only");
    }

    #[test]
    fn what_cannot_carry_a_seal_says_so() {
        let docker = manifest("application/vnd.docker.distribution.manifest.v2+json");
        let docker = String::from_utf8(docker).unwrap().replace(
            "application/vnd.oci.image.config.v1+json",
            "application/vnd.docker.container.image.v1+json",
        );
        let error = seal_manifest(docker.as_bytes(), seal(1), &[], false).unwrap_err();
        assert!(matches!(error, EditError::Docker), "{error}");
        assert!(seal_manifest(b"[]", seal(1), &[], false).is_err());
        let index = br#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(matches!(seal_manifest(index, seal(1), &[], false), Err(EditError::Shape(_))));
    }

    #[test]
    fn an_index_leads_to_the_new_manifests() {
        let (old, new, other) = (Digest::of(b"old"), Digest::of(b"new"), Digest::of(b"other"));
        let entry = |digest: Digest, os: &str| {
            serde_json::json!({"mediaType": OCI, "digest": digest, "size": 1, "data": "eA==",
                               "platform": {"os": os, "architecture": "amd64"}})
        };
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry(old, "linux"), entry(other, "unknown")]});
        let replacements = BTreeMap::from([(old, (new, 77))]);
        let edited = changed(replace_manifests(index.to_string().as_bytes(), &replacements).unwrap());
        let value: Value = serde_json::from_slice(&edited).unwrap();
        assert_eq!(value["manifests"][0]["digest"], new.to_string());
        assert_eq!(
            (&value["manifests"][0]["size"], &value["manifests"][0]["platform"]["os"]),
            (&77.into(), &"linux".into())
        );
        assert!(value["manifests"][0].get("data").is_none());
        assert_eq!(value["manifests"][1], entry(other, "unknown"));
        assert_eq!(replace_manifests(&edited, &replacements).unwrap(), Edited::Unchanged);
    }
}
