//! Image references as users write them.
//!
//! There are two forms, and neither has a default registry:
//!
//! * `[docker://]HOST[:PORT]/REPOSITORY[:TAG][@sha256:…]`. The host is required. A short name such
//!   as `busybox` means different images on different nodes; the error gives the full name.
//! * `oci:DIR[:TAG][@sha256:…]`, an OCI image layout. `DIR` is kept as written, absolute or
//!   relative. It cannot contain `:`, which begins the tag.
//!
//! A host has one spelling ([`canonical_host`]), and no reference holds characters that are not plain text: what is
//! shown is what is compared.
//!
//! If there are a tag and a digest, the digest decides and the tag is informational.
//! A [`Reference`] is only made by parsing, and `parse(display(x)) == x`.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::oci::digest::{Digest, DigestError};
use crate::text::is_plain;

mod grammar;
mod host;

pub(super) use host::api_host;
pub use host::{canonical_host, is_canonical_host};

/// The tag of a reference without tag and digest.
const DEFAULT_TAG: &str = "latest";

/// The version of an image: a tag, which can move, or a digest, which cannot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Version {
    /// A tag (or, in an OCI layout, an `org.opencontainers.image.ref.name`).
    Tag(String),
    /// A manifest or index digest.
    Digest(Digest),
    /// The only image of an OCI layout. Registries have no such version.
    Sole,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => write!(f, "tag {tag}"),
            Self::Digest(digest) => digest.fmt(f),
            Self::Sole => f.write_str("the only image"),
        }
    }
}

/// A parsed image reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reference {
    /// An image in a registry.
    Registry(RegistryReference),
    /// An image in an OCI layout directory.
    Layout(LayoutReference),
}

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RegistryReference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// An image in an OCI layout directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LayoutReference {
    directory: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a string is not an image reference.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReferenceError {
    /// Nothing was given.
    #[error("the image reference is empty; write for example docker.io/library/busybox:1.36")]
    Empty,
    /// It holds a character that is not plain text.
    #[error("image reference {given:?} holds a control character or an invisible one; write it without")]
    NotPlain {
        /// What was given, shortened.
        given: String,
    },
    /// There is no registry host in front.
    #[error("{given:?} does not name its registry; write {full}")]
    ShortName {
        /// What was given, shortened.
        given: String,
        /// The name that the user most likely means.
        full: String,
    },
    /// A transport that is not understood.
    #[error("{0:?} names a transport that is not supported; write HOST/REPOSITORY:TAG or oci:DIR:TAG")]
    Transport(String),
    /// The host or port is malformed.
    #[error(
        "{host:?} in image reference {given:?} is not a host name with an optional port; write names without a final \
         dot, addresses as 192.0.2.1 or [2001:db8::1], and ports without leading zeros"
    )]
    Host {
        /// The part before the first slash.
        host: String,
        /// What was given, shortened.
        given: String,
    },
    /// The repository is malformed.
    #[error(
        "repository {repository:?} in image reference {given:?} is malformed: components are \
         lowercase letters and digits, separated inside by '.', '_', '__' or dashes"
    )]
    Repository {
        /// The part between host and tag.
        repository: String,
        /// What was given, shortened.
        given: String,
    },
    /// The tag is malformed.
    #[error("tag {tag:?} in image reference {given:?} is malformed; {rule}")]
    Tag {
        /// The part after the colon.
        tag: String,
        /// What was given, shortened.
        given: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The digest is malformed.
    #[error("in image reference {given:?}: {source}")]
    Digest {
        /// What was given, shortened.
        given: String,
        /// What is wrong with it.
        source: DigestError,
    },
    /// The name is longer than registries accept.
    #[error("the name in image reference {given:?} is longer than {max} bytes")]
    TooLong {
        /// What was given, shortened.
        given: String,
        /// The limit in bytes.
        max: usize,
    },
    /// The layout directory is missing or unusable.
    #[error("{given:?} does not name a directory; write oci:DIR or oci:DIR:TAG")]
    Directory {
        /// What was given, shortened.
        given: String,
    },
}

impl ReferenceError {
    /// A malformed reference is always the input's fault.
    pub fn kind(&self) -> crate::kind::Kind {
        crate::kind::Kind::Invalid
    }
}

impl Reference {
    /// The version to use: the digest if there is one, else the tag.
    pub fn version(&self) -> Version {
        let (tag, digest, none) = match self {
            Self::Registry(r) => (&r.tag, r.digest, Version::Tag(DEFAULT_TAG.to_owned())),
            Self::Layout(l) => (&l.tag, l.digest, Version::Sole),
        };
        match (digest, tag) {
            (Some(digest), _) => Version::Digest(digest),
            (None, Some(tag)) => Version::Tag(tag.clone()),
            (None, None) => none,
        }
    }

    /// The digest, if the reference is pinned to one.
    pub fn digest(&self) -> Option<Digest> {
        match self {
            Self::Registry(r) => r.digest,
            Self::Layout(l) => l.digest,
        }
    }

    /// The tag. It is informational if there is a digest as well.
    pub fn tag(&self) -> Option<&str> {
        match self {
            Self::Registry(r) => r.tag.as_deref(),
            Self::Layout(l) => l.tag.as_deref(),
        }
    }

    /// The same image pinned to a digest. The tag stays as information.
    #[must_use]
    pub fn pinned(mut self, to: Digest) -> Self {
        match &mut self {
            Self::Registry(r) => r.digest = Some(to),
            Self::Layout(l) => l.digest = Some(to),
        }
        self
    }

    /// The name without version: `HOST/REPOSITORY` or `oci:DIR`.
    pub fn name(&self) -> String {
        match self {
            Self::Registry(r) => r.name(),
            Self::Layout(l) => format!("oci:{}", l.directory),
        }
    }
}

impl RegistryReference {
    /// The registry as users and docker config files name it, for example `docker.io`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository, for example `library/busybox`.
    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` if there is neither tag nor digest.
    pub(super) fn tag_or_default(&self) -> Option<&str> {
        match (&self.tag, self.digest) {
            (None, None) => Some(DEFAULT_TAG),
            (tag, _) => tag.as_deref(),
        }
    }

    /// The digest, if the reference is pinned to one.
    pub(super) fn pinned_digest(&self) -> Option<Digest> {
        self.digest
    }

    /// `HOST/REPOSITORY`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }
}

impl LayoutReference {
    /// The directory as written.
    pub fn directory(&self) -> &Path {
        Path::new(&self.directory)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        if let Some(tag) = self.tag() {
            write!(f, ":{tag}")?;
        }
        match self.digest() {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        // `docker:5000/x` is a host with a port; only `//` makes the word a transport.
        match text.split_once(':') {
            _ if text.is_empty() => Err(ReferenceError::Empty),
            // It would be shown as something else than it is, or begin a line of the log.
            _ if !text.chars().all(is_plain) => {
                Err(ReferenceError::NotPlain { given: grammar::shortened(text) })
            }
            Some(("oci", rest)) => grammar::layout(text, rest).map(Self::Layout),
            Some(("docker", rest)) if rest.starts_with("//") => {
                grammar::registry(text, &rest[2..]).map(Self::Registry)
            }
            Some((_, rest)) if rest.starts_with("//") => {
                Err(ReferenceError::Transport(grammar::shortened(text)))
            }
            _ => grammar::registry(text, text).map(Self::Registry),
        }
    }
}

#[cfg(test)]
mod tests;
