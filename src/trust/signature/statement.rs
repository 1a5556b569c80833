//! In-toto statements, which DSSE envelopes carry.

use serde::Deserialize;

use super::error::{SignatureError, quoted};
use super::json::strict;
use crate::oci::digest::{Digest, DigestError};

const TYPES: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];

/// An in-toto statement about one image.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) predicate_type: String,
    pub(super) digest: Digest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireStatement {
    #[serde(rename = "_type")]
    kind: String,
    predicate_type: String,
    subject: Vec<WireSubject>,
}

#[derive(Deserialize)]
struct WireSubject {
    digest: WireDigests,
}

#[derive(Deserialize)]
struct WireDigests {
    sha256: String,
}

impl Statement {
    /// Parses a statement with exactly one subject: with several it is ambiguous which image was signed.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, SignatureError> {
        let malformed =
            |what: String| SignatureError::malformed(format!("the signed statement is malformed: {what}"));
        let wire: WireStatement = strict(payload).map_err(|e| malformed(e.to_string()))?;
        if !TYPES.contains(&wire.kind.as_str()) {
            return Err(malformed(format!("its type is {}", quoted(&wire.kind))));
        }
        let [subject] = &wire.subject[..] else {
            return Err(malformed(format!("it has {} subjects, expected one", wire.subject.len())));
        };
        // The grammar of digests refuses upper case and other lengths.
        let digest = format!("sha256:{}", subject.digest.sha256).parse();
        let digest = digest.map_err(|e: DigestError| malformed(e.to_string()))?;
        Ok(Self { predicate_type: wire.predicate_type, digest })
    }
}
