//! Requirements as they are written: every field is checked, but no file is opened yet.
//!
//! Requirements of unused transports are not compiled further. A policy for other tools therefore loads even if their
//! keys are not on this node.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::error::{Fault, Problem};
use super::identity::SignedIdentity;
use super::json::{At, Fields, Node, shortened};
use crate::integrity::Integrity;

const TYPES: &str =
    "reject, insecureAcceptAnything, sigstoreSigned, sigstoreBundle, anyOf, warnOnly, composefs, signedBy";
const KEYS: &str = "keyPath, keyPaths, keyData, keyDatas";

/// Bytes that a requirement needs: a key, certificates, a trusted root.
#[derive(Debug, Clone)]
pub(super) struct Material {
    pub at: At,
    pub source: MaterialSource,
}

/// Where the bytes are.
#[derive(Debug, Clone)]
pub(super) enum MaterialSource {
    /// A file; a relative path starts at the policy's directory.
    File(PathBuf),
    /// Inline in the policy, as base64.
    Inline(Vec<u8>),
}

/// One requirement.
#[derive(Debug)]
pub(super) enum Shape {
    Reject,
    AcceptAnything,
    /// `sigstoreSigned` of containers-policy.json(5).
    Signed {
        authority: SignedAuthority,
        rekor: Vec<Material>,
        identity: SignedIdentity,
    },
    /// The extension `sigstoreBundle`.
    Bundle {
        authority: BundleAuthority,
        predicate_types: Vec<String>,
        ignore_log: bool,
    },
    /// The extension `anyOf`: requirements of signatures.
    AnyOf(Vec<(At, Shape)>),
    /// The extension `warnOnly`.
    WarnOnly,
    /// The extension `composefs`.
    Composefs {
        require_digest: bool,
        integrity: Option<Integrity>,
        keep_privileges: bool,
    },
    /// Valid for other tools, but not supported here.
    Unsupported {
        kind: &'static str,
        why: &'static str,
    },
}

impl Shape {
    /// Whether it asks who made the image.
    pub(super) fn is_of_signatures(&self) -> bool {
        matches!(self, Self::Signed { .. } | Self::Bundle { .. } | Self::AnyOf(_) | Self::Unsupported { .. })
    }
}

/// Who may sign, in `sigstoreSigned`.
#[derive(Debug)]
pub(super) enum SignedAuthority {
    Keys(Vec<Material>),
    Fulcio { ca: Material, issuer: String, email: String },
}

/// Who may sign, in `sigstoreBundle`.
#[derive(Debug)]
pub(super) enum BundleAuthority {
    Keys { keys: Vec<Material>, root: Option<Material> },
    Identities { identities: Vec<(Pattern, Pattern)>, root: Material },
}

/// How an issuer or a subject is matched.
#[derive(Debug)]
pub(super) enum Pattern {
    Exact(String),
    Regex(At, String),
}

/// Parses one requirement.
pub(super) fn requirement(at: At, node: Node) -> Result<Shape, Fault> {
    let mut fields = Fields::of(at, node)?;
    let shape = match fields.need_text("type")?.as_str() {
        "reject" => Shape::Reject,
        "insecureAcceptAnything" => Shape::AcceptAnything,
        "sigstoreSigned" => signed(&mut fields)?,
        "sigstoreBundle" => bundle(&mut fields)?,
        "anyOf" => any_of(&mut fields)?,
        "warnOnly" => Shape::WarnOnly,
        "composefs" => composefs(&mut fields)?,
        "signedBy" => signed_by(&mut fields)?,
        other => {
            let problem = Problem::UnknownType { name: shortened(other), known: TYPES };
            return Err(fields.at.field("type").fault(problem));
        }
    };
    // Last: an unknown field must not be ignored, because it may restrict.
    fields.end()?;
    Ok(shape)
}

fn signed(fields: &mut Fields) -> Result<Shape, Fault> {
    let keys = keys(fields)?;
    let fulcio = fields.take("fulcio").map(|(at, node)| fulcio(at, node)).transpose()?;
    let pki = fields.take("pki").map(|(at, node)| pki(at, node)).transpose()?;
    let rekor = materials(
        fields,
        ["rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"],
    )?;
    let identity = fields.take("signedIdentity").map(|(at, node)| SignedIdentity::parse(at, node));
    let identity = identity.transpose()?.unwrap_or_default();
    if rekor.len() > 1 {
        let all = "rekorPublicKeyPath, rekorPublicKeyPaths, rekorPublicKeyData and rekorPublicKeyDatas";
        return Err(fields.at.fault(Problem::NotAtMostOne(all)));
    }
    // Two authorities would leave open whether one or both must sign.
    let found = keys.len() + usize::from(fulcio.is_some()) + usize::from(pki.is_some());
    if found != 1 {
        let choices = "keyPath, keyPaths, keyData, keyDatas, fulcio and pki";
        return Err(fields.at.fault(Problem::NotOne { choices, found }));
    }
    // At most one field is left, so that this is its list.
    let rekor: Vec<_> = rekor.into_iter().flatten().collect();
    match (fulcio, keys.into_iter().next()) {
        // A certificate has expired by the time of the mount.
        (Some(_), _) if rekor.is_empty() => Err(fields.at.fault(Problem::Together(
            "fulcio needs a Rekor key as well (rekorPublicKeyPath): certificates are valid for minutes, and only \
             the log says when the signature was made",
        ))),
        (Some(authority), _) => Ok(Shape::Signed { authority, rekor, identity }),
        (None, Some(keys)) => Ok(Shape::Signed { authority: SignedAuthority::Keys(keys), rekor, identity }),
        (None, None) if !rekor.is_empty() => {
            Err(fields.at.fault(Problem::Together("pki does not go with a Rekor key; remove one of them")))
        }
        (None, None) => Ok(Shape::Unsupported {
            kind: "sigstoreSigned",
            why: "its field pki (certificates of a private authority without a log) is not supported here; use keys, \
                  fulcio, or sigstoreBundle with a trusted root",
        }),
    }
}

