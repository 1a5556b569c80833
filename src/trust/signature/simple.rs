//! Cosign's `.sig` signatures: a simple signing document (containers-signature(5)), signed as it is, with all else in
//! annotations (cosign's SIGNATURE_SPEC.md).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::x509::X509;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use sigstore_verify::types::Bundle;

use super::candidate::{Candidate, Content, Origin};
use super::{Claim, SignatureError, TrustedRoot, json::strict, quoted};
use crate::oci::digest::Digest;

/// `critical.type` of every such document.
const TYPE: &str = "cosign container image signature";

/// What a verified document says.
#[derive(Debug)]
pub(super) struct Payload {
    pub(super) digest: Digest,
    pub(super) docker_reference: String,
}

/// Nothing in `critical` may be passed over: that is its meaning.
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

/// The layer's annotations, still to be parsed.
#[derive(Debug)]
pub(super) struct Annotations<'a> {
    certificate: Option<&'a str>,
    chain: Option<&'a str>,
    bundle: Option<&'a str>,
    timestamp: Option<&'a str>,
}

/// Takes a [`Claim::Simple`] apart.
pub(super) fn candidate(claim: &Claim) -> Result<Candidate<'_>, SignatureError> {
    let Claim::Simple { payload, signature, certificate, chain, bundle, timestamp } = claim else {
        return Err(SignatureError::malformed("it is not a .sig signature"));
    };
    let signature = STANDARD
        .decode(signature.trim())
        .map_err(|_| SignatureError::malformed("the annotation with the signature is not base64"))?;
    // Cosign writes annotations that say nothing as empty ones.
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

/// Annotation `dev.sigstore.cosign/bundle`: Rekor's promise (SET) and what it is over.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LogBundle {
    signed_entry_timestamp: String,
    payload: LogPayload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LogPayload {
    body: String,
    integrated_time: i64,
    log_index: u64,
    #[serde(rename = "logID")]
    log_id: String,
}

/// The body's head; the rest is compared by `sigstore-verify`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogBody {
    api_version: String,
    kind: String,
    #[serde(rename = "spec")]
    _spec: IgnoredAny,
}

/// Annotation `dev.sigstore.cosign/rfc3161timestamp`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TimeStamp {
    #[serde(rename = "SignedRFC3161Timestamp")]
    signed: String,
}

fn malformed(annotation: &str, what: impl std::fmt::Display) -> SignatureError {
    SignatureError::malformed(format!("the annotation dev.sigstore.cosign/{annotation} is malformed: {what}"))
}

fn filled(annotation: &Option<String>) -> Option<&str> {
    annotation.as_deref().filter(|text| !text.trim().is_empty())
}

impl Annotations<'_> {
    /// The same signature as the bundle that it would be today, which `sigstore-verify` can verify: a signature over
    /// a message, a certificate chain or key, and a log entry with a promise and no proof (which is what version 0.1
    /// of the bundle format allows).
    pub(super) fn bundle(&self, of: &Candidate<'_>, root: &TrustedRoot) -> Result<Bundle, SignatureError> {
        let Content::Simple(payload) = &of.content else {
            return Err(SignatureError::malformed("it is not a .sig signature"));
        };
        let entries: Vec<_> = self.bundle.map(log_entry).transpose()?.into_iter().collect();
        // A time stamp that nothing can verify is no evidence, and none against the signature.
        let stamps = self.timestamp.filter(|_| root.has_time_stamps).map(time_stamp).transpose()?;
        let mut material = match self.certificate {
            Some(leaf) => json!({"x509CertificateChain": {"certificates": certificates(leaf, self.chain)?}}),
            None => json!({"publicKey": {"hint": ""}}),
        };
        let version = if entries.is_empty() { "0.2" } else { "0.1" };
        material["tlogEntries"] = Value::from(entries);
        material["timestampVerificationData"] =
            json!({"rfc3161Timestamps": stamps.into_iter().collect::<Vec<_>>()});
        let bundle = json!({
            "mediaType": format!("application/vnd.dev.sigstore.bundle+json;version={version}"),
            "verificationMaterial": material,
            "messageSignature": {
                "messageDigest": {
                    "algorithm": "SHA2_256",
                    "digest": STANDARD.encode(Digest::of(payload).as_bytes()),
                },
                "signature": STANDARD.encode(&of.signature),
            },
        });
        serde_json::from_value(bundle).map_err(|e| {
            SignatureError::malformed(format!("the annotations of the signature are malformed: {e}"))
        })
    }
}

fn log_entry(text: &str) -> Result<Value, SignatureError> {
    let wrong = |e: &dyn std::fmt::Display| malformed("bundle", e);
    let log: LogBundle = strict(text.as_bytes()).map_err(|e| wrong(&e))?;
    let body = STANDARD.decode(&log.payload.body).map_err(|e| wrong(&e))?;
    let body: LogBody = strict(&body).map_err(|e| wrong(&e))?;
    let log_id = hex::decode(&log.payload.log_id).map_err(|e| wrong(&e))?;
    Ok(json!({
        "logIndex": log.payload.log_index.to_string(),
        "logId": {"keyId": STANDARD.encode(log_id)},
        "kindVersion": {"kind": body.kind, "version": body.api_version},
        "integratedTime": log.payload.integrated_time.to_string(),
        "inclusionPromise": {"signedEntryTimestamp": log.signed_entry_timestamp},
        "canonicalizedBody": log.payload.body,
    }))
}

fn time_stamp(text: &str) -> Result<Value, SignatureError> {
    let stamp: TimeStamp = strict(text.as_bytes()).map_err(|e| malformed("rfc3161timestamp", e))?;
    Ok(json!({"signedTimestamp": stamp.signed}))
}

/// The signing certificate, and then those between it and a root.
fn certificates(leaf: &str, chain: Option<&str>) -> Result<Vec<Value>, SignatureError> {
    let leaf =
        X509::stack_from_pem(leaf.as_bytes()).map_err(|_| malformed("certificate", "it is not PEM"))?;
    let [leaf] = &leaf[..] else { return Err(malformed("certificate", "it is not one certificate")) };
    let chain = X509::stack_from_pem(chain.unwrap_or_default().as_bytes());
    let chain = chain.map_err(|_| malformed("chain", "it is not PEM"))?;
    std::iter::once(leaf)
        .chain(&chain)
        .map(|certificate| {
            let der = certificate.to_der().map_err(|_| malformed("chain", "it cannot be encoded"))?;
            Ok(json!({"rawBytes": STANDARD.encode(der)}))
        })
        .collect()
}
