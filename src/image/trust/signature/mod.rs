//! Signatures: what is found ([`Claim`]), what is expected ([`Expectation`]), and what holds ([`Signed`]).

use serde::{Deserialize, Serialize};

use crate::image::digest::Digest;
use crate::kind::Kind;

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

impl SignatureError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        Kind::Denied
    }
}