fn fulcio(at: At, node: Node) -> Result<SignedAuthority, Fault> {
    let mut fields = Fields::of(at, node)?;
    let ca = one_material(&mut fields, "caPath", "caData", "caPath and caData")?;
    let ca = ca.ok_or_else(|| fields.at.fault(Problem::NotOne { choices: "caPath and caData", found: 0 }))?;
    let issuer = fields.need_text("oidcIssuer")?;
    let email = fields.need_text("subjectEmail")?;
    fields.end()?;
    Ok(SignedAuthority::Fulcio { ca, issuer, email })
}

/// Checks only the form: such a requirement never holds here.
fn pki(at: At, node: Node) -> Result<(), Fault> {
    let mut fields = Fields::of(at, node)?;
    one_material(&mut fields, "caRootsPath", "caRootsData", "caRootsPath and caRootsData")?;
    let intermediates = "caIntermediatesPath and caIntermediatesData";
    one_material(&mut fields, "caIntermediatesPath", "caIntermediatesData", intermediates)?;
    fields.text("subjectHostname")?;
    fields.text("subjectEmail")?;
    fields.end()
}

/// Simple signing with GPG keys: checks only the form, because such a requirement never holds here.
fn signed_by(fields: &mut Fields) -> Result<Shape, Fault> {
    fields.need_text("keyType")?;
    let given = [
        fields.text("keyPath")?.is_some(),
        fields.texts("keyPaths")?.is_some(),
        fields.text("keyData")?.is_some(),
    ];
    let found = given.into_iter().filter(|given| *given).count();
    if found != 1 {
        let choices = "keyPath, keyPaths and keyData";
        return Err(fields.at.fault(Problem::NotOne { choices, found }));
    }
    fields.take("signedIdentity").map(|(at, node)| SignedIdentity::parse(at, node)).transpose()?;
    Ok(Shape::Unsupported {
        kind: "signedBy",
        why: "signatures by GPG keys are not supported here; use sigstoreSigned, or a program in --verifier-dir",
    })
}

fn bundle(fields: &mut Fields) -> Result<Shape, Fault> {
    let root =
        one_material(fields, "trustedRootPath", "trustedRootData", "trustedRootPath and trustedRootData")?;
    let keys = keys(fields)?;
    let identities = identities(fields)?;
    let predicate_types =
        fields.texts("predicateTypes")?.unwrap_or_default().into_iter().map(|(_, text)| text).collect();
    let ignore_log = fields.flag("ignoreTlog")?;
    let found = keys.len() + usize::from(identities.is_some());
    if found != 1 {
        let choices = "keyPath, keyPaths, keyData, keyDatas and identities";
        return Err(fields.at.fault(Problem::NotOne { choices, found }));
    }
    let together = |why| Err(fields.at.fault(Problem::Together(why)));
    let authority = match (identities, keys.into_iter().next(), root) {
        (Some(_), _, None) => {
            return together(
                "identities need a trusted root (trustedRootPath): it says who may certify them",
            );
        }
        (Some(identities), _, Some(root)) => BundleAuthority::Identities { identities, root },
        // Without a log the policy has to say so: that must not happen by omission.
        (None, _, None) if !ignore_log => {
            return together(
                "without a trusted root (trustedRootPath) no transparency log can be checked; add one, or say \
                 \"ignoreTlog\": true",
            );
        }
        (None, keys, root) => BundleAuthority::Keys { keys: keys.unwrap_or_default(), root },
    };
    Ok(Shape::Bundle { authority, predicate_types, ignore_log })
}

/// Alternatives are all of signatures: with any other, the list would admit everything, or nothing more.
fn any_of(fields: &mut Fields) -> Result<Shape, Fault> {
    let (at, node) = fields.need("requirements")?;
    let mut alternatives = Vec::new();
    for (at, node) in at.list(node)? {
        let shape = requirement(at.clone(), node)?;
        if !shape.is_of_signatures() || matches!(shape, Shape::AnyOf(_)) {
            return Err(at.fault(Problem::Together(
                "an alternative of anyOf is sigstoreSigned, sigstoreBundle or signedBy; write others beside it in \
                 the list of the scope",
            )));
        }
        alternatives.push((at, shape));
    }
    Ok(Shape::AnyOf(alternatives))
}

