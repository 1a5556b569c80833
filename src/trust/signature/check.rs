//! The check of one claim against one expectation: who signed, whether a log recorded it, and what was signed.

use openssl::x509::X509;
use sigstore_verify::types::{Artifact, Bundle, DerPublicKey, Sha256Hash};
use sigstore_verify::{PublicKeyVerificationPolicy, VerificationPolicy, VerificationResult};

use super::candidate::{Candidate, Content, Origin};
use super::claim::{CLAIM_MAX, Claim};
use super::error::{SignatureError, quoted};
use super::expectation::{Authority, Expectation, Identity, Log, SIGNATURE_PREDICATE};
use super::key::{Likely, PublicKey};
use super::payload::Payload;
use super::root::TrustedRoot;
use super::statement::Statement;
use super::{bundle, promise, simple};
use crate::oci::digest::Digest;

/// A verified signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The signed digest: one of those that the caller passed.
    pub digest: Digest,
    /// The repository that the signature names (`critical.identity.docker-reference`); bundles name none.
    pub docker_reference: Option<String>,
    /// Who signed, for people: a key's fingerprint, or an identity and its issuer.
    pub signer: String,
}

/// Verifies that one claim is a signature over one of `digests` that satisfies `expectation`.
///
/// # Errors
/// It is not; the message says which check failed, for which signer and over what.
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
        return Err(SignatureError::Invalid(format!("it is {claim}, which the policy does not accept")));
    }
    // Before parsing: the size bounds what the parsers have to allocate.
    if claim.size() > CLAIM_MAX {
        return Err(SignatureError::malformed(format!("it is larger than the limit of {CLAIM_MAX} bytes")));
    }
    let candidate = match claim {
        Claim::Simple { .. } => simple::candidate(claim)?,
        Claim::Bundle { json } => bundle::candidate(json)?,
    };
    // The signer first: the content is read only after its signature has been verified.
    let signer = candidate.signer(expectation)?;
    candidate.signed(signer, expectation, digests)
}

