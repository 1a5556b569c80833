//! The grammar of references, one function per part.
//!
//! distribution-spec 1.1, "Pulling manifests", gives the expressions for repository and tag; the
//! limit of 255 bytes on host plus repository is there too.

use super::host::canonical_host;
use super::{LayoutReference, ReferenceError, RegistryReference};
use crate::oci::digest::Digest;

const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;
const REF_NAME_MAX: usize = 255;
const DIRECTORY_MAX: usize = 4095;

/// The beginning of an input, for errors: they never repeat an unbounded string.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(300).collect()
}

pub(super) fn registry(given: &str, rest: &str) -> Result<RegistryReference, ReferenceError> {
    let (rest, digest) = split_digest(given, rest)?;
    let Some((host, path)) = rest.split_once('/') else {
        return Err(short_name(given, rest));
    };
    if !names_a_host(host) {
        return Err(short_name(given, rest));
    }
    let host = parse_host(given, host)?;
    let (repository, tag) = match path.rsplit_once(':') {
        Some((repository, tag)) => (repository, Some(parse_tag(given, tag)?)),
        None => (path, None),
    };
    if !repository.split('/').all(is_component) {
        return Err(ReferenceError::Repository {
            repository: shortened(repository),
            given: shortened(given),
        });
    }
    // Clients add `library` for Docker Hub's official images, and users leave it out.
    let repository = match host.as_str() {
        "docker.io" if !repository.contains('/') => format!("library/{repository}"),
        _ => repository.to_owned(),
    };
    if host.len() + 1 + repository.len() > NAME_MAX {
        return Err(ReferenceError::TooLong { given: shortened(given), max: NAME_MAX });
    }
    // The canonical form names its version, so equal references are equal text.
    let tag = match (tag, digest) {
        (None, None) => Some("latest".to_owned()),
        (tag, _) => tag,
    };
    Ok(RegistryReference { host, repository, tag, digest })
}

pub(super) fn layout(given: &str, rest: &str) -> Result<LayoutReference, ReferenceError> {
    // A directory or `ref.name` may contain `@`, so only the last `@sha256:` begins a digest.
    let (rest, digest) = match rest.rfind("@sha256:") {
        Some(at) => (&rest[..at], Some(parse_digest(given, &rest[at + 1..])?)),
        None => (rest, None),
    };
    let (directory, tag) = match rest.split_once(':') {
        Some((directory, tag)) => (directory, Some(parse_ref_name(given, tag)?)),
        None => (rest, None),
    };
    if directory.is_empty() || directory.contains('\0') || directory.starts_with("//") {
        return Err(ReferenceError::Directory { given: shortened(given) });
    }
    if directory.len() > DIRECTORY_MAX {
        return Err(ReferenceError::TooLong { given: shortened(given), max: DIRECTORY_MAX });
    }
    Ok(LayoutReference { directory: directory.to_owned(), tag, digest })
}

fn split_digest<'a>(given: &str, rest: &'a str) -> Result<(&'a str, Option<Digest>), ReferenceError> {
    match rest.split_once('@') {
        Some((name, digest)) => Ok((name, Some(parse_digest(given, digest)?))),
        None => Ok((rest, None)),
    }
}

fn parse_digest(given: &str, text: &str) -> Result<Digest, ReferenceError> {
    text.parse().map_err(|source| ReferenceError::Digest { given: shortened(given), source })
}

/// Docker's rule: the first component is a host if it has a dot or a port, or is `localhost`.
fn names_a_host(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':'])
}

fn short_name(given: &str, rest: &str) -> ReferenceError {
    let library = if rest.contains('/') { "" } else { "library/" };
    ReferenceError::ShortName {
        given: shortened(given),
        full: format!("docker.io/{library}{}", shortened(rest)),
    }
}

fn parse_host(given: &str, text: &str) -> Result<String, ReferenceError> {
    canonical_host(text)
        .ok_or_else(|| ReferenceError::Host { host: shortened(text), given: shortened(given) })
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let framed = bytes.first().is_some_and(|b| word(*b)) && bytes.last().is_some_and(|b| word(*b));
    framed
        && component
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
fn parse_tag(given: &str, tag: &str) -> Result<String, ReferenceError> {
    let valid = (1..=TAG_MAX).contains(&tag.len())
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && !tag.starts_with(['.', '-']);
    if valid {
        return Ok(tag.to_owned());
    }
    Err(ReferenceError::Tag {
        tag: shortened(tag),
        given: shortened(given),
        rule: "1 to 128 letters, digits, '.', '_' or '-', not beginning with '.' or '-'",
    })
}

/// Names in layouts have more characters than tags (image-spec 1.1, annotations.md, `ref.name`).
fn parse_ref_name(given: &str, tag: &str) -> Result<String, ReferenceError> {
    let valid = (1..=REF_NAME_MAX).contains(&tag.len())
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:@+/".contains(&b));
    if valid {
        return Ok(tag.to_owned());
    }
    Err(ReferenceError::Tag {
        tag: shortened(tag),
        given: shortened(given),
        rule: "1 to 255 letters, digits or any of . _ - : @ + /",
    })
}
