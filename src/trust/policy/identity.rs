//! `signedIdentity`: whether the repository that a signature names is that of the mounted image
//! (containers-policy.json(5), "signedBy").
//!
//! For a reference by digest only the repository has to match, because the digest is fixed already.

use super::error::{Fault, Problem};
use super::json::{At, Fields, Node, shortened};
use crate::oci::reference::{Reference, RegistryReference, Version, canonical_host};

const TYPES: &str =
    "matchExact, matchRepoDigestOrExact, matchRepository, exactReference, exactRepository, remapIdentity";

/// What the identity in a signature must be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum SignedIdentity {
    /// The image's own reference.
    Exact,
    /// The image's repository, and also its tag if the reference has one.
    #[default]
    RepoDigestOrExact,
    /// The image's repository, with any tag.
    Repository,
    /// Exactly this reference, for mirrors.
    ExactReference(Name),
    /// Exactly this repository, for mirrors.
    ExactRepository(Name),
    /// As [`Self::RepoDigestOrExact`], after one prefix of the image's name is replaced by another.
    Remap {
        /// The prefix of the image's name: a host, a namespace or a repository.
        prefix: String,
        /// The prefix that signatures have instead.
        signed: String,
    },
}

/// A Docker reference with short names expanded: some signing tools write short names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    repository: String,
    /// `:TAG`, `@DIGEST`, both, or nothing.
    version: String,
}

impl Name {
    /// Parses a name as Docker does: without a host it is on docker.io.
    fn parse(text: &str) -> Option<Self> {
        let first = text.split_once('/').map(|(first, _)| first);
        let hosted = first.is_some_and(|first| first == "localhost" || first.contains(['.', ':']));
        let full = if hosted { text.to_owned() } else { format!("docker.io/{text}") };
        let reference: Reference = full.parse().ok()?;
        let Reference::Registry(registry) = &reference else { return None };
        // The parser adds the tag `latest`, which the signed text does not contain.
        let tag =
            text.split('@').next().and_then(|name| name.rsplit('/').next()).is_some_and(|n| n.contains(':'));
        let mut version = String::new();
        if let Some(tag) = reference.tag().filter(|_| tag) {
            version = format!(":{tag}");
        }
        if let Some(digest) = reference.digest() {
            version = format!("{version}@{digest}");
        }
        Some(Self { repository: registry.name(), version })
    }

    fn has_version(&self) -> bool {
        !self.version.is_empty()
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.repository, self.version)
    }
}

impl SignedIdentity {
    /// Parses the field's value.
    pub(super) fn parse(at: At, node: Node) -> Result<Self, Fault> {
        let mut fields = Fields::of(at, node)?;
        let identity = match fields.need_text("type")?.as_str() {
            "matchExact" => Self::Exact,
            "matchRepoDigestOrExact" => Self::RepoDigestOrExact,
            "matchRepository" => Self::Repository,
            "exactReference" => {
                let name = name(&mut fields, "dockerReference", "a reference with a tag or digest")?;
                // Without a version it would be a repository, for which there is another type.
                if !name.has_version() {
                    let (value, expected) = (name.to_string(), "a reference with a tag or digest".to_owned());
                    return Err(fields.at.field("dockerReference").fault(Problem::Value { value, expected }));
                }
                Self::ExactReference(name)
            }
            "exactRepository" => {
                Self::ExactRepository(name(&mut fields, "dockerRepository", "a repository")?)
            }
            "remapIdentity" => Self::Remap {
                prefix: prefix(&mut fields, "prefix")?,
                signed: prefix(&mut fields, "signedPrefix")?,
            },
            other => {
                let problem = Problem::UnknownType { name: shortened(other), known: TYPES };
                return Err(fields.at.field("type").fault(problem));
            }
        };
        fields.end()?;
        Ok(identity)
    }

