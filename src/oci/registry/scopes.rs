//! The scopes of a token (the distribution project's "Token Scope Documentation"): what a request needs, and what the
//! registry names. Pure.

/// The scopes to ask a token for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scopes {
    /// What the request needs.
    pub(super) ours: String,
    /// What the registry names beside it.
    pub(super) named: Vec<String>,
}

/// The number of scopes that a registry can name.
const NAMED_MAX: usize = 8;

impl Scopes {
    /// The scope for `actions` on a repository, and those of a challenge. A scope of the challenge for the same repository
    /// adds nothing: it may name actions that are not needed.
    pub(super) fn of(challenge: Option<&str>, repository: &str, actions: &str) -> Self {
        let same = format!("repository:{repository}:");
        let named = challenge.unwrap_or_default().split_ascii_whitespace();
        let mut named: Vec<String> =
            named.filter(|scope| !scope.starts_with(&same)).map(str::to_owned).collect();
        named.dedup();
        named.truncate(NAMED_MAX);
        Self { ours: format!("{same}{actions}"), named }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_that_the_registry_names_come_second() {
        let of = |challenge| Scopes::of(challenge, "r/x", "pull");
        let ours = |named: &[&str]| Scopes {
            ours: "repository:r/x:pull".to_owned(),
            named: named.iter().map(|scope| (*scope).to_owned()).collect(),
        };
        assert_eq!(of(None), ours(&[]));
        assert_eq!(of(Some("repository:r/x:pull,push")), ours(&[]));
        assert_eq!(of(Some("  ")), ours(&[]));
        let proxied = "repository:mirror/r/x:pull";
        assert_eq!(of(Some(proxied)), ours(&[proxied]));
        assert_eq!(of(Some("repository:r/x:pull registry:catalog:*")), ours(&["registry:catalog:*"]));
        let many = (0..50).map(|i| format!("repository:{i}:pull ")).collect::<String>();
        assert_eq!(of(Some(&many)).named.len(), NAMED_MAX);
    }
}
