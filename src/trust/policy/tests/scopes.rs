//! Which scope governs, against a naive reading of the manual.

use std::path::Path;

use proptest::prelude::*;

use super::parse;
use crate::oci::reference::Reference;
use crate::trust::policy::Policy;

fn policy(transport: &str, scopes: &[&str]) -> Policy {
    let scopes: Vec<_> = scopes.iter().map(|s| format!(r#""{s}":[{{"type":"reject"}}]"#)).collect();
    let text = format!(
        r#"{{"default":[{{"type":"reject"}}],"transports":{{"{transport}":{{{}}}}}}}"#,
        scopes.join(",")
    );
    parse(&text).unwrap()
}

#[test]
fn the_most_specific_scope_governs() {
    let pinned = format!("r.example.com:5000/a/b@sha256:{}", "0".repeat(64));
    let scopes = [
        pinned.as_str(),
        "r.example.com:5000/a/b:1",
        "r.example.com:5000/a/b",
        "r.example.com:5000/a",
        "r.example.com:5000",
        "*.example.com",
        "*.com",
        "",
    ];
    let governing = |scopes: &[&str], image: &str| {
        let policy = policy("docker", scopes);
        policy.rule(&image.parse().unwrap(), None).scope
    };
    let scope = |scope: &str| format!("transports.docker[{scope:?}]");
    // Take the most specific one away, again and again.
    for first in 1..scopes.len() {
        assert_eq!(governing(&scopes[first..], "r.example.com:5000/a/b:1"), scope(scopes[first]));
    }
    assert_eq!(governing(&scopes, &pinned), scope(&pinned));
    // The tag beside a digest is anybody's to write.
    let lying = pinned.replace("/b@", "/b:1@");
    assert_eq!(governing(&scopes[1..], &lying), scope("r.example.com:5000/a/b"));
    assert_eq!(governing(&scopes, &lying), scope(&pinned));
    for (image, expected) in [
        ("r.example.com:5000/a/bc:1", "r.example.com:5000/a"),
        ("r.example.com:5000/ab:1", "r.example.com:5000"),
        ("r.example.com/a/b:1", "*.example.com"),
        ("example.com/a/b:1", "*.com"),
        ("r.example.com:50000/a:1", "*.example.com"),
        ("localhost/a/b:1", ""),
        ("r.example.org/a/b:1", ""),
    ] {
        assert_eq!(governing(&scopes, image), scope(expected), "{image}");
    }
    assert_eq!(governing(&["a.b"], "c.d/x"), "default");
    assert_eq!(
        governing(&["docker.io/library/busybox"], "docker.io/busybox"),
        scope("docker.io/library/busybox")
    );
    assert_eq!(governing(&["a.b/c:latest"], "a.b/c"), scope("a.b/c:latest"));
}

#[test]
fn layouts_are_scoped_by_their_directory() {
    let policy = policy("oci", &["/srv/images", "/srv/images/a", ""]);
    let governing = |directory: Option<&str>| {
        let reference: Reference = "oci:/whatever/is/written:1".parse().unwrap();
        policy.rule(&reference, directory.map(Path::new)).scope
    };
    assert_eq!(governing(Some("/srv/images/a")), r#"transports.oci["/srv/images/a"]"#);
    assert_eq!(governing(Some("/srv/images/a/b/c")), r#"transports.oci["/srv/images/a"]"#);
    assert_eq!(governing(Some("/srv/images/b")), r#"transports.oci["/srv/images"]"#);
    assert_eq!(governing(Some("/srv/images2")), r#"transports.oci[""]"#);
    assert_eq!(governing(None), r#"transports.oci[""]"#);
    assert_eq!(policy.rule(&"a.b/c:1".parse().unwrap(), None).scope, "default");
}

/// By the manual's words: of all scopes that hold the image, the longest; of wildcards, those after everything else.
fn naive(scopes: &[String], host: &str, repository: &str, tag: &str) -> String {
    let full = format!("{host}/{repository}:{tag}");
    let name = format!("{host}/{repository}");
    let holds = |scope: &str| match scope.strip_prefix("*") {
        Some(domain) => host.split(':').next().unwrap().ends_with(domain),
        None => scope == full || scope == name || name.starts_with(&format!("{scope}/")),
    };
    let plain =
        scopes.iter().filter(|s| !s.is_empty() && !s.starts_with('*') && holds(s)).max_by_key(|s| s.len());
    let wild = scopes.iter().filter(|s| s.starts_with('*') && holds(s)).max_by_key(|s| s.len());
    let all = scopes.iter().find(|s| s.is_empty());
    plain.or(wild).or(all).map_or("default".to_owned(), |s| format!("transports.docker[{s:?}]"))
}

fn host() -> impl Strategy<Value = String> {
    ("[ab]", "[ab]", "(:5)?").prop_map(|(a, b, port)| format!("{a}.{b}.c{port}"))
}

fn scope() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        host(),
        "[ab]".prop_map(|d| format!("*.{d}.c")),
        Just("*.c".to_owned()),
        (host(), "[ab](/[ab]){0,2}(:[12])?").prop_map(|(host, rest)| format!("{host}/{rest}")),
    ]
}

proptest! {
    #[test]
    fn the_longest_match_is_the_one_that_the_manual_means(
        scopes in prop::collection::btree_set(scope(), 0..12),
        host in host(),
        repository in "[ab](/[ab]){0,2}",
        tag in "[12]",
    ) {
        let scopes: Vec<String> = scopes.into_iter().collect();
        let text: Vec<&str> = scopes.iter().map(String::as_str).collect();
        let image: Reference = format!("{host}/{repository}:{tag}").parse().unwrap();
        let found = policy("docker", &text).rule(&image, None).scope;
        prop_assert_eq!(found, naive(&scopes, &host, &repository, &tag));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,200}") {
        let _ = parse(&text);
        let _ = super::parse_default(&text);
    }
}
