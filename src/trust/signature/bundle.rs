//! Sigstore bundles v0.3: a DSSE envelope with an in-toto statement, or a signature over the manifest itself.

use serde::Deserialize;
use serde::de::IgnoredAny;
use sigstore_verify::types::bundle::MessageSignature;
use sigstore_verify::types::{Bundle, DsseEnvelope, HashAlgorithm};

use super::candidate::{Candidate, Content, Origin};
use super::{SignatureError, json::strict, quoted};
use crate::oci::digest::Digest;

/// The media type of the bundle, and of the layer that it is stored as.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

const IN_TOTO: &str = "application/vnd.in-toto+json";
const STATEMENTS: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];

/// The parts that a key's signature needs. What is in `verificationMaterial` may be of a newer kind than we know, and
/// does not matter to it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    media_type: String,
    #[serde(rename = "verificationMaterial")]
    _verification_material: IgnoredAny,
    dsse_envelope: Option<DsseEnvelope>,
    message_signature: Option<MessageSignature>,
}

fn malformed(what: impl std::fmt::Display) -> SignatureError {
    SignatureError::malformed(format!("the bundle is malformed: {what}"))
}

/// Takes a bundle apart.
pub(super) fn candidate(json: &str) -> Result<Candidate<'_>, SignatureError> {
    let wire: Wire = strict(json.as_bytes()).map_err(malformed)?;
    if wire.media_type != MEDIA_TYPE {
        return Err(malformed(format!("its media type is {}, not {MEDIA_TYPE}", quoted(&wire.media_type))));
    }
    let (content, signature) = match (wire.dsse_envelope, wire.message_signature) {
        (Some(envelope), None) => from_envelope(envelope)?,
        (None, Some(message)) => from_message(message)?,
        _ => return Err(malformed("it must hold one signature, dsseEnvelope or messageSignature")),
    };
    Ok(Candidate { content, signature, origin: Origin::Bundle(json) })
}

/// The bundle in full, certificate, log entries and time stamps included.
pub(super) fn whole(json: &str) -> Result<Bundle, SignatureError> {
    Bundle::from_json(json).map_err(malformed)
}

fn from_envelope(envelope: DsseEnvelope) -> Result<(Content, Vec<u8>), SignatureError> {
    if envelope.payload_type != IN_TOTO {
        return Err(malformed(format!("its payload is {}, not {IN_TOTO}", quoted(&envelope.payload_type))));
    }
    let signed = envelope.pae();
    let payload = envelope.payload.as_bytes().to_vec();
    Ok((Content::Statement { payload, signed }, envelope.signature.sig.as_bytes().to_vec()))
}

fn from_message(message: MessageSignature) -> Result<(Content, Vec<u8>), SignatureError> {
    let digest = message.message_digest.ok_or_else(|| malformed("it does not say what it signs"))?;
    let sha256 = <[u8; 32]>::try_from(digest.digest.as_bytes());
    match (digest.algorithm, sha256) {
        (HashAlgorithm::Sha2256, Ok(sha256)) => {
            Ok((Content::Manifest(Digest::from_bytes(sha256)), message.signature.as_bytes().to_vec()))
        }
        // A manifest is known by its sha256 here, and its bytes are not at hand.
        _ => Err(malformed(format!("it signs a {} digest, not one of SHA2_256", digest.algorithm))),
    }
}

/// An in-toto statement.
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
    /// One image is signed at a time: with several subjects it would be open which one was meant.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, SignatureError> {
        let malformed =
            |what: String| SignatureError::malformed(format!("the signed statement is malformed: {what}"));
        let wire: WireStatement = strict(payload).map_err(|e| malformed(e.to_string()))?;
        if !STATEMENTS.contains(&wire.kind.as_str()) {
            return Err(malformed(format!("its type is {}", quoted(&wire.kind))));
        }
        let [subject] = &wire.subject[..] else {
            return Err(malformed(format!("it has {} subjects, expected one", wire.subject.len())));
        };
        let digest = format!("sha256:{}", subject.digest.sha256).parse();
        let digest = digest.map_err(|e: crate::oci::digest::DigestError| malformed(e.to_string()))?;
        Ok(Self { predicate_type: wire.predicate_type, digest })
    }
}
