//! Compiles requirements from their written form: reads and parses keys, certificates and trusted roots.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{Fault, Problem};
use super::identity::SignedIdentity;
use super::json::At;
use super::requirement::{Check, Requirement, SignatureCheck};
use super::shape::{BundleAuthority, Material, MaterialSource, Pattern, Shape, SignedAuthority};
use crate::trust::signature::{
    Authority, CertificateAuthorities, Expectation, Formats, Identity, Log, Matcher, PublicKey,
    SIGNATURE_PREDICATE, SignatureError, TrustedRoot,
};

/// Reads a file that a policy names.
pub type Read<'a> = &'a mut dyn FnMut(&Path) -> std::io::Result<Vec<u8>>;

/// Compiles `shape` and reads the files that it names; relative paths start at `base`.
pub(super) fn requirement(at: At, shape: Shape, base: &Path, read: Read<'_>) -> Result<Requirement, Fault> {
    let mut reader = Reader { base, read };
    let check = match shape {
        Shape::Reject => Check::Reject,
        Shape::AcceptAnything => Check::AcceptAnything,
        Shape::WarnOnly => Check::WarnOnly,
        Shape::AnyOf(alternatives) => {
            let one = |(at, shape)| requirement(at, shape, base, &mut *reader.read);
            Check::AnyOf(alternatives.into_iter().map(one).collect::<Result<_, _>>()?)
        }
        Shape::Composefs { require_digest, integrity, keep_privileges } => {
            Check::Composefs { require_digest, integrity, keep_privileges }
        }
        Shape::Unsupported { kind, why } => Check::Unsupported { kind, why },
        Shape::Signed { authority, rekor, identity } => reader.signed(authority, &rekor, identity)?,
        Shape::Bundle { authority, predicate_types, ignore_log } => {
            reader.bundle(authority, predicate_types, ignore_log)?
        }
    };
    Ok(Requirement { at: at.0, check })
}

struct Reader<'a, 'r> {
    base: &'a Path,
    read: &'a mut (dyn FnMut(&Path) -> std::io::Result<Vec<u8>> + 'r),
}

impl Reader<'_, '_> {
    /// Accepts only cosign's `.sig` signatures: a bundle names no repository, so that `signedIdentity` could not be
    /// checked (docs/adr, "sigstoreSigned takes no bundles").
    fn signed(
        &mut self,
        authority: SignedAuthority,
        rekor: &[Material],
        identity: SignedIdentity,
    ) -> Result<Check, Fault> {
        let rekor_at = rekor.first().map(|material| material.at.clone());
        let logs = self.each(rekor, PublicKey::parse)?;
        let (signers, authority, root) = match authority {
            SignedAuthority::Keys(materials) => {
                let keys = self.each(&materials, PublicKey::parse)?;
                // Without a Rekor key no log is needed, as in containers-policy.
                let root = match rekor_at {
                    Some(at) => Some(root_of(&at, &[], &logs)?),
                    None => None,
                };
                (named(&materials), Authority::Keys(keys), root)
            }
            SignedAuthority::Fulcio { ca, issuer, email } => {
                let authorities = self.one(&ca, CertificateAuthorities::parse)?;
                let root = root_of(&ca.at, &[authorities], &logs)?;
                // `subjectEmail` must not match a URI of the same text.
                let identity = Identity { issuer: Matcher::Exact(issuer), subject: Matcher::Email(email) };
                let signers = vec![identity.to_string()];
                let identities = vec![identity];
                (signers, Authority::Identities { root: Arc::clone(&root), identities }, Some(root))
            }
        };
        // With a root for its logs comes the demand that one of them recorded the signature.
        let expectation = Expectation {
            authority,
            log: root.map_or(Log::Ignored, Log::Required),
            formats: Formats { simple: true, bundle: false },
            predicate_types: Vec::new(),
        };
        Ok(signature("sigstoreSigned", expectation, Some(identity), signers))
    }

