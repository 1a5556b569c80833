//! The host of a registry, of which each address has one spelling.
//!
//! Policies, access rules, credentials and records compare hosts as text. If one address had two spellings, a reference
//! could pass a scope that was written for the other. So what the resolver or the HTTP client would take for the same
//! address is brought to one form, and what only some of them understand is refused.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The port of `https`, which nobody needs to write.
const DEFAULT_PORT: u16 = 443;

/// Names of Docker Hub that lead to the same images.
const DOCKER_HUB: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];

/// The one spelling of a host with an optional port: in lower case, without the port 443, addresses as RFC 5952 and as
/// four decimal numbers, and `docker.io` for Docker Hub. `None` if it is no host, or is spelled in a way that
/// programs understand differently (`127.1`, `0x7f.0.0.1`, a port with leading zeros, a final dot).
pub fn canonical_host(text: &str) -> Option<String> {
    let (name, port) = match text.rsplit_once(':') {
        // The last colon of a bare IPv6 address is inside its brackets.
        Some((name, port)) if !port.ends_with(']') => (name, Some(port_number(port)?)),
        _ => (text, None),
    };
    let name = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => ipv6(address.parse().ok()?)?,
        None => dns_name_or_ipv4(name)?,
    };
    Some(match port {
        Some(port) if port != DEFAULT_PORT => format!("{name}:{port}"),
        _ if DOCKER_HUB.contains(&name.as_str()) => "docker.io".to_owned(),
        _ => name,
    })
}

/// Whether `text` is the spelling that [`canonical_host`] gives.
pub fn is_canonical_host(text: &str) -> bool {
    canonical_host(text).is_some_and(|canonical| canonical == text)
}

/// The host of a registry's API. Docker Hub's differs from its name.
pub(in crate::oci) fn api_host(host: &str) -> &str {
    if host == "docker.io" { "registry-1.docker.io" } else { host }
}

fn port_number(text: &str) -> Option<u16> {
    let is_canonical = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| is_canonical)
}

/// An IPv4 address in an IPv6 one is the IPv4 address: that is what is connected to.
fn ipv6(address: Ipv6Addr) -> Option<String> {
    match address.to_ipv4_mapped() {
        Some(inner) => ipv4(inner),
        // Connecting to it means this machine, which has names of its own.
        None => (!address.is_unspecified()).then(|| format!("[{address}]")),
    }
}

fn ipv4(address: Ipv4Addr) -> Option<String> {
    (!address.is_unspecified()).then(|| address.to_string())
}

