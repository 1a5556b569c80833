//! Image references as users write them.
//!
//! Two forms, both without any implied default registry:
//!
//! * `[docker://]HOST[:PORT]/REPOSITORY[:TAG][@sha256:…]`. The host is part of the name: short
//!   names such as `busybox` mean different images on different nodes and are refused with the
//!   full name to write instead.
//! * `oci:DIR[:TAG][@sha256:…]`, an OCI image layout. `DIR` is kept as written, absolute or
//!   relative; it cannot contain `:`, because the first one ends it.
//!
//! With a tag and a digest the digest decides and the tag is only kept for people to read.
//! Parsing is the only way to make a [`Reference`], and `parse(display(x)) == x`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::oci::digest::{Digest, DigestError};

mod grammar;

/// Which version of an image: a tag that may move, or a digest that cannot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Version {
    /// A tag (or, in an OCI layout, an `org.opencontainers.image.ref.name`).
    Tag(String),
    /// A manifest or index digest.
    Digest(Digest),
    /// The one image of an OCI layout that holds only one; never asked of a registry.
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
    /// There is no registry host in front.
    #[error("{given:?} does not name its registry; write {full}")]
    ShortName {
        /// What was given, shortened.
        given: String,
        /// What the user most likely means.
        full: String,
    },
    /// A transport that is not understood.
    #[error("{0:?} names a transport that is not supported; write HOST/REPOSITORY:TAG or oci:DIR:TAG")]
    Transport(String),
    /// The host or port is malformed.
    #[error("{host:?} in image reference {given:?} is not a host name with an optional port")]
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
    /// The version that decides: the digest if there is one, else the tag.
    pub fn version(&self) -> Version {
        let (tag, digest, none) = match self {
            Self::Registry(r) => (&r.tag, r.digest, Version::Tag("latest".to_owned())),
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

    /// The tag, which is only informational when there is a digest as well.
    pub fn tag(&self) -> Option<&str> {
        match self {
            Self::Registry(r) => r.tag.as_deref(),
            Self::Layout(l) => l.tag.as_deref(),
        }
    }

    /// The same image pinned to `digest`; the tag stays for people to read.
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

    /// Where that registry's API answers: Docker Hub's is not at its own name.
    pub fn api_host(&self) -> &str {
        if self.host == "docker.io" { "registry-1.docker.io" } else { &self.host }
    }

    /// The repository, for example `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
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

    /// The same reference with its directory made absolute, `base` being where relative
    /// directories start. `None` if the result is not a path that a reference can hold.
    pub fn absolute(&self, base: &Path) -> Option<Self> {
        let path: PathBuf = base.join(&self.directory);
        let directory = path.to_str().filter(|text| !text.contains(':'))?.to_owned();
        Some(Self { directory, ..self.clone() })
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
        match text.split_once(':') {
            _ if text.is_empty() => Err(ReferenceError::Empty),
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