    /// Checks that a signature that names `signed` applies to the image `reference`.
    ///
    /// # Errors
    /// It does not apply; the text says why.
    pub(super) fn check(&self, reference: &Reference, signed: &str) -> Result<(), String> {
        let wrong = |wanted: &str| {
            let signed = shortened(signed);
            Err(format!("it is a signature of {signed:?}, and signedIdentity asks for {wanted}"))
        };
        // The signed name is compared in its expanded form, like the image's own.
        let Some(name) = Name::parse(signed) else {
            return Err(format!("the repository {:?} that it names is malformed", shortened(signed)));
        };
        let accepted = match self {
            Self::ExactReference(exact) => name == *exact,
            Self::ExactRepository(exact) => name.repository == exact.repository,
            _ => {
                let Reference::Registry(image) = reference else {
                    return Err("a layout has no repository name to compare; \
                                set signedIdentity to exactRepository or exactReference"
                        .to_owned());
                };
                self.matches_image(image, &reference.version(), &name)
            }
        };
        if accepted { Ok(()) } else { wrong(&self.wanted(reference)) }
    }

    fn matches_image(&self, image: &RegistryReference, version: &Version, name: &Name) -> bool {
        let own = image.name();
        let exact = match version {
            Version::Tag(tag) => format!(":{tag}"),
            Version::Digest(digest) => format!("@{digest}"),
            // Only a layout has an image without tag and digest.
            Version::Sole => return false,
        };
        // By digest the signed tag does not matter: the digest is signed as well.
        let pinned = matches!(version, Version::Digest(_));
        let repo_digest_or_exact = |repository: &str| {
            name.repository == repository && name.has_version() && (pinned || name.version == exact)
        };
        match self {
            Self::Exact => name.repository == own && name.version == exact,
            Self::RepoDigestOrExact => repo_digest_or_exact(&own),
            Self::Repository => name.repository == own,
            Self::Remap { prefix, signed } => {
                // A name without the prefix stays unchanged, as in containers-policy.
                repo_digest_or_exact(&remapped(&own, prefix, signed).unwrap_or(own.clone()))
            }
            Self::ExactReference(_) | Self::ExactRepository(_) => false,
        }
    }

    fn wanted(&self, reference: &Reference) -> String {
        let (name, remedy) =
            (reference.name(), "cosign signs no tag, so set signedIdentity to matchRepository");
        match self {
            Self::Exact => format!("exactly {reference} ({remedy})"),
            Self::RepoDigestOrExact if reference.digest().is_some() => {
                format!("repository {name} with a tag ({remedy})")
            }
            Self::RepoDigestOrExact => format!("exactly {reference} ({remedy})"),
            Self::Repository => format!("repository {name}"),
            Self::ExactReference(exact) => format!("exactly {exact}"),
            Self::ExactRepository(exact) => format!("repository {exact}"),
            Self::Remap { prefix, signed } => {
                let name = remapped(&name, prefix, signed).unwrap_or(name);
                format!("{name} with the image's tag ({remedy})")
            }
        }
    }
}

/// `name` with `signed` in place of `prefix`, if `name` starts with the whole components of `prefix`.
fn remapped(name: &str, prefix: &str, signed: &str) -> Option<String> {
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then(|| format!("{signed}{rest}"))
}

fn name(fields: &mut Fields, field: &'static str, expected: &str) -> Result<Name, Fault> {
    let text = fields.need_text(field)?;
    Name::parse(&text).ok_or_else(|| {
        let problem = Problem::Value { value: shortened(&text), expected: expected.to_owned() };
        fields.at.field(field).fault(problem)
    })
}

/// Parses a host, namespace or repository: anything that can stand before a slash.
fn prefix(fields: &mut Fields, field: &'static str) -> Result<String, Fault> {
    let text = fields.need_text(field)?;
    let tagged = text.split_once('/').is_some_and(|(_, rest)| rest.contains([':', '@']));
    // With one more component a valid prefix becomes a valid name.
    let full = format!("{text}/x");
    let hosted =
        full.split_once('/').is_some_and(|(host, _)| host == "localhost" || host.contains(['.', ':']));
    // The image's own name has its host in this spelling, too.
    let (host, _) = full.split_once('/').unwrap_or_default();
    let Some(canonical) = canonical_host(host) else {
        let expected = "a host, namespace or repository in full".to_owned();
        return Err(fields.at.field(field).fault(Problem::Value { value: shortened(&text), expected }));
    };
    if tagged || !hosted || full.parse::<Reference>().is_err() || text.contains("://") {
        let expected = "a host, namespace or repository in full, without tag or digest".to_owned();
        return Err(fields.at.field(field).fault(Problem::Value { value: shortened(&text), expected }));
    }
    Ok(format!("{canonical}{}", &text[host.len()..]))
}
