//! Signatures: what is found ([`Claim`]), what is expected ([`Expectation`]), and what holds ([`Signed`]).
//!
//! [`verify`] decides from its arguments alone: no network, no files, and no clock, except that a log's time must not
//! lie in the future. A claim is foreign: nothing that it says is believed before its signature has been verified, and
//! what two readers could understand differently (keys given twice, several subjects) is refused.
//!
//! The formats become one [`candidate::Candidate`] each, which a key or a certificate is then held against.
//! Keys are verified here with OpenSSL; certificates and logs by the `sigstore-verify` crate on OpenSSL
//! ([`provider`]).

use serde::{Deserialize, Serialize};

use crate::kind::Kind;
use crate::oci::digest::Digest;

mod bundle;
mod candidate;
mod expectation;
mod json;
mod key;
mod promise;
mod provider;
mod root;
mod simple;

pub use bundle::MEDIA_TYPE as BUNDLE_MEDIA_TYPE;
pub use expectation::{Authority, Expectation, Formats, Identity, Log, Matcher, SIGNATURE_PREDICATE};
pub use key::PublicKey;
pub use root::{CertificateAuthorities, TrustedRoot};

/// A claim whose parts are together larger than this is refused, in bytes. A bundle has some 10 KiB.
pub const CLAIM_MAX: usize = 1 << 20;

/// Something that claims to be a signature. Raw bytes, so that it can be verified again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "format")]
pub enum Claim {
    /// One layer of a cosign `sha256-<hex>.sig` manifest (cosign's SIGNATURE_SPEC.md).
    Simple {
        /// The blob that is signed: a simple signing document, as text.
        payload: String,
        /// Annotation `dev.cosignproject.cosign/signature`, base64.
        signature: String,
        /// Annotation `dev.sigstore.cosign/certificate`, PEM.
        certificate: Option<String>,
        /// Annotation `dev.sigstore.cosign/chain`, PEM.
        chain: Option<String>,
        /// Annotation `dev.sigstore.cosign/bundle`, JSON: the log's promise (SET).
        bundle: Option<String>,
        /// Annotation `dev.sigstore.cosign/rfc3161timestamp`, JSON.
        timestamp: Option<String>,
    },
    /// A sigstore bundle v0.3, JSON text.
    Bundle {
        /// The bundle.
        json: String,
    },
}

/// A signature that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The digest that is signed: one of those asked for.
    pub digest: Digest,
    /// The repository that the signature names (`critical.identity.docker-reference`); bundles name none.
    pub docker_reference: Option<String>,
    /// Whose signature it is, for people: a key's fingerprint, or an identity and its issuer.
    pub signer: String,
}

/// Why a claim is not a signature that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It is malformed.
    #[error("{0}")]
    Malformed(String),
    /// It is well-formed and does not hold.
    #[error("{0}")]
    Invalid(String),
}

/// Verifies one claim: that it is a signature of one of `digests` as `expectation` wants it.
///
/// # Errors
/// It is not; the message says which check failed, for whom and over what.
pub fn verify(
    claim: &Claim,
    expectation: &Expectation,
    digests: &[Digest],
) -> Result<Signed, SignatureError> {
    let taken = match claim {
        Claim::Simple { .. } => expectation.formats.simple,
        Claim::Bundle { .. } => expectation.formats.bundle,
    };
    if !taken {
        return Err(SignatureError::Invalid(format!("it is {claim}, which the policy does not take")));
    }
    if claim.size() > CLAIM_MAX {
        return Err(SignatureError::malformed(format!("it is larger than the limit of {CLAIM_MAX} bytes")));
    }
    let candidate = match claim {
        Claim::Simple { .. } => simple::candidate(claim)?,
        Claim::Bundle { json } => bundle::candidate(json)?,
    };
    let signer = candidate.signer(expectation)?;
    candidate.signed(signer, expectation, digests)
}

impl Claim {
    /// The length of all its parts together, in bytes.
    pub fn size(&self) -> usize {
        match self {
            Self::Simple { payload, signature, certificate, chain, bundle, timestamp } => {
                let optional = [certificate, chain, bundle, timestamp];
                let optional: usize = optional.into_iter().flatten().map(String::len).sum();
                payload.len() + signature.len() + optional
            }
            Self::Bundle { json } => json.len(),
        }
    }
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Simple { .. } => "a cosign .sig signature",
            Self::Bundle { .. } => "a sigstore bundle",
        })
    }
}

/// Foreign text as it may stand in a message: short, and without control characters.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(160).collect();
    format!("{short:?}")
}

impl SignatureError {
    fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed(what.into())
    }

    fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid(what.into())
    }

    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        Kind::Denied
    }
}
