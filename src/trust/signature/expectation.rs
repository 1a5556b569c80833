//! What a signature must satisfy: what a policy's requirements compile to.

use std::sync::Arc;

use regex::Regex;

use super::{PublicKey, SignatureError, TrustedRoot};

/// The predicate type of what `cosign sign` writes. Any other is an attestation: a scanner's report is
/// no leave to deploy.
pub const SIGNATURE_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

/// What is expected of a signature.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// Who may have made it.
    pub authority: Authority,
    /// Whether a transparency log must vouch for it.
    pub log: Log,
    /// The formats that are taken.
    pub formats: Formats,
    /// The in-toto predicate types that count as a signature. Empty means [`SIGNATURE_PREDICATE`] alone.
    pub predicate_types: Vec<String>,
}

impl Expectation {
    /// Whether a statement of this type counts as a signature.
    pub(super) fn takes_predicate(&self, predicate_type: &str) -> bool {
        match self.predicate_types.as_slice() {
            [] => predicate_type == SIGNATURE_PREDICATE,
            types => types.iter().any(|wanted| wanted == predicate_type),
        }
    }
}

/// Who may sign.
#[derive(Debug, Clone)]
pub enum Authority {
    /// The holder of any of these keys.
    Keys(Vec<PublicKey>),
    /// Whoever a certificate authority of `root` certified under any of `identities`. What containers-policy
    /// calls `fulcio` is a [`TrustedRoot::of`] its CA and log keys, and one identity.
    Identities {
        /// Certificate authorities, and the logs and time stamp authorities that say when.
        root: Arc<TrustedRoot>,
        /// The identities, any of which will do.
        identities: Vec<Identity>,
    },
}

/// Whether a transparency log must vouch for the signature.
///
/// A certificate's signature needs, whatever this says, a time that a log or a time stamp authority signed.
#[derive(Debug, Clone)]
pub enum Log {
    /// No log is asked for, and what a claim says about one is not looked at.
    Ignored,
    /// One of this root's logs. Under [`Authority::Identities`] give the same root.
    Required(Arc<TrustedRoot>),
}

/// The formats that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formats {
    /// Cosign's `sha256-<hex>.sig`.
    pub simple: bool,
    /// Sigstore bundles v0.3.
    pub bundle: bool,
}

impl Formats {
    /// Both.
    pub const ALL: Self = Self { simple: true, bundle: true };
}

/// A certified identity; both must match.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The OpenID Connect issuer.
    pub issuer: Matcher,
    /// The subject: an e-mail address or a URI.
    pub subject: Matcher,
}

/// How a name is matched.
#[derive(Debug, Clone)]
pub enum Matcher {
    /// This very name.
    Exact(String),
    /// This very name, as an e-mail address and no URI.
    Email(String),
    /// A regular expression over the whole name.
    Pattern(Regex),
}

impl Matcher {
    /// A matcher for whole names: `expression` is anchored at both ends, however it is written.
    ///
    /// # Errors
    /// `expression` is not a regular expression in the syntax of the `regex` crate (RE2 without look-around).
    pub fn pattern(expression: &str) -> Result<Self, SignatureError> {
        let wrong = |e: regex::Error| {
            SignatureError::Malformed(format!(
                "{expression:?} is not a regular expression: {e}; correct the policy"
            ))
        };
        // On its own first: `a)|(b` is none, but would be one between our parentheses.
        Regex::new(expression).map_err(wrong)?;
        Regex::new(&format!(r"\A(?:{expression})\z")).map(Self::Pattern).map_err(wrong)
    }

    /// Whether `name` matches.
    pub fn matches(&self, name: &str, is_email: bool) -> bool {
        match self {
            Self::Exact(wanted) => wanted == name,
            Self::Email(wanted) => is_email && wanted == name,
            Self::Pattern(regex) => regex.is_match(name),
        }
    }
}

impl std::fmt::Display for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(name) | Self::Email(name) => f.write_str(name),
            // Without the anchors that `pattern` put around it.
            Self::Pattern(regex) => {
                let text = regex.as_str();
                let inner = text.strip_prefix(r"\A(?:").and_then(|rest| rest.strip_suffix(r")\z"));
                write!(f, "/{}/", inner.unwrap_or(text))
            }
        }
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} from {}", self.subject, self.issuer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names_only() {
        let matcher = Matcher::pattern("https://github.com/org/.*|a@b").unwrap();
        assert!(matcher.matches("https://github.com/org/repo", false));
        assert!(matcher.matches("a@b", true));
        assert!(!matcher.matches("https://evil/https://github.com/org/repo", false));
        assert!(!matcher.matches("a@bc", true));
        assert!(!matcher.matches("a@b\n", true));
        assert!(!Matcher::pattern("(?m)^a$").unwrap().matches("a\nb", false));
        assert_eq!(matcher.to_string(), "/https://github.com/org/.*|a@b/");
    }

    #[test]
    fn a_pattern_cannot_leave_its_anchors() {
        assert!(Matcher::pattern("a)|(?:b").is_err());
        assert!(Matcher::pattern("(").is_err());
    }

    #[test]
    fn an_email_is_no_uri() {
        let matcher = Matcher::Email("a@b".into());
        assert!(matcher.matches("a@b", true));
        assert!(!matcher.matches("a@b", false));
    }
}