impl Candidate<'_> {
    /// Verifies the signature against the expected authority, and says who made it.
    fn signer(&self, expectation: &Expectation) -> Result<String, SignatureError> {
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
                    [] => "any key, because the policy lists none".to_owned(),
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
        // The crate verifies such entries with SHA-256 only; cosign 3 also signs with SHA-384 and Ed25519ph.
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
        let Some(certificate) = bundle.signing_certificate() else {
            return Err(SignatureError::invalid(
                "the signature was made with a bare key, and the policy wants a certified identity",
            ));
        };
        let subjects = subjects(certificate.as_bytes())?;
        // `matching` compares the identity below, because the crate has no patterns.
        let mut policy = VerificationPolicy::any_identity();
        if matches!(log, Log::Ignored) {
            policy = policy.skip_tlog_unsafe();
        } else if !root.has_logs {
            return Err(SignatureError::invalid(
                "the policy requires a transparency log, and its trusted root lists none",
            ));
        }
        // A root without certificate transparency logs cannot verify any SCT (see `TrustedRoot`).
        if !root.has_ct_logs {
            policy = policy.skip_sct();
        }
        let result = root.verifier.verify(self.artifact()?, &bundle, &policy);
        let result = result
            .map_err(|e| SignatureError::invalid(format!("the certified signature does not hold: {e}")))?;
        matching(&result, &subjects, identities)
    }

    /// What the signature is over, in the form that `sigstore-verify` takes.
    fn artifact(&self) -> Result<Artifact<'_>, SignatureError> {
        let digest = match &self.content {
            Content::Simple(payload) => return Ok(Artifact::from_blob(payload)),
            Content::Statement { payload, .. } => Statement::parse(payload)?.digest,
            Content::Manifest(digest) => *digest,
        };
        Ok(Artifact::from_digest(Sha256Hash::new(*digest.as_bytes())))
    }

    fn bundle(&self, root: &TrustedRoot) -> Result<Bundle, SignatureError> {
        match (&self.origin, &self.content) {
            (Origin::Simple(annotations), Content::Simple(payload)) => {
                annotations.to_bundle(payload, &self.signature, root.has_time_stamps)
            }
            (Origin::Simple(_), _) => Err(SignatureError::malformed("it is not a .sig signature")),
            (Origin::Bundle(json), _) => bundle::whole(json),
        }
    }

    /// Says what was signed. Call it only when `signer` is known to have signed it.
    fn signed(
        &self,
        signer: String,
        expectation: &Expectation,
        digests: &[Digest],
    ) -> Result<Signed, SignatureError> {
        let (digest, docker_reference) = match &self.content {
            Content::Simple(payload) => {
                let payload = Payload::parse(payload)?;
                (payload.digest, Some(payload.docker_reference))
            }
            Content::Statement { payload, .. } => {
                let statement = Statement::parse(payload)?;
                // A signed scan report or SBOM is about the image, but does not approve it.
                if !expectation.takes_predicate(&statement.predicate_type) {
                    return Err(SignatureError::invalid(format!(
                        "what {signer} signed is an attestation of type {}, not a signature; sign the image with \
                         cosign sign, or list that type in the policy's predicateTypes",
                        quoted(&statement.predicate_type)
                    )));
                }
                (statement.digest, None)
            }
            // It says what the predicate of `cosign sign` says, and no more.
            Content::Manifest(digest) if expectation.takes_predicate(SIGNATURE_PREDICATE) => (*digest, None),
            Content::Manifest(_) => {
                return Err(SignatureError::invalid(format!(
                    "what {signer} signed is the image alone, without a statement of one of the policy's \
                     predicateTypes; attest one of them, or list {SIGNATURE_PREDICATE}"
                )));
            }
        };
        // A genuine signature of another image must not admit this one.
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

/// A name of a certificate's subject, and whether it is an e-mail address; else it is a URI.
type SubjectName = (String, bool);

/// All e-mail addresses and URIs that a certificate names. Nothing is verified.
fn subjects(certificate: &[u8]) -> Result<Vec<SubjectName>, SignatureError> {
    let certificate = X509::from_der(certificate)
        .map_err(|_| SignatureError::malformed("the signature's certificate cannot be read"))?;
    let names = certificate.subject_alt_names().into_iter().flatten().filter_map(|name| {
        let email = name.email().map(|email| (email.to_owned(), true));
        email.or_else(|| name.uri().map(|uri| (uri.to_owned(), false)))
    });
    Ok(names.collect())
}

/// The identity of a verified certificate, if one of the `subjects` that it names is one of `identities`. The authority
/// has certified each of them, so that their order means nothing.
fn matching(
    result: &VerificationResult,
    subjects: &[SubjectName],
    identities: &[Identity],
) -> Result<String, SignatureError> {
    let issuer = result.issuer().unwrap_or_default();
    if subjects.is_empty() {
        return Err(SignatureError::invalid("the certificate names no subject"));
    }
    // Fulcio puts the issuer into every certificate. Without this check, a pattern like .* would match no issuer.
    if issuer.is_empty() {
        return Err(SignatureError::invalid("the certificate names no OpenID Connect issuer"));
    }
    let accepted = |(subject, is_email): &&SubjectName| {
        identities
            .iter()
            .any(|wanted| wanted.issuer.matches(issuer, false) && wanted.subject.matches(subject, *is_email))
    };
    if result.certificate_verified()
        && let Some((subject, _)) = subjects.iter().find(accepted)
    {
        return Ok(format!("{subject} from {issuer}"));
    }
    let wanted: Vec<_> = identities.iter().map(Identity::to_string).collect();
    let found: Vec<_> = subjects.iter().map(|(subject, _)| quoted(subject)).collect();
    Err(SignatureError::invalid(format!(
        "the signature is by {} from {}, and the policy wants {}",
        found.join(" and "),
        quoted(issuer),
        wanted.join(" or ")
    )))
}
