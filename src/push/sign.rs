//! A signature in the form that cosign gives it beside an image (cosign's SIGNATURE_SPEC.md, containers-signature(5)): the
//! tag `sha256-<hex>.sig`, whose layers are signed documents, with each signature in an annotation.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::error::PushError;
use super::key::SigningKey;
use super::manifest::Documents;
use super::send::put;
use crate::oci::SourceError;
use crate::oci::destination::{NewManifest, NewName, Repository};
use crate::oci::digest::Digest;
use crate::oci::manifest::OCI_MANIFEST;
use crate::oci::reference::Version;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// By what, and as what, an image is signed.
#[derive(Debug, Clone)]
pub struct Signing {
    /// The key.
    pub key: Arc<SigningKey>,
    /// What the signature says that the image is called: `HOST/REPOSITORY`.
    pub name: String,
}

/// Signs the manifest with this digest, unless the key has done so before, beside the signatures that there are. Returns
/// the digest of their manifest. Somebody who signs the same image at the same moment may take this one away, or lose theirs:
/// registries have no compare-and-swap for tags.
///
/// # Errors
/// The registry refuses, or the tag is something else's.
pub(super) async fn sign(
    to: &dyn Repository,
    signing: &Signing,
    image: &Digest,
) -> Result<Digest, PushError> {
    let tag = format!("sha256-{}.sig", image.hex());
    let document = document(&signing.name, image);
    let before = match to.manifest(&Version::Tag(tag.clone())).await {
        Ok(raw) => Some(raw.bytes),
        Err(SourceError::NotFound { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let before = before.as_deref();
    let signed = signed(before, &document, &signing.key, &tag)?;
    let Some(Documents { config, manifest }) = signed else {
        return Ok(Digest::of(before.unwrap_or_default()));
    };
    put(to, &document).await?;
    put(to, &config).await?;
    let manifest = NewManifest { media_type: OCI_MANIFEST.to_owned(), bytes: manifest.into() };
    to.put_as(&manifest, &NewName::Tag(tag)).await?;
    Ok(manifest.digest())
}

/// What is signed: which manifest, and what it is called.
fn document(name: &str, image: &Digest) -> Vec<u8> {
    let document = json!({
        "critical": {
            "identity": {"docker-reference": name},
            "image": {"docker-manifest-digest": image.to_string()},
            "type": "cosign container image signature",
        },
        "optional": null,
    });
    document.to_string().into_bytes()
}

/// Config and manifest of the signatures that there are and one more; `None` if it is one of them.
fn signed(
    before: Option<&[u8]>,
    document: &[u8],
    key: &SigningKey,
    tag: &str,
) -> Result<Option<Documents>, PushError> {
    let other = || PushError::NoSignatures { tag: tag.to_owned() };
    let mut manifest: Map<String, Value> = match before {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|_| other())?,
        None => Map::new(),
    };
    let mut layers = match manifest.remove("layers") {
        Some(Value::Array(layers)) => layers,
        Some(_) => return Err(other()),
        None if before.is_none() => Vec::new(),
        None => return Err(other()),
    };
    let (digest, own) = (Digest::of(document).to_string(), |layer: &Value| {
        let signature = layer["annotations"][SIGNATURE].as_str();
        let signature = signature.and_then(|text| STANDARD.decode(text).ok());
        signature.is_some_and(|signature| key.has_signed(document, &signature))
    });
    if layers.iter().any(|layer| layer["digest"] == digest.as_str() && own(layer)) {
        return Ok(None);
    }
    let signature = STANDARD.encode(key.sign(document).map_err(PushError::Sign)?);
    layers.push(json!({
        "mediaType": SIMPLE, "digest": digest, "size": document.len(), "annotations": {SIGNATURE: signature},
    }));
    // As an image: some registries take nothing else.
    let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({
        "architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = config.to_string().into_bytes();
    let described = json!({"mediaType": CONFIG, "digest": Digest::of(&config), "size": config.len()});
    manifest.insert("schemaVersion".to_owned(), 2.into());
    manifest.insert("mediaType".to_owned(), OCI_MANIFEST.into());
    manifest.insert("config".to_owned(), described);
    manifest.insert("layers".to_owned(), layers.into());
    Ok(Some(Documents { config, manifest: Value::Object(manifest).to_string().into_bytes() }))
}

#[cfg(test)]
mod tests {
    use openssl::ec::{EcGroup, EcKey};
    use openssl::nid::Nid;

    use super::*;

    fn key() -> SigningKey {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        std::fs::write(&path, EcKey::generate(&group).unwrap().private_key_to_pem().unwrap()).unwrap();
        SigningKey::read(&path, None).unwrap()
    }

    #[test]
    fn each_key_signs_once_and_keeps_what_others_have_signed() {
        let (ours, theirs) = (key(), key());
        let document = document("r.io/team/model", &Digest::of(b"image"));
        let made = |before: Option<&[u8]>, key: &SigningKey| signed(before, &document, key, "t").unwrap();
        let Documents { config, manifest: first } = made(None, &theirs).unwrap();
        let manifest: Value = serde_json::from_slice(&first).unwrap();
        assert_eq!(manifest["config"]["digest"], Digest::of(&config).to_string());
        assert_eq!(manifest["layers"][0]["mediaType"], SIMPLE);
        let Documents { config, manifest: both } = made(Some(&first), &ours).unwrap();
        let manifest: Value = serde_json::from_slice(&both).unwrap();
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 2);
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][1], Digest::of(&document).to_string());
        assert_eq!((made(Some(&both), &ours), made(Some(&both), &theirs)), (None, None));
        // The same document under another signature, and another document under ours, are no signature of ours.
        let forged = String::from_utf8(first).unwrap().replace(&Digest::of(&document).hex(), &"0".repeat(64));
        assert!(made(Some(forged.as_bytes()), &theirs).is_some());
    }

    #[test]
    fn a_tag_of_something_else_stays() {
        for before in ["[]", "{}", r#"{"layers":{}}"#, "junk"] {
            let refused = signed(Some(before.as_bytes()), b"d", &key(), "sha256-1.sig").unwrap_err();
            assert!(refused.to_string().contains("sha256-1.sig"), "{refused}");
        }
    }
}
