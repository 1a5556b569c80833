//! Names of images that need no verification, in the form of the kubelet's configuration
//! (`preloadedImagesVerificationAllowlist`): a name without tag or digest, or a prefix that ends in `/*`.

use std::fmt;
use std::str::FromStr;

use crate::kind::Kind;
use crate::oci::reference::is_canonical_host;

/// Matches images by registry and repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePattern {
    /// Without the `/*`.
    name: String,
    below: bool,
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is not a pattern of images: {problem}; write HOST/REPOSITORY, or HOST/PATH/* for all below"
)]
pub struct PatternError {
    given: String,
    problem: &'static str,
}

impl PatternError {
    /// A malformed pattern is the operator's input.
    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

impl ImagePattern {
    /// Whether it matches `name`, which is `HOST/REPOSITORY`.
    pub fn matches(&self, name: &str) -> bool {
        match name.strip_prefix(&self.name) {
            Some(rest) if self.below => rest.len() > 1 && rest.starts_with('/'),
            Some(rest) => rest.is_empty(),
            None => false,
        }
    }
}

impl FromStr for ImagePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let problem = |problem| Err(PatternError { given: text.chars().take(160).collect(), problem });
        let (name, below) = match text.strip_suffix("/*") {
            Some(name) => (name, true),
            None => (text, false),
        };
        if name.is_empty() || name.contains("//") || name.starts_with('/') || name.ends_with('/') {
            return problem("a part of the path is empty");
        }
        if name.contains('*') || name.contains('?') {
            return problem("a wildcard may only be the whole last part");
        }
        if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return problem("it holds a blank");
        }
        if !below && !name.contains('/') {
            return problem("it names a registry without a repository");
        }
        if name.contains('@') || name.split('/').skip(1).any(|part| part.contains(':')) {
            return problem("it has a tag or a digest");
        }
        // A layout has a directory instead.
        let host = name.split('/').next().filter(|host| *host != "oci:");
        if host.is_some_and(|host| !is_canonical_host(host)) {
            return problem(
                "its host is not as references spell it: in lower case, without port 443, addresses in full",
            );
        }
        Ok(Self { name: name.to_owned(), below })
    }
}

impl fmt::Display for ImagePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.below { f.write_str("/*") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_or_everything_below() {
        let matches = |pattern: &str, name: &str| pattern.parse::<ImagePattern>().unwrap().matches(name);
        assert!(matches("r.io/team/app", "r.io/team/app"));
        for other in ["r.io/team/app2", "r.io/team/app/x", "r.io/team", "q.io/team/app"] {
            assert!(!matches("r.io/team/app", other), "{other}");
        }
        for below in ["r.io/team/app", "r.io/team/app/x"] {
            assert!(matches("r.io/team/*", below), "{below}");
        }
        for other in ["r.io/team", "r.io/teams/app", "r.io/team/"] {
            assert!(!matches("r.io/team/*", other), "{other}");
        }
        assert!(matches("r.io:5000/*", "r.io:5000/a"));
        assert!(!matches("r.io/*", "r.io.evil.example/a"));
    }

    #[test]
    fn refusals_say_why() {
        for (bad, word) in [
            ("", "empty"),
            ("/*", "empty"),
            ("r.io//a", "empty"),
            ("r.io/a/", "empty"),
            ("*", "wildcard"),
            ("r.io/a*", "wildcard"),
            ("*.r.io/a", "wildcard"),
            ("r.io", "repository"),
            ("r.io/a:1", "tag"),
            ("r.io/a@sha256:00", "tag"),
            ("r.io/a b", "blank"),
            ("R.io/a", "lower case"),
            ("r.io:443/a", "port 443"),
            ("[0::1]/a", "in full"),
            ("127.1/*", "in full"),
            ("index.docker.io/*", "spell"),
        ] {
            let error = bad.parse::<ImagePattern>().unwrap_err();
            assert!(error.to_string().contains(word), "{bad:?}: {error}");
            assert_eq!(error.kind(), Kind::Invalid);
        }
        for good in ["r.io/*", "r.io:5000/a/b", "r.io/a/*", "[::1]:5000/*", "oci:/srv/images/*"] {
            assert_eq!(good.parse::<ImagePattern>().unwrap().to_string(), good);
        }
    }
}
