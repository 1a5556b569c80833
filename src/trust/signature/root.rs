//! Trusted roots: the certificate authorities, logs and time stamp authorities that a keyless signature leads to.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::x509::X509;
use serde_json::json;
use sigstore_crypto::Keyring;
use sigstore_verify::Verifier;
use sigstore_verify::trust_root::TrustedRoot as Anchors;

use super::{PublicKey, SignatureError, provider};
use crate::oci::digest::Digest;

/// What keyless signatures and transparency logs are verified against, offline.
///
/// A root that lists certificate transparency logs asks for their promise (SCT) in each certificate; one that lists
/// none, as [`TrustedRoot::of`] makes, does not.
pub struct TrustedRoot {
    pub(super) verifier: Verifier,
    pub(super) logs: Keyring,
    pub(super) has_ct_logs: bool,
    pub(super) has_logs: bool,
    pub(super) has_time_stamps: bool,
}

/// PEM certificates of authorities that issue signing certificates, as containers-policy's `caData`.
#[derive(Clone)]
pub struct CertificateAuthorities(Vec<X509>);

impl CertificateAuthorities {
    /// Parses one or more PEM certificates; each is trusted on its own, as containers-policy has it.
    ///
    /// # Errors
    /// There is none, or one is malformed.
    pub fn parse(pem: &[u8]) -> Result<Self, SignatureError> {
        let certificates =
            X509::stack_from_pem(pem).map_err(|_| malformed("a CA certificate is malformed PEM"))?;
        if certificates.is_empty() {
            return Err(malformed(
                "there is no PEM certificate (-----BEGIN CERTIFICATE-----) in the CA data",
            ));
        }
        Ok(Self(certificates))
    }

    fn der(&self) -> Result<Vec<Vec<u8>>, SignatureError> {
        let der = self.0.iter().map(|certificate| certificate.to_der());
        der.collect::<Result<_, _>>().map_err(|_| malformed("a CA certificate cannot be encoded"))
    }
}

impl TrustedRoot {
    /// Parses a `trusted_root.json` (media type `application/vnd.dev.sigstore.trustedroot+json`, version 0.1 or 0.2).
    ///
    /// # Errors
    /// It is malformed, or lists keys or certificates that cannot be used.
    pub fn parse(json: &str) -> Result<Self, SignatureError> {
        let anchors: Anchors = super::json::strict(json.as_bytes()).map_err(|e| {
            malformed(&format!(
                "the trusted root is malformed: {e}; make one with: cosign trusted-root create"
            ))
        })?;
        if !anchors.media_type.starts_with("application/vnd.dev.sigstore.trustedroot") {
            return Err(malformed(&format!(
                "the trusted root has media type {:?}, expected application/vnd.dev.sigstore.trustedroot+json;version=0.1",
                anchors.media_type
            )));
        }
        Self::from_anchors(&anchors)
    }

    /// A root of bare CA certificates and Rekor keys, either of which may be empty. Such a root cannot verify
    /// entries of Rekor version 2, whose log ids are not their keys' digests.
    ///
    /// # Errors
    /// A certificate or key cannot be used for this.
    pub fn of(authorities: &[CertificateAuthorities], logs: &[PublicKey]) -> Result<Self, SignatureError> {
        let mut chains = Vec::new();
        for certificate in
            authorities.iter().map(CertificateAuthorities::der).collect::<Result<Vec<_>, _>>()?.concat()
        {
            chains.push(json!({"uri": "", "certChain": {"certificates": [{"rawBytes": STANDARD.encode(certificate)}]}}));
        }
        let logs = logs.iter().map(|key| {
            json!({
                "baseUrl": "",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {"rawBytes": STANDARD.encode(key.spki()), "keyDetails": ""},
                "logId": {"keyId": STANDARD.encode(Digest::of(key.spki()).as_bytes())},
            })
        });
        let root = json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": logs.collect::<Vec<_>>(),
            "certificateAuthorities": chains,
        });
        let anchors = serde_json::from_value(root)
            .map_err(|e| malformed(&format!("the CA or log keys cannot be used: {e}")))?;
        Self::from_anchors(&anchors)
    }

    fn from_anchors(anchors: &Anchors) -> Result<Self, SignatureError> {
        provider::install();
        let unusable = |e: &dyn fmt::Display| malformed(&format!("the trusted root cannot be used: {e}"));
        let verifier = Verifier::new(anchors).map_err(|e| unusable(&e))?;
        let logs = anchors.rekor_keys().map_err(|e| unusable(&e))?;
        Ok(Self {
            verifier,
            logs,
            has_ct_logs: !anchors.ctlogs.is_empty(),
            has_logs: !anchors.tlogs.is_empty(),
            has_time_stamps: !anchors.timestamp_authorities.is_empty(),
        })
    }
}

fn malformed(what: &str) -> SignatureError {
    SignatureError::Malformed(what.to_owned())
}

impl fmt::Debug for TrustedRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustedRoot")
            .field("ct_logs", &self.has_ct_logs)
            .field("logs", &self.has_logs)
            .field("time_stamps", &self.has_time_stamps)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CertificateAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateAuthorities({})", self.0.len())
    }
}
