//! The document that a cosign `.sig` signature signs (containers-signature(5)).

use serde::Deserialize;
use serde_json::Value;

use super::error::{SignatureError, quoted};
use super::json::strict;
use crate::oci::digest::Digest;

/// `critical.type` of every such document.
const TYPE: &str = "cosign container image signature";

/// The fields of a document that matter here. Parse only what a verified signature is over.
#[derive(Debug)]
pub(super) struct Payload {
    pub(super) digest: Digest,
    pub(super) docker_reference: String,
}

/// Unknown fields in `critical` are refused: the specification says that none may be ignored.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    critical: Critical,
    #[serde(rename = "optional")]
    _optional: Option<serde_json::Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: CriticalIdentity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct CriticalIdentity {
    docker_reference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: Digest,
}

impl Payload {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, SignatureError> {
        let document: Document = strict(bytes)
            .map_err(|e| SignatureError::malformed(format!("the signed document is malformed: {e}")))?;
        // A document of another tool may mean something else.
        if document.critical.kind != TYPE {
            return Err(SignatureError::invalid(format!(
                "the signed document is of type {}, not {TYPE:?}",
                quoted(&document.critical.kind)
            )));
        }
        Ok(Self {
            digest: document.critical.image.docker_manifest_digest,
            docker_reference: document.critical.identity.docker_reference,
        })
    }
}
