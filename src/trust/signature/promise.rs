//! The log's promise for a `.sig` signature by a key: Rekor signed (SET) that it has taken this signature by this key
//! over this document. `sigstore-verify` knows such entries for SHA-256 only, and cosign 3 signs with SHA-384 and
//! Ed25519ph as well.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openssl::hash::{MessageDigest, hash};
use serde::Deserialize;
use serde_json::json;
use sigstore_crypto::Keyring;
use sigstore_verify::types::{KindVersion, Sha256Hash, SignatureBytes, TransparencyLogEntry};

use super::json::strict;
use super::{PublicKey, SignatureError, quoted};

/// The body of a `hashedrekord` entry, version 0.0.1.
#[derive(Deserialize)]
struct Body {
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    data: Data,
    signature: Signature,
}

#[derive(Deserialize)]
struct Data {
    hash: Hash,
}

#[derive(Deserialize)]
struct Hash {
    algorithm: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Signature {
    content: String,
    public_key: LoggedKey,
}

#[derive(Deserialize)]
struct LoggedKey {
    content: String,
}

/// Verifies that one of `logs` promised `entry`, and that the entry is about `signature` by `key` over `payload`.
pub(super) fn verify(
    entry: &TransparencyLogEntry,
    logs: &Keyring,
    key: &PublicKey,
    payload: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    promised(entry, logs)?;
    let invalid =
        |what: &str| SignatureError::invalid(format!("the transparency log's entry does not hold: {what}"));
    if entry.kind_version != KindVersion::HashedRekordV001 {
        return Err(invalid("it is not a hashedrekord of version 0.0.1"));
    }
    let body: Body = strict(entry.canonicalized_body.as_bytes())
        .map_err(|e| SignatureError::malformed(format!("the transparency log's entry is malformed: {e}")))?;
    let digest = match body.spec.data.hash.algorithm.as_str() {
        "sha256" => MessageDigest::sha256(),
        "sha384" => MessageDigest::sha384(),
        "sha512" => MessageDigest::sha512(),
        other => return Err(invalid(&format!("its hash is {}", quoted(other)))),
    };
    let digest = hash(digest, payload).map_err(|_| invalid("its hash cannot be computed"))?;
    if hex::encode(digest) != body.spec.data.hash.value {
        return Err(invalid("it is about another document"));
    }
    if STANDARD.decode(&body.spec.signature.content).ok().as_deref() != Some(signature) {
        return Err(invalid("it is about another signature"));
    }
    let logged = STANDARD.decode(&body.spec.signature.public_key.content).ok();
    let logged = logged.and_then(|pem| PublicKey::parse(&pem).ok());
    if logged.as_ref() != Some(key) {
        return Err(invalid("it is about another key"));
    }
    Ok(())
}

/// Rekor signs the canonical JSON (RFC 8785) of these four members; sorted as they are here, and without any character
/// that would be escaped, that is what `serde_json` writes.
fn promised(entry: &TransparencyLogEntry, logs: &Keyring) -> Result<(), SignatureError> {
    let invalid =
        |what: &str| SignatureError::invalid(format!("the transparency log's promise does not hold: {what}"));
    let (Some(promise), Some(time)) = (&entry.inclusion_promise, entry.integrated_time) else {
        return Err(invalid("it has no signature or no time"));
    };
    let id = Sha256Hash::try_from(entry.log_id.key_id.as_bytes()).map_err(|_| invalid("it names no log"))?;
    let Some(log) = logs.key_at(&id, time) else {
        return Err(invalid("no log of the policy was in use then and has its id"));
    };
    let signed = json!({
        "body": STANDARD.encode(entry.canonicalized_body.as_bytes()),
        "integratedTime": time.as_second(),
        "logID": hex::encode(id.as_bytes()),
        "logIndex": entry.log_index.get(),
    });
    let signature = SignatureBytes::from_bytes(promise.signed_entry_timestamp.as_bytes());
    log.verify(signed.to_string(), &signature).map_err(|_| invalid("its signature is not the log's"))
}
