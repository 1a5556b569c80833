//! Claims: what a registry presents as a signature, before anything in it is verified.

use serde::{Deserialize, Serialize};

/// The largest claim that is looked at, all its parts together, in bytes. A bundle has some 10 KiB.
pub(in crate::trust) const CLAIM_MAX: usize = 1 << 20;

/// Something that claims to be a signature. It keeps the raw text, so that it can be verified again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "format")]
pub enum Claim {
    /// One layer of a cosign `sha256-<hex>.sig` manifest (cosign's SIGNATURE_SPEC.md).
    Simple {
        /// The signed blob: a simple signing document, as text.
        payload: String,
        /// Annotation `dev.cosignproject.cosign/signature`, base64.
        signature: String,
        /// Annotation `dev.sigstore.cosign/certificate`, PEM.
        certificate: Option<String>,
        /// Annotation `dev.sigstore.cosign/chain`, PEM.
        chain: Option<String>,
        /// Annotation `dev.sigstore.cosign/bundle`, JSON: the log's inclusion promise (SET).
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

impl Claim {
    /// The length of all its parts together, in bytes.
    pub(in crate::trust) fn size(&self) -> usize {
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
