//! Cosign's `.sig` signatures: a simple signing document (containers-signature(5)) that is signed byte for byte, with
//! everything else in annotations (cosign's SIGNATURE_SPEC.md).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::annotations::Annotations;
use super::candidate::{Candidate, Content, Origin};
use super::claim::Claim;
use super::error::SignatureError;

/// Parses a [`Claim::Simple`].
pub(super) fn candidate(claim: &Claim) -> Result<Candidate<'_>, SignatureError> {
    let Claim::Simple { payload, signature, certificate, chain, bundle, timestamp } = claim else {
        return Err(SignatureError::malformed("it is not a .sig signature"));
    };
    let signature = STANDARD
        .decode(signature.trim())
        .map_err(|_| SignatureError::malformed("the annotation with the signature is not base64"))?;
    Ok(Candidate {
        content: Content::Simple(payload.clone().into_bytes()),
        signature,
        origin: Origin::Simple(Annotations {
            certificate: filled(certificate),
            chain: filled(chain),
            bundle: filled(bundle),
            timestamp: filled(timestamp),
        }),
    })
}

/// Cosign writes an annotation without a value as an empty one, which counts as absent.
fn filled(annotation: &Option<String>) -> Option<&str> {
    annotation.as_deref().filter(|text| !text.trim().is_empty())
}
