//! Parses `WWW-Authenticate` (RFC 9110, section 11.6.1, and the distribution project's token
//! authentication).

/// A way to authenticate that a registry accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// A token.
    Bearer {
        /// The URL of the token service, not checked yet.
        realm: String,
        /// The service to name there.
        service: Option<String>,
        /// The scopes to ask for, separated by blanks. A proxy that rewrites paths has other names than its users.
        scope: Option<String>,
    },
    /// User and password.
    Basic,
}

/// Longer headers, in bytes, are ignored.
const HEADER_MAX: usize = 8 << 10;

/// Chooses the challenge to answer from all headers of a response. Tokens are preferred, because
/// the password then goes to fewer servers.
pub fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for header in headers.filter(|header| header.len() <= HEADER_MAX) {
        for challenge in parse(header) {
            match challenge {
                Challenge::Bearer { .. } => return Some(challenge),
                Challenge::Basic => basic = Some(Challenge::Basic),
            }
        }
    }
    basic
}

/// The challenges of one header, without those of unknown schemes and Bearer without a realm.
fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header;
    while let Some((word, after)) = token(rest) {
        // Credentials in one piece (token68), such as Negotiate's: padded, and no value follows.
        let unpadded = after.trim_start_matches('=').trim_start();
        if after.starts_with('=') && (unpadded.is_empty() || unpadded.starts_with(',')) {
            rest = unpadded.trim_start_matches([' ', '\t', ',']);
            continue;
        }
        // A scheme and a parameter's name differ only in the `=` that follows.
        let value_follows = after.trim_start().strip_prefix('=');
        match (value_follows, challenges.last_mut()) {
            (Some(after), Some((_, parameters))) => {
                let Some((value, after)) = value(after.trim_start()) else { break };
                parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            // A parameter before any scheme: the header is malformed.
            (Some(_), None) => break,
            (None, _) => {
                challenges.push((word.to_ascii_lowercase(), Vec::new()));
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    challenges.into_iter().filter_map(|(scheme, parameters)| known(&scheme, parameters)).collect()
}

fn known(scheme: &str, mut parameters: Vec<(String, String)>) -> Option<Challenge> {
    let mut take = |name: &str| {
        let at = parameters.iter().position(|(key, _)| key == name)?;
        Some(parameters.swap_remove(at).1)
    };
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => {
            Some(Challenge::Bearer { realm: take("realm")?, service: take("service"), scope: take("scope") })
        }
        _ => None,
    }
}

/// A token (RFC 9110, section 5.6.2) at the start of the text, and the rest. `/` and `:`
/// count as well, so that an unquoted URL is read.
fn token(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(c)))
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A parameter's value, a token or a quoted string, and the rest. `None` if a quote is not closed.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(word, rest)| (word.to_owned(), rest));
    };
    let mut unescaped = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((unescaped, &quoted[at + 1..])),
            '\\' => unescaped.push(characters.next()?.1),
            other => unescaped.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        let (realm, service) = (realm.to_owned(), service.map(str::to_owned));
        Some(Challenge::Bearer { realm, service, scope: None })
    }

    #[test]
    fn the_scope_is_read() {
        let header = r#"Bearer realm="https://x/y",scope="repository:a/b:pull,push repository:c:pull""#;
        let Some(Challenge::Bearer { scope, .. }) = choose(std::iter::once(header)) else { panic!() };
        assert_eq!(scope.as_deref(), Some("repository:a/b:pull,push repository:c:pull"));
    }

    #[test]
    fn headers_of_real_registries() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#,
                bearer("https://auth.docker.io/token", Some("registry.docker.io")),
            ),
            (r#"Bearer realm="https://g.io/t",error="invalid_token""#, bearer("https://g.io/t", None)),
            (r#"bearer Realm = "https://x/y" , SERVICE=z"#, bearer("https://x/y", Some("z"))),
            (r#"Basic realm="Registry Realm""#, Some(Challenge::Basic)),
            (
                r#"Basic realm="https://1.dkr.ecr.eu.amazonaws.com/",service="ecr.amazonaws.com""#,
                Some(Challenge::Basic),
            ),
            (r#"Basic realm="a", Bearer realm="https://x/y""#, bearer("https://x/y", None)),
            (r#"Negotiate, Basic realm="a""#, Some(Challenge::Basic)),
            (r#"Negotiate YIIabc==, Bearer realm="https://x/y""#, bearer("https://x/y", None)),
            (r#"Bearer realm= "https://x/y""#, bearer("https://x/y", None)),
            (r#"Negotiate YII+/=, Basic realm="a""#, Some(Challenge::Basic)),
            (r#"NTLM TlRMTVNT, Basic realm="a""#, Some(Challenge::Basic)),
            (r#"Basic realm="a", Negotiate YII="#, Some(Challenge::Basic)),
            (r#"Bearer realm="a\"b\\c""#, bearer("a\"b\\c", None)),
            ("Basic", Some(Challenge::Basic)),
            ("Bearer", None),
            (r#"Bearer service="x""#, None),
            (r#"Bearer realm="unterminated"#, None),
            ("", None),
            ("=,=", None),
        ] {
            assert_eq!(choose(std::iter::once(header)), expected, "{header}");
        }
    }

    #[test]
    fn several_headers_count() {
        let headers = [r#"Basic realm="a""#, r#"Bearer realm="https://x""#];
        assert_eq!(choose(headers.into_iter()), bearer("https://x", None));
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics_or_hangs(header in ".{0,200}") {
            let _ = choose(std::iter::once(header.as_str()));
        }
    }
}