fn dns_name_or_ipv4(name: &str) -> Option<String> {
    if !name.split('.').all(is_label) {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or(&name);
    // By such an end the URL standard tells addresses from names, inet_aton(3) too (`127.1`, `0x7f.1`).
    let is_number = last.bytes().all(|b| b.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    // Rust reads four decimal numbers without leading zeros, and nothing else.
    if is_number { ipv4(name.parse().ok()?) } else { Some(name) }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_spelling_or_none() {
        for (text, canonical) in [
            ("r.io", Some("r.io")),
            ("R.IO", Some("r.io")),
            ("r.io:443", Some("r.io")),
            ("r.io:5000", Some("r.io:5000")),
            ("r.io:80", Some("r.io:80")),
            ("localhost", Some("localhost")),
            ("index.docker.io", Some("docker.io")),
            ("Registry-1.Docker.io:443", Some("docker.io")),
            ("docker.io:443", Some("docker.io")),
            ("docker.io:5000", Some("docker.io:5000")),
            ("r.io.", None),
            ("r..io", None),
            (".r.io", None),
            ("r.io:", None),
            ("r.io:0", None),
            ("r.io:080", None),
            ("r.io:+80", None),
            ("r.io:0443", None),
            ("r.io:65536", None),
            ("r_o.io", None),
            ("r\u{f8}.io", None),
            ("r%2eio", None),
            ("u@r.io", None),
            ("xn--r-fka.io", Some("xn--r-fka.io")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("127.0.0.1:443", Some("127.0.0.1")),
            ("127.0.0.1:080", None),
            ("127.1", None),
            ("127.0.1", None),
            ("2130706433:5000", None),
            ("0x7f.1", None),
            ("0x7f.0.0.0x1", None),
            ("0X7F000001:5000", None),
            ("0177.0.0.1", None),
            ("127.0.0.01", None),
            ("127.0.0.1.", None),
            ("127.0.0.256", None),
            ("1.2.3.4.5", None),
            ("r.1", None),
            ("r.0x", None),
            ("0.0.0.0:5000", None),
            ("1.r", Some("1.r")),
            ("[::1]", Some("[::1]")),
            ("[::1]:443", Some("[::1]")),
            ("[0:0:0:0:0:0:0:1]:5000", Some("[::1]:5000")),
            ("[0000::0001]", Some("[::1]")),
            ("[2001:DB8::0:1]", Some("[2001:db8::1]")),
            ("[::ffff:127.0.0.1]:5000", Some("127.0.0.1:5000")),
            ("[::ffff:7f00:1]", Some("127.0.0.1")),
            ("[::ffff:0:0]", None),
            ("[::]", None),
            ("[fe80::1%eth0]", None),
            ("[fe80::1%25eth0]", None),
            ("::1", None),
            ("[::1", None),
            ("[127.0.0.1]", None),
            ("", None),
        ] {
            assert_eq!(canonical_host(text).as_deref(), canonical, "{text}");
        }
    }

    /// Spellings of an IPv4 address that inet_aton(3) knows, with others that it does not.
    fn spelled_v4() -> impl Strategy<Value = String> {
        (any::<u32>(), prop::collection::vec(0..4u8, 4), 0..4usize).prop_map(|(address, bases, joined)| {
            let bytes = address.to_be_bytes();
            let mut parts: Vec<u32> = bytes[..3 - joined.min(3)].iter().map(|&byte| byte.into()).collect();
            let rest = bytes[parts.len()..].iter().fold(0, |all, &byte| all << 8 | u32::from(byte));
            parts.push(rest);
            let spelled = parts.iter().zip(bases).map(|(part, base)| match base {
                0 => format!("0x{part:x}"),
                1 => format!("0{part:o}"),
                2 => format!("00{part}"),
                _ => part.to_string(),
            });
            spelled.collect::<Vec<_>>().join(".")
        })
    }

    fn spelled_v6() -> impl Strategy<Value = (Ipv6Addr, String)> {
        let address = prop_oneof![
            any::<u128>(),
            any::<u32>().prop_map(|low| 0xffff_0000_0000 | u128::from(low)),
            any::<u16>().prop_map(u128::from),
        ];
        (address, any::<bool>(), any::<bool>()).prop_map(|(address, short, upper)| {
            let address = Ipv6Addr::from(address);
            let full = address.segments().map(|segment| format!("{segment:04x}")).join(":");
            let text = if short { address.to_string() } else { full };
            (address, format!("[{}]", if upper { text.to_ascii_uppercase() } else { text }))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_its_own_spelling(text in "[a-zA-Z0-9.:\\[\\]-]{0,24}") {
            if let Some(canonical) = canonical_host(&text) {
                prop_assert!(is_canonical_host(&canonical), "{} of {}", canonical, text);
            }
        }

        /// What the HTTP client connects to is what the name says: by it no two names are one address.
        #[test]
        fn the_http_client_understands_the_same(
            text in prop_oneof!["[a-zA-Z0-9.:-]{1,16}", "[0-9x.]{1,12}(:[0-9]{1,4})?", spelled_v4(),
                                spelled_v6().prop_map(|(_, text)| text)],
        ) {
            let Some(canonical) = canonical_host(&text) else { return Ok(()) };
            if canonical == "docker.io" {
                return Ok(());
            }
            let host = |host: &str| {
                let url = reqwest::Url::parse(&format!("https://{host}/v2/")).ok()?;
                Some((url.host_str()?.to_owned(), url.port_or_known_default()?))
            };
            let found = host(&canonical);
            prop_assert!(found.is_some(), "{}", canonical);
            // An IPv4 address in an IPv6 one is another text to the client, and the same address.
            if !text.to_ascii_lowercase().contains("ffff:") {
                prop_assert_eq!(host(&text), found, "{}", text);
            }
        }

        #[test]
        fn an_address_has_one_name((address, text) in spelled_v6()) {
            let expected = match address.to_ipv4_mapped() {
                Some(inner) if inner.is_unspecified() => None,
                Some(inner) => Some(inner.to_string()),
                None if address.is_unspecified() => None,
                None => Some(format!("[{address}]")),
            };
            prop_assert_eq!(canonical_host(&text), expected);
        }

        #[test]
        fn ipv4_has_one_spelling(text in spelled_v4()) {
            prop_assert_eq!(canonical_host(&text).is_some(), text.parse::<Ipv4Addr>().is_ok_and(|a| !a.is_unspecified()));
        }
    }
}
