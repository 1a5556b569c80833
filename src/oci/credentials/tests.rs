use serde_json::json;

use super::*;

fn credentials(value: &serde_json::Value) -> Credentials {
    Credentials::parse(value.to_string().as_bytes()).unwrap_or_else(|e| panic!("{e}"))
}

fn user_for(all: &Credentials, reference: &str) -> Option<String> {
    let found = all.for_repository(&reference.parse().unwrap()).unwrap();
    found.map(|credential| match credential.secret() {
        Secret::Password { user, .. } => user.clone(),
        Secret::IdentityToken(token) | Secret::RegistryToken(token) => token.clone(),
    })
}

fn keyed(keys: &[&str]) -> Credentials {
    let auths: serde_json::Map<_, _> =
        keys.iter().map(|key| ((*key).to_owned(), json!({"username": key, "password": "secret"}))).collect();
    credentials(&json!({ "auths": auths }))
}

#[test]
fn the_most_specific_key_wins() {
    let all = keyed(&[
        "r.io",
        "r.io/team",
        "r.io/team/app",
        "*.r.io",
        "a.r.io",
        "r.io:5000",
        "https://index.docker.io/v1/",
        "http://old.io/v2/",
        "*.*.cloud.io",
    ]);
    for (reference, user) in [
        ("r.io/x", Some("r.io")),
        ("r.io/team/x", Some("r.io/team")),
        ("r.io/team", Some("r.io/team")),
        ("r.io/teams/x", Some("r.io")),
        ("r.io/team/app/deep", Some("r.io/team/app")),
        ("b.r.io/x", Some("*.r.io")),
        ("a.r.io/x", Some("a.r.io")),
        ("b.a.r.io/x", None),
        ("r.io:5000/x", Some("r.io:5000")),
        ("r.io:5001/x", None),
        ("docker.io/library/x", Some("https://index.docker.io/v1/")),
        ("old.io/x", Some("http://old.io/v2/")),
        ("1.ecr.cloud.io/x", Some("*.*.cloud.io")),
        ("ecr.cloud.io/x", None),
        ("oci:dir", None),
    ] {
        assert_eq!(user_for(&all, reference).as_deref(), user, "{reference}");
    }
}

#[test]
fn keys_spell_hosts_as_references_do() {
    let all = keyed(&[
        "https://R.io:443",
        "[0:0:0:0:0:0:0:1]:5000",
        "registry-1.docker.io",
        "*.Cloud.io:443",
        "127.1",
    ]);
    for (reference, user) in [
        ("r.io/x", Some("https://R.io:443")),
        ("r.io:443/x", Some("https://R.io:443")),
        ("r.io:5000/x", None),
        ("[::1]:5000/x", Some("[0:0:0:0:0:0:0:1]:5000")),
        ("docker.io/library/x", Some("registry-1.docker.io")),
        ("a.cloud.io/x", Some("*.Cloud.io:443")),
        ("127.0.0.1/x", None),
    ] {
        assert_eq!(user_for(&all, reference).as_deref(), user, "{reference}");
    }
}

#[test]
fn every_form_of_secret() {
    let encoded = base64::engine::general_purpose::STANDARD.encode("me:pa:ss");
    let all = credentials(&json!({"auths": {
        "a.io": {"auth": encoded},
        "b.io": {"auth": encoded, "identitytoken": "refresh"},
        "c.io": {"registrytoken": "bearer"},
        "d.io": {},
        "e.io": {"auth": "", "email": "x@y"},
    }}));
    let found = all.for_repository(&"a.io/x".parse().unwrap()).unwrap();
    assert_eq!(found, Some(Credential::password("me", "pa:ss")));
    assert_eq!(user_for(&all, "b.io/x").as_deref(), Some("refresh"));
    assert_eq!(user_for(&all, "c.io/x").as_deref(), Some("bearer"));
    assert_eq!(user_for(&all, "d.io/x"), None);
    assert_eq!(user_for(&all, "e.io/x"), None);
}

#[test]
fn helpers_are_named_only_where_they_matter() {
    let all = credentials(&json!({
        "auths": {"s.io": {}, "plain.io": {"username": "u", "password": "p"}},
        "credsStore": "secretservice",
        "credHelpers": {"h.io": "ecr-login"},
    }));
    assert_eq!(user_for(&all, "plain.io/x").as_deref(), Some("u"));
    assert_eq!(user_for(&all, "other.io/x"), None);
    for (reference, helper) in [("h.io/x", "ecr-login"), ("s.io/x", "secretservice")] {
        let error = all.for_repository(&reference.parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains(helper), "{error}");
        assert_eq!(error.kind(), Kind::Unsupported);
    }
}

