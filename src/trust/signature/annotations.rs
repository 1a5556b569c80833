//! The annotations of a cosign `.sig` signature, and their conversion to the bundle that `sigstore-verify` reads.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::x509::X509;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use sigstore_verify::types::Bundle;

use super::error::SignatureError;
use super::json::strict;
use crate::oci::digest::Digest;

/// The layer's annotations, not parsed yet. Empty ones are `None`.
#[derive(Debug)]
pub(super) struct Annotations<'a> {
    pub(super) certificate: Option<&'a str>,
    pub(super) chain: Option<&'a str>,
    pub(super) bundle: Option<&'a str>,
    pub(super) timestamp: Option<&'a str>,
}

/// Annotation `dev.sigstore.cosign/bundle`: Rekor's inclusion promise (SET) and the entry that it is over.
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

/// The head of an entry's body; `sigstore-verify` compares the rest.
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

impl Annotations<'_> {
    /// Converts `signature` over `payload` to a bundle, which `sigstore-verify` can verify: a signature over a
    /// message, a certificate chain or key, and a log entry with an inclusion promise.
    ///
    /// `with_time_stamps` says whether the trusted root lists a time stamp authority.
    pub(super) fn to_bundle(
        &self,
        payload: &[u8],
        signature: &[u8],
        with_time_stamps: bool,
    ) -> Result<Bundle, SignatureError> {
        let entries: Vec<_> = self.bundle.map(log_entry).transpose()?.into_iter().collect();
        // Without an authority the time stamp cannot be verified. It is ignored: it speaks neither for nor against.
        let stamps = self.timestamp.filter(|_| with_time_stamps).map(time_stamp).transpose()?;
        let mut material = match self.certificate {
            Some(leaf) => json!({"x509CertificateChain": {"certificates": certificates(leaf, self.chain)?}}),
            // The format needs a verification material; the caller checks the key itself.
            None => json!({"publicKey": {"hint": ""}}),
        };
        // Version 0.1 of the format is the one that allows a promise without an inclusion proof.
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
                "signature": STANDARD.encode(signature),
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

/// The signing certificate first, then the intermediate ones.
fn certificates(leaf: &str, chain: Option<&str>) -> Result<Vec<Value>, SignatureError> {
    let leaf =
        X509::stack_from_pem(leaf.as_bytes()).map_err(|_| malformed("certificate", "it is not PEM"))?;
    // Several would leave open which one signed.
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
