//! `WWW-Authenticate`: what a registry wants to see (RFC 9110, section 11.6.1, and the
//! distribution project's token authentication).

/// What a registry accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// A token.
    Bearer {
        /// Where tokens are given out: a URL that is not checked yet.
        realm: String,
        /// What to name as the service there.
        service: Option<String>,
    },
    /// User and password.
    Basic,
}

/// Longer headers are not parsed.
const HEADER_MAX: usize = 8 << 10;

/// Picks what this client answers from all challenges of a response; tokens are preferred,
/// because they show the password to fewer servers.
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

/// The challenges of one header; those of unknown schemes or without realm are left out.
fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header;
    while let Some((word, after)) = token(rest) {
        let value_follows = after.trim_start().strip_prefix('=');
        match (value_follows, challenges.last_mut()) {
            (Some(after), Some((_, parameters))) => {
                let Some((value, after)) = value(after.trim_start()) else { break };
                parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
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
        "bearer" => Some(Challenge::Bearer { realm: take("realm")?, service: take("service") }),
        _ => None,
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(c)))
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

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
        Some(Challenge::Bearer { realm: realm.into(), service: service.map(str::to_owned) })
    }

    #[test]
    fn headers_of_real_registries() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#,
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
