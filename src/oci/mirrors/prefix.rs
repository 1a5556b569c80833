//! Names of registries and repositories in containers-registries.conf(5): which images a prefix is for, and what their
//! names become. Pure.

use std::fmt;

use crate::oci::reference::canonical_host;

/// `HOST[:PORT][/PATH]`, or `*.DOMAIN` for all hosts below a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prefix {
    /// Without the star.
    text: String,
    wildcard: bool,
}

/// `HOST[:PORT][/PATH]`: what takes the place of what a prefix matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location(String);

/// A repository and its host, as references spell them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) host: String,
    pub(super) repository: String,
}

impl Prefix {
    /// Parses the value of `prefix`; the error ends a sentence.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(domain) = text.strip_prefix("*.") else {
            return Ok(Self { text: place(text)?, wildcard: false });
        };
        if domain.contains(['/', ':', '@', '*']) {
            return Err("has more than a domain after the star; write *.example.com");
        }
        let domain = canonical_host(domain).ok_or("names no domain after the star")?;
        Ok(Self { text: format!(".{domain}"), wildcard: true })
    }

    /// The part of `name` (`HOST/REPOSITORY`) after what the prefix matches; `None` if it does not match.
    pub(super) fn rest<'n>(&self, name: &'n str) -> Option<&'n str> {
        let rest = if self.wildcard {
            let host = name.split('/').next().unwrap_or_default();
            // Any depth, but at least one label.
            let at = host.find(&self.text).filter(|at| *at > 0)?;
            &name[at + self.text.len()..]
        } else {
            name.strip_prefix(&self.text)?
        };
        // A host without a port is for all ports, as in containers' own tools. Blocking holds for them as well.
        (rest.is_empty() || rest.starts_with(['/', ':'])).then_some(rest)
    }

    /// The longest prefix that matches is the one that applies.
    pub(super) fn length(&self) -> usize {
        self.text.len() + usize::from(self.wildcard)
    }

    pub(super) fn is_wildcard(&self) -> bool {
        self.wildcard
    }
}

impl Location {
    /// Parses the value of `location`; the error ends a sentence.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        place(text).map(Self)
    }

    /// The name whose end is `rest`. `None` if that is no name, as when `rest` begins with a port.
    pub(super) fn with(&self, rest: &str) -> Option<Name> {
        Name::parse(&format!("{}{rest}", self.0))
    }
}

/// A host with an optional path, with the host as references spell it.
fn place(text: &str) -> Result<String, &'static str> {
    if text.contains("://") {
        return Err("has a scheme; write HOST[:PORT][/PATH], and insecure = true for plain http");
    }
    let text = text.trim_end_matches('/');
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    let host = canonical_host(host).ok_or("names no host; write HOST[:PORT][/PATH]")?;
    if path.is_empty() {
        return Ok(host);
    }
    let is_plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
    let mut parts = path.split('/');
    if !parts.all(|part| part.bytes().any(|c| c.is_ascii_alphanumeric()) && part.bytes().all(is_plain)) {
        return Err("has a path that is no part of a repository's name, or a tag or digest");
    }
    Ok(format!("{host}/{path}"))
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        let (host, repository) = text.split_once('/')?;
        let host = canonical_host(host)?;
        // A port after a path is none.
        let is_plain = !repository.is_empty() && !repository.contains([':', '@']);
        is_plain.then(|| Self { host, repository: repository.to_owned() })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.wildcard { "*" } else { "" };
        write!(f, "{star}{}", self.text)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(prefix: &str, name: &'static str) -> Option<&'static str> {
        Prefix::parse(prefix).unwrap().rest(name)
    }

    #[test]
    fn a_prefix_ends_where_a_part_of_the_name_does() {
        assert_eq!(rest("r.io", "r.io/a/b"), Some("/a/b"));
        assert_eq!(rest("r.io/a", "r.io/a/b"), Some("/b"));
        assert_eq!(rest("r.io/a/b/", "r.io/a/b"), Some(""));
        assert_eq!(rest("r.io/a", "r.io/ab"), None);
        assert_eq!(rest("r.io", "r.io.evil/a"), None);
        // As documented there, a host is for all its ports, and one with a port for that alone.
        assert_eq!(rest("r.io", "r.io:5000/a"), Some(":5000/a"));
        assert_eq!(rest("r.io:5000", "r.io/a"), None);
        // However it is spelled.
        assert_eq!(rest("INDEX.docker.io/library", "docker.io/library/x"), Some("/x"));
        assert_eq!(rest("r.io:443", "r.io/a"), Some("/a"));
    }

    #[test]
    fn a_star_is_for_hosts_below_a_domain() {
        assert_eq!(rest("*.example.com", "a.example.com/x"), Some("/x"));
        assert_eq!(rest("*.example.com", "a.b.example.com:5000/x"), Some(":5000/x"));
        for name in ["example.com/x", "aexample.com/x", "r.io/a.example.com/x", "a.example.com.evil/x"] {
            assert_eq!(Prefix::parse("*.example.com").unwrap().rest(name), None, "{name}");
        }
        for wrong in ["*", "*.", "a.*.com", "*.example.com/x", "*.example.com:5000", "*.*.com"] {
            assert!(Prefix::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_location_takes_the_place_of_what_matched() {
        let with =
            |location: &str, rest| Location::parse(location).unwrap().with(rest).map(|name| name.to_string());
        assert_eq!(with("mirror.local:5000/cache", "/a/b").as_deref(), Some("mirror.local:5000/cache/a/b"));
        assert_eq!(with("m.io/only", "").as_deref(), Some("m.io/only"));
        assert_eq!(with("m.io", ":5000/a").as_deref(), Some("m.io:5000/a"));
        assert_eq!(with("m.io:1", ":5000/a"), None);
        assert_eq!(with("m.io/r", ":5000/a"), None);
        assert_eq!(with("m.io", ""), None);
        for wrong in
            ["https://m.io", "", "m.io/A", "m.io/a:tag", "m.io/a@sha256:00", "m.io//a", "m.io/../a", "/a"]
        {
            assert!(Location::parse(wrong).is_err(), "{wrong}");
        }
    }
}