    fn bundle(
        &mut self,
        authority: BundleAuthority,
        predicate_types: Vec<String>,
        ignore_log: bool,
    ) -> Result<Check, Fault> {
        let (signers, authority, root) = match authority {
            BundleAuthority::Keys { keys, root } => {
                let authority = Authority::Keys(self.each(&keys, PublicKey::parse)?);
                (named(&keys), authority, root.map(|root| self.root(&root)).transpose()?)
            }
            BundleAuthority::Identities { identities, root } => {
                let root = self.root(&root)?;
                let identities = identities.into_iter().map(identity).collect::<Result<Vec<_>, _>>()?;
                let signers = identities.iter().map(Identity::to_string).collect();
                (signers, Authority::Identities { root: Arc::clone(&root), identities }, Some(root))
            }
        };
        let log = root.filter(|_| !ignore_log).map_or(Log::Ignored, Log::Required);
        // A .sig signature says at least as much as a bundle of this predicate type.
        let simple = predicate_types.is_empty() || predicate_types.iter().any(|t| t == SIGNATURE_PREDICATE);
        let formats = Formats { simple, bundle: true };
        let expectation = Expectation { authority, log, formats, predicate_types };
        Ok(signature("sigstoreBundle", expectation, None, signers))
    }

    fn root(&mut self, material: &Material) -> Result<Arc<TrustedRoot>, Fault> {
        self.one(material, |json| match std::str::from_utf8(json) {
            Ok(text) => TrustedRoot::parse(text).map(Arc::new),
            Err(_) => Err(SignatureError::Malformed("the trusted root is not UTF-8 text".to_owned())),
        })
    }

    fn each<T>(
        &mut self,
        materials: &[Material],
        parse: impl Fn(&[u8]) -> Result<T, SignatureError>,
    ) -> Result<Vec<T>, Fault> {
        materials.iter().map(|material| self.one(material, &parse)).collect()
    }

    fn one<T>(
        &mut self,
        material: &Material,
        parse: impl Fn(&[u8]) -> Result<T, SignatureError>,
    ) -> Result<T, Fault> {
        let (of, bytes) = match &material.source {
            MaterialSource::Inline(bytes) => (None, bytes.clone()),
            MaterialSource::File(path) => {
                let path = self.base.join(path);
                match (self.read)(&path) {
                    Ok(bytes) => (Some(path), bytes),
                    Err(error) => {
                        return Err(material.at.fault(Problem::Unreadable { path, why: error.to_string() }));
                    }
                }
            }
        };
        parse(&bytes).map_err(|error| material.at.fault(unusable(of, &error)))
    }
}

fn signature(
    kind: &'static str,
    expectation: Expectation,
    identity: Option<SignedIdentity>,
    signers: Vec<String>,
) -> Check {
    Check::Signature(Box::new(SignatureCheck { kind, expectation, identity, signers }))
}

fn unusable(of: Option<PathBuf>, error: &SignatureError) -> Problem {
    Problem::Material { of, why: error.to_string() }
}

fn root_of(
    at: &At,
    authorities: &[CertificateAuthorities],
    logs: &[PublicKey],
) -> Result<Arc<TrustedRoot>, Fault> {
    TrustedRoot::of(authorities, logs).map(Arc::new).map_err(|error| at.fault(unusable(None, &error)))
}

fn identity((issuer, subject): (Pattern, Pattern)) -> Result<Identity, Fault> {
    let matcher = |pattern| match pattern {
        Pattern::Exact(text) => Ok(Matcher::Exact(text)),
        Pattern::Regex(at, text) => Matcher::pattern(&text).map_err(|error| at.fault(unusable(None, &error))),
    };
    Ok(Identity { issuer: matcher(issuer)?, subject: matcher(subject)? })
}

/// Names of keys for people: the file, or the field of the policy that holds the key.
fn named(materials: &[Material]) -> Vec<String> {
    let name = |material: &Material| match &material.source {
        MaterialSource::File(path) => path.display().to_string(),
        MaterialSource::Inline(_) => material.at.0.rsplit('.').next().unwrap_or_default().to_owned(),
    };
    materials.iter().map(name).collect()
}
