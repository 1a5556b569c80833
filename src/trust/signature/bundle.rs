//! Sigstore bundles v0.3: a DSSE envelope with an in-toto statement, or a signature over the manifest itself.

use serde::Deserialize;
use serde::de::IgnoredAny;
use sigstore_verify::types::bundle::MessageSignature;
use sigstore_verify::types::{Bundle, DsseEnvelope, HashAlgorithm};

use super::candidate::{Candidate, Content, Origin};
use super::error::{SignatureError, quoted};
use super::json::strict;
use crate::oci::digest::Digest;

/// The media type of the bundle, and of the layer that it is stored as.
pub(in crate::trust) const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

const IN_TOTO: &str = "application/vnd.in-toto+json";

/// The parts that a signature by a key needs. `verificationMaterial` is not parsed here: its fields may be newer than
/// this code, and a key does not need them.
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

/// Parses the parts that [`Candidate`] needs.
pub(super) fn candidate(json: &str) -> Result<Candidate<'_>, SignatureError> {
    let wire: Wire = strict(json.as_bytes()).map_err(malformed)?;
    if wire.media_type != MEDIA_TYPE {
        return Err(malformed(format!("its media type is {}, not {MEDIA_TYPE}", quoted(&wire.media_type))));
    }
    let (content, signature) = match (wire.dsse_envelope, wire.message_signature) {
        (Some(envelope), None) => from_envelope(envelope)?,
        (None, Some(message)) => from_message(message)?,
        // With two signatures it would be ambiguous which one counts.
        _ => return Err(malformed("it must hold one signature, dsseEnvelope or messageSignature")),
    };
    Ok(Candidate { content, signature, origin: Origin::Bundle(json) })
}

/// Parses all of the bundle, with certificate, log entries and time stamps.
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
        // Only the manifest's sha256 is known here, not its bytes, so that another hash cannot be computed.
        _ => Err(malformed(format!("it signs a {} digest, not one of SHA2_256", digest.algorithm))),
    }
}
