//! What the formats have in common: bytes, a signature over them, and what the bytes say is signed.

use sigstore_crypto::SubjectAltName;
use sigstore_verify::types::{Artifact, Bundle, DerPublicKey, Sha256Hash};
use sigstore_verify::{PublicKeyVerificationPolicy, VerificationPolicy, VerificationResult};

use super::key::Likely;
use super::{
    Authority, Expectation, Identity, Log, PublicKey, SignatureError, Signed, TrustedRoot, bundle, promise,
    simple,
};
use crate::oci::digest::Digest;

/// A claim, taken apart. Nothing in it is verified.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub(super) content: Content,
    pub(super) signature: Vec<u8>,
    pub(super) origin: Origin<'a>,
}

/// What is signed.
#[derive(Debug)]
pub(super) enum Content {
    /// A simple signing document, as it is.
    Simple(Vec<u8>),
    /// An in-toto statement in a DSSE envelope, and the bytes that DSSE signs for it (its PAE).
    Statement { payload: Vec<u8>, signed: Vec<u8> },
    /// The manifest itself, by its digest.
    Manifest(Digest),
}

/// Where the certificate and the log's words are, for those who need them.
#[derive(Debug)]
pub(super) enum Origin<'a> {
    Simple(simple::Annotations<'a>),
    Bundle(&'a str),
}

impl Candidate<'_> {
    /// Who made the signature: verifies it against who may have.
    pub(super) fn signer(&self, expectation: &Expectation) -> Result<String, SignatureError> {
        match &expectation.authority {
            Authority::Keys(keys) => self.signing_key(keys, &expectation.log),
            Authority::Identities { root, identities } => self.identity(root, identities, &expectation.log),
        }
    }

    fn signing_key(&self, keys: &[PublicKey], log: &Log) -> Result<String, SignatureError> {
        let holds = |key: &&PublicKey| match &self.content {
            Content::Simple(message) => key.verifies(message, &self.signature, Likely::Cosign2),
            Content::Statement { signed, .. } => key.verifies(signed, &self.signature, Likely::Cosign3),
            Content::Manifest(digest) => key.verifies_digest(digest, &self.signature),
        };
        let Some(key) = keys.iter().find(holds) else {
            let keys: Vec<_> = keys.iter().map(PublicKey::fingerprint).collect();
            return Err(SignatureError::Invalid(format!(
                "the signature does not verify with {}: another key made it, or what it signs was altered",
                match &keys[..] {
                    [] => "any key, for the policy lists none".to_owned(),
                    [one] => format!("key {one}"),
                    several => format!("any of the keys {}", several.join(", ")),
                }
            )));
        };
        if let Log::Required(root) = log {
            self.logged(root, key)?;
        }
        Ok(format!("key {key}"))
    }

    /// Verifies that a log of `root` recorded this signature by `key`.
    fn logged(&self, root: &TrustedRoot, key: &PublicKey) -> Result<(), SignatureError> {
        let bundle = self.bundle(root)?;
        if bundle.verification_material.tlog_entries.is_empty() {
            return Err(SignatureError::invalid(format!(
                "the signature by key {key} comes without a transparency log's entry, which the policy requires; \
                 sign with an upload to the log"
            )));
        }
        if let (Content::Simple(payload), [entry]) =
            (&self.content, &bundle.verification_material.tlog_entries[..])
        {
            return promise::verify(entry, &root.logs, key, payload, &self.signature);
        }
        let policy = PublicKeyVerificationPolicy::new(DerPublicKey::from_bytes(key.spki()));
        root.verifier.verify(self.artifact()?, &bundle, &policy).map(drop).map_err(|e| {
            SignatureError::invalid(format!(
                "the transparency log's entry for the signature by key {key} does not hold: {e}"
            ))
        })
    }

    fn identity(
        &self,
        root: &TrustedRoot,
        identities: &[Identity],
        log: &Log,
    ) -> Result<String, SignatureError> {
        let bundle = self.bundle(root)?;
        if bundle.signing_certificate().is_none() {
            return Err(SignatureError::invalid(
                "the signature was made with a bare key, and the policy wants a certified identity",
            ));
        }
        // Which identities will do is decided below: the crate has no patterns.
        let mut policy = VerificationPolicy::any_identity();
        if matches!(log, Log::Ignored) {
            policy = policy.skip_tlog_unsafe();
        } else if !root.has_logs {
            return Err(SignatureError::invalid(
                "the policy requires a transparency log, and its trusted root lists none",
            ));
        }
        if !root.has_ct_logs {
            policy = policy.skip_sct();
        }
        let result = root.verifier.verify(self.artifact()?, &bundle, &policy);
        let result = result
            .map_err(|e| SignatureError::invalid(format!("the certified signature does not hold: {e}")))?;
        matching(&result, identities)
    }

    /// What the signature is over, as `sigstore-verify` wants it.
    fn artifact(&self) -> Result<Artifact<'_>, SignatureError> {
        let digest = match &self.content {
            Content::Simple(payload) => return Ok(Artifact::from_blob(payload)),
            Content::Statement { payload, .. } => bundle::Statement::parse(payload)?.digest,
            Content::Manifest(digest) => *digest,
        };
        Ok(Artifact::from_digest(Sha256Hash::new(*digest.as_bytes())))
    }

    fn bundle(&self, root: &TrustedRoot) -> Result<Bundle, SignatureError> {
        match &self.origin {
            Origin::Simple(annotations) => annotations.bundle(self, root),
            Origin::Bundle(json) => bundle::whole(json),
        }
    }

    /// What was signed, once `signer` is known to have signed it.
    pub(super) fn signed(
        &self,
        signer: String,
        expectation: &Expectation,
        digests: &[Digest],
    ) -> Result<Signed, SignatureError> {
        let (digest, docker_reference) = match &self.content {
            Content::Simple(payload) => {
                let payload = simple::Payload::parse(payload)?;
                (payload.digest, Some(payload.docker_reference))
            }
            Content::Statement { payload, .. } => {
                let statement = bundle::Statement::parse(payload)?;
                if !expectation.takes_predicate(&statement.predicate_type) {
                    return Err(SignatureError::invalid(format!(
                        "what {signer} signed is an attestation of type {}, not a signature; sign the image with \
                         cosign sign, or list that type in the policy's predicateTypes",
                        super::quoted(&statement.predicate_type)
                    )));
                }
                (statement.digest, None)
            }
            Content::Manifest(digest) => (*digest, None),
        };
        if !digests.contains(&digest) {
            let digests: Vec<_> = digests.iter().map(Digest::to_string).collect();
            return Err(SignatureError::invalid(format!(
                "the signature by {signer} is over {digest}, not over this image ({})",
                digests.join(" or ")
            )));
        }
        Ok(Signed { digest, docker_reference, signer })
    }
}

/// The identity of a verified certificate, if it is one of those expected.
fn matching(result: &VerificationResult, identities: &[Identity]) -> Result<String, SignatureError> {
    let issuer = result.issuer().unwrap_or_default();
    let (subject, is_email) = match result.identity() {
        Some(SubjectAltName::Email(name)) => (name.as_str(), true),
        Some(other) => (other.as_str(), false),
        None => return Err(SignatureError::invalid("the certificate names nobody")),
    };
    // Fulcio puts the issuer into every certificate; without one a pattern like .* would match nothing at all.
    if issuer.is_empty() {
        return Err(SignatureError::invalid("the certificate names no OpenID Connect issuer"));
    }
    if result.certificate_verified()
        && identities
            .iter()
            .any(|wanted| wanted.issuer.matches(issuer, false) && wanted.subject.matches(subject, is_email))
    {
        return Ok(format!("{subject} from {issuer}"));
    }
    let wanted: Vec<_> = identities.iter().map(Identity::to_string).collect();
    Err(SignatureError::invalid(format!(
        "the signature is by {} from {}, and the policy wants {}",
        super::quoted(subject),
        super::quoted(issuer),
        wanted.join(" or ")
    )))
}
