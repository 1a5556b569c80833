//! The keys of a docker config's `auths`, which say which repositories a credential is for.

use std::fmt;

use super::CredentialError;
use crate::oci::reference::{Reference, canonical_host};

/// A host pattern with an optional path prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    host: String,
    path: String,
}

impl Pattern {
    /// Parses a key such as `https://index.docker.io/v1/`, `*.example.com` or `quay.io/team`.
    pub(super) fn parse(key: &str) -> Result<Self, CredentialError> {
        let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
        let bare = bare.unwrap_or(key).trim_end_matches('/');
        let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
        if host.is_empty() || host.contains(char::is_whitespace) {
            let problem = "its key does not name a registry host";
            return Err(CredentialError::Entry { key: key.chars().take(200).collect(), problem });
        }
        // As references spell it. Patterns, and hosts that no reference names, stay as they are.
        let host = canonical_host(host).unwrap_or_else(|| {
            let lower = host.to_ascii_lowercase();
            lower.strip_suffix(":443").map_or(lower.clone(), str::to_owned)
        });
        // Old docker login entries end with the API version, which is not a repository.
        let path = if matches!(path, "v1" | "v2") { "" } else { path };
        Ok(Self { host, path: path.to_owned() })
    }

    /// The sort key of patterns: a greater one is more specific.
    pub(super) fn specificity(&self) -> (bool, usize, usize) {
        (!self.host.contains(['*', '?']), self.path.len(), self.host.len())
    }

    /// Whether this key is for `host/repository`.
    pub(super) fn matches(&self, host: &str, repository: &str) -> bool {
        // A path ends at a component: a credential for team-a does not cover team-ab.
        let rest = repository.strip_prefix(&self.path);
        let path = rest.is_some_and(|rest| self.path.is_empty() || rest.is_empty() || rest.starts_with('/'));
        path && host_matches(&self.host, host)
    }
}

/// An entry of `matchImages` in kubelet's CredentialProviderConfig. It is like a key of docker's config, but its path
/// is a plain prefix of the image's, as in kubelet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageGlob(Pattern);

impl ImageGlob {
    /// Parses an entry such as `*.dkr.ecr.*.amazonaws.com` or `registry.io:8080/path`.
    ///
    /// # Errors
    /// It names no host.
    pub fn parse(text: &str) -> Result<Self, CredentialError> {
        Pattern::parse(text).map(Self)
    }

    /// Whether the entry matches the image. No entry matches a layout.
    pub fn matches(&self, image: &Reference) -> bool {
        let Reference::Registry(image) = image else { return false };
        host_matches(&self.0.host, image.host()) && image.repository().starts_with(&self.0.path)
    }
}

/// Compares label by label, so that `*.example.com` does not match `a.b.example.com`.
fn host_matches(pattern: &str, host: &str) -> bool {
    let split = |text: &str| match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name.to_owned(), Some(port.to_owned())),
        _ => (text.to_owned(), None),
    };
    let ((pattern, pattern_port), (host, host_port)) = (split(pattern), split(host));
    let (patterns, labels) = (pattern.split('.'), host.split('.'));
    pattern_port == host_port
        && patterns.clone().count() == labels.clone().count()
        && patterns.zip(labels).all(|(glob, label)| label_matches(glob.as_bytes(), label.as_bytes()))
}

/// Matches `*` with any run of bytes and `?` with one byte. Backtracking goes to the last star only, so a hostile
/// pattern cannot take exponential time.
fn label_matches(glob: &[u8], label: &[u8]) -> bool {
    let (mut g, mut l, mut star) = (0, 0, None);
    while l < label.len() {
        match glob.get(g) {
            // The star matches nothing at first.
            Some(b'*') => {
                star = Some((g, l));
                g += 1;
            }
            Some(c) if *c == b'?' || *c == label[l] => {
                g += 1;
                l += 1;
            }
            _ => match star {
                // The last star takes one byte more.
                Some((at, taken)) => {
                    g = at + 1;
                    l = taken + 1;
                    star = Some((at, taken + 1));
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|c| *c == b'*')
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.path.is_empty() { "" } else { "/" };
        write!(f, "{}{slash}{}", self.host, self.path)
    }
}