fn identities(fields: &mut Fields) -> Result<Option<Vec<(Pattern, Pattern)>>, Fault> {
    let Some((at, node)) = fields.take("identities") else { return Ok(None) };
    let read = |(at, node)| {
        let mut fields = Fields::of(at, node)?;
        let issuer = pattern(&mut fields, "issuer", "issuerRegex", "issuer and issuerRegex")?;
        let subject = pattern(&mut fields, "subject", "subjectRegex", "subject and subjectRegex")?;
        fields.end()?;
        Ok((issuer, subject))
    };
    at.list(node)?.into_iter().map(read).collect::<Result<_, _>>().map(Some)
}

fn pattern(
    fields: &mut Fields,
    exact: &'static str,
    regex: &'static str,
    choices: &'static str,
) -> Result<Pattern, Fault> {
    match (fields.text(exact)?, fields.text(regex)?) {
        (Some((_, text)), None) => Ok(Pattern::Exact(text)),
        (None, Some((at, text))) => Ok(Pattern::Regex(at, text)),
        (None, None) => Err(fields.at.fault(Problem::NotOne { choices, found: 0 })),
        (Some(_), Some(_)) => Err(fields.at.fault(Problem::NotOne { choices, found: 2 })),
    }
}

fn composefs(fields: &mut Fields) -> Result<Shape, Fault> {
    let require_digest = fields.flag("requireDigest")?;
    let keep_privileges = fields.flag("keepPrivileges")?;
    let integrity = match fields.text("integrity")? {
        None => None,
        Some((at, text)) => Some(match text.as_str() {
            "read" => Integrity::Read,
            "mount" => Integrity::Mount,
            "fetch" => Integrity::Fetch,
            other => {
                let expected = "an integrity level: read, mount or fetch".to_owned();
                return Err(at.fault(Problem::Value { value: shortened(other), expected }));
            }
        }),
    };
    // Probably a mistyped policy: it would always hold.
    if !require_digest && integrity.is_none() && !keep_privileges {
        let why = "it asks for nothing; say \"requireDigest\": true, an \"integrity\" level, or \"keepPrivileges\": true";
        return Err(fields.at.fault(Problem::Together(why)));
    }
    Ok(Shape::Composefs { require_digest, integrity, keep_privileges })
}

/// The keys of the one key field that is given, if any.
fn keys(fields: &mut Fields) -> Result<Vec<Vec<Material>>, Fault> {
    let found = materials(fields, ["keyPath", "keyPaths", "keyData", "keyDatas"])?;
    match found.len() {
        0 | 1 => Ok(found),
        _ => Err(fields.at.fault(Problem::NotAtMostOne(KEYS))),
    }
}

/// The fields `…Path`, `…Paths`, `…Data` and `…Datas`: one entry for each that is given.
fn materials(
    fields: &mut Fields,
    [path, paths, data, datas]: [&'static str; 4],
) -> Result<Vec<Vec<Material>>, Fault> {
    let mut found = Vec::new();
    if let Some((at, text)) = fields.text(path)? {
        found.push(vec![file(at, text)]);
    }
    if let Some(texts) = fields.texts(paths)? {
        found.push(texts.into_iter().map(|(at, text)| file(at, text)).collect());
    }
    if let Some((at, text)) = fields.text(data)? {
        found.push(vec![inline(at, &text)?]);
    }
    if let Some(texts) = fields.texts(datas)? {
        found.push(texts.into_iter().map(|(at, text)| inline(at, &text)).collect::<Result<_, _>>()?);
    }
    Ok(found)
}

fn one_material(
    fields: &mut Fields,
    path: &'static str,
    data: &'static str,
    both: &'static str,
) -> Result<Option<Material>, Fault> {
    match (fields.text(path)?, fields.text(data)?) {
        (None, None) => Ok(None),
        (Some((at, text)), None) => Ok(Some(file(at, text))),
        (None, Some((at, text))) => inline(at, &text).map(Some),
        (Some(_), Some(_)) => Err(fields.at.fault(Problem::NotAtMostOne(both))),
    }
}

fn file(at: At, text: String) -> Material {
    Material { at, source: MaterialSource::File(text.into()) }
}

fn inline(at: At, text: &str) -> Result<Material, Fault> {
    match BASE64.decode(text) {
        Ok(bytes) => Ok(Material { at, source: MaterialSource::Inline(bytes) }),
        Err(_) => {
            // A short excerpt: the data may be long.
            let expected = "base64 (for a file: base64 -w0 FILE)".to_owned();
            Err(at.fault(Problem::Value { value: text.chars().take(20).collect(), expected }))
        }
    }
}