#[test]
fn broken_files_are_refused_without_their_secrets() {
    for bad in [
        r#"{"auths": {"r.io": {"auth": "hunter2"}}}"#,
        r#"{"auths": {"r.io": {"auth": "aHVudGVyMg=="}}}"#,
        r#"{"auths": {"r.io": {"password": "hunter2"}}}"#,
        r#"{"auths": {"r.io": "hunter2"}}"#,
        r#"{"auths": {"r.io": {"auth": "hunter2}}}"#,
        r#"{"auths": {"": {"username": "hunter2", "password": "hunter2"}}}"#,
        "hunter2",
    ] {
        let error = Credentials::parse(bad.as_bytes()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("unter2"), "{error:?}");
        assert_eq!(error.kind(), Kind::Invalid);
    }
    assert!(Credentials::parse(b"{}").is_ok());
}

#[test]
fn nothing_prints_a_secret() {
    let all = keyed(&["r.io"]);
    let one = all.for_repository(&"r.io/x".parse().unwrap()).unwrap().unwrap();
    let shown = format!("{all:?} {one:?} {one} {:?}", one.id());
    assert!(!shown.contains("secret") && shown.contains("[redacted]"), "{shown}");
}

#[test]
fn identities_tell_credentials_apart() {
    let ids = [
        CredentialId::anonymous(),
        Credential::password("a", "bc").id(),
        Credential::password("ab", "c").id(),
        Credential::password("a", "bd").id(),
        Credential(Secret::IdentityToken("abc".into())).id(),
        Credential(Secret::RegistryToken("abc".into())).id(),
    ];
    let distinct: std::collections::BTreeSet<_> = ids.iter().map(CredentialId::hex).collect();
    assert_eq!(distinct.len(), ids.len());
    assert_eq!(Credential::password("a", "bc").id(), ids[1]);
}

#[test]
fn the_old_format_of_pull_secrets() {
    let auth = base64::engine::general_purpose::STANDARD.encode("old:hunter2");
    let cfg = json!({ "r.io": { "auth": auth, "email": "a@b.c" } }).to_string();
    let all = Credentials::parse_dockercfg(cfg.as_bytes()).unwrap();
    assert_eq!(user_for(&all, "r.io/x").as_deref(), Some("old"));
    assert!(Credentials::parse_dockercfg(br#"{"auths":[]}"#).is_err());
}

#[test]
fn of_two_the_more_specific_counts_and_then_the_first() {
    let all = keyed(&["r.io", "s.io"]).and(keyed(&["r.io/team"]));
    assert_eq!(user_for(&all, "r.io/team/x").as_deref(), Some("r.io/team"));
    assert_eq!(user_for(&all, "r.io/x").as_deref(), Some("r.io"));
    let passwords = |user: &str| {
        let pair = ("r.io".to_owned(), (user.to_owned(), "p".to_owned()));
        Credentials::of_passwords([pair]).unwrap()
    };
    assert_eq!(user_for(&passwords("a").and(passwords("b")), "r.io/x").as_deref(), Some("a"));
    assert!(all.cover(&"s.io/x".parse().unwrap()) && !all.cover(&"t.io/x".parse().unwrap()));
}

#[test]
fn globs_match_as_kubelet_matches() {
    for (glob, image, expected) in [
        ("*.dkr.ecr.*.amazonaws.com", "123.dkr.ecr.eu-central-1.amazonaws.com/app:1", true),
        ("*.dkr.ecr.*.amazonaws.com", "123.dkr.ecr.eu.central.amazonaws.com/app:1", false),
        ("r.io:8080/path", "r.io:8080/path/app:1", true),
        ("r.io:8080/path", "r.io:8080/pathological/app:1", true),
        ("r.io:8080/path", "r.io/path/app:1", false),
        ("*.*.r.io", "a.b.r.io/app:1", true),
        ("*.r.io", "a.b.r.io/app:1", false),
    ] {
        let found = ImageGlob::parse(glob).unwrap().matches(&image.parse().unwrap());
        assert_eq!(found, expected, "{glob} {image}");
    }
}
