//! Challenges as registries and the proxies before them give them.

use super::script::{Reply, Script, Seen};
use super::*;
use crate::kind::Kind;
use crate::oci::SourceError;

/// The scopes that a request for a token names.
fn scopes(request: &Seen) -> Vec<String> {
    let (_, query) = request.target.split_once('?').unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
    pairs.map(|scope| scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",")).collect()
}

fn bearer(request: &Seen, more: &str) -> Reply {
    let realm = format!("http://{}/token", request.header("host").unwrap());
    Reply::new(401, "").header("WWW-Authenticate", format!("Bearer realm=\"{realm}\"{more}"))
}

fn is_good(request: &Seen) -> bool {
    request.header("authorization") == Some("Bearer good")
}

#[tokio::test]
async fn the_scope_that_the_registry_names_is_asked_for_too() {
    // Behind a proxy that rewrites paths only its own names mean anything. Some services refuse others outright.
    for refuses_others in [false, true] {
        let server = Script::start(move |request, _| {
            if request.target.starts_with("/token") {
                let asked = scopes(request);
                let theirs = asked.iter().any(|scope| scope == "repository:proxy/team/app:pull");
                if refuses_others && asked.len() > 1 {
                    return Reply::new(403, "");
                }
                return Reply::new(200, format!(r#"{{"token":"{}"}}"#, if theirs { "good" } else { "weak" }));
            }
            match is_good(request) {
                true => Reply::new(200, MANIFEST),
                false => bearer(request, r#",scope="repository:proxy/team/app:pull""#),
            }
        })
        .await;
        anonymous(&server.host).manifest(&v1()).await.unwrap();
        let first = server.seen().into_iter().find(|r| r.target.starts_with("/token")).unwrap();
        assert_eq!(scopes(&first), ["repository:team/app:pull", "repository:proxy/team/app:pull"]);
        assert_eq!(server.count("/token"), 1 + usize::from(refuses_others));
    }
}

#[tokio::test]
async fn no_more_is_asked_for_of_the_repository_than_is_needed() {
    let server = Script::start(|request, _| match request.target.starts_with("/token") {
        true => Reply::new(200, r#"{"token":"good"}"#),
        false if is_good(request) => Reply::new(200, MANIFEST),
        false => bearer(request, r#",scope="repository:team/app:pull,push""#),
    })
    .await;
    anonymous(&server.host).manifest(&v1()).await.unwrap();
    let asked = server.seen().into_iter().find(|r| r.target.starts_with("/token")).unwrap();
    assert_eq!(scopes(&asked), ["repository:team/app:pull"]);
}

#[tokio::test]
async fn a_challenge_of_the_root_alone_is_answered() {
    for hidden in [401, 403, 404] {
        let server = Script::start(move |request, _| match request.target.as_str() {
            target if target.starts_with("/token") => Reply::new(200, r#"{"token":"good"}"#),
            "/v2/" => bearer(request, ""),
            _ if is_good(request) => Reply::new(200, MANIFEST),
            _ => Reply::new(hidden, ""),
        })
        .await;
        let source = anonymous(&server.host);
        source.manifest(&v1()).await.unwrap();
        source.manifest(&v1()).await.unwrap();
        let asked: Vec<_> = server.seen().into_iter().map(|r| r.target).collect();
        assert_eq!(asked.len(), 5, "once asked, once challenged, once answered, and twice read: {asked:?}");
    }
}

#[tokio::test]
async fn what_is_missing_is_missing_whether_the_root_challenges_or_not() {
    for (challenges, token) in [(false, 200), (true, 200), (true, 401)] {
        let server = Script::start(move |request, _| match request.target.as_str() {
            target if target.starts_with("/token") => Reply::new(token, r#"{"token":"good"}"#),
            "/v2/" if challenges => bearer(request, ""),
            "/v2/" => Reply::new(200, "{}"),
            _ => Reply::new(404, ""),
        })
        .await;
        let source = anonymous(&server.host);
        for _ in 0..3 {
            let error = source.manifest(&v1()).await.unwrap_err();
            assert!(matches!(error, SourceError::NotFound { .. }), "{error}");
        }
        assert!(server.seen().iter().filter(|r| r.target == "/v2/").count() <= 1, "it is remembered");
    }
    // Repositories that need no token are read without, whatever the root says.
    let server = Script::start(|request, _| match request.target.as_str() {
        "/v2/" => bearer(request, ""),
        _ => Reply::new(200, MANIFEST),
    })
    .await;
    anonymous(&server.host).manifest(&v1()).await.unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_token_is_good_whatever_is_said_of_its_life() {
    for answer in [
        r#"{"token":"good","expires_in":-1}"#,
        r#"{"token":"good","expires_in":0}"#,
        r#"{"token":"good","expires_in":300.5}"#,
        r#"{"token":"good","expires_in":"300"}"#,
        r#"{"token":"good","expires_in":null}"#,
        r#"{"token":"good","expires_in":1e400}"#,
        r#"{"token":"good","expires_in":{"seconds":9}}"#,
        r#"{"token":"","access_token":"good","issued_at":1457510670,"refresh_token":null}"#,
    ] {
        let server = Script::start(move |request, _| match request.target.starts_with("/token") {
            true => Reply::new(200, answer),
            false if is_good(request) => Reply::new(200, MANIFEST),
            false => bearer(request, ""),
        })
        .await;
        let source = anonymous(&server.host);
        source.manifest(&v1()).await.unwrap();
        source.manifest(&v1()).await.unwrap();
        assert_eq!(server.count("/token"), 1, "{answer}");
    }
}

#[tokio::test]
async fn where_a_registry_redirects_to_is_named() {
    let storage = Script::start(|_, _| {
        Reply::new(403, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
    })
    .await;
    let (elsewhere, target) = (format!("http://{}/o?sig=secret", storage.host), storage.host.clone());
    let server = Script::start(move |_, _| Reply::new(307, "").header("Location", elsewhere.clone())).await;
    let error = anonymous(&server.host).manifest(&v1()).await.unwrap_err();
    let text = error.to_string();
    for part in [&*target, &*server.host, "HTTP 403", "Request has expired"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("secret"), "{text}");
    assert_eq!(error.kind(), Kind::Denied);
    // A storage that cannot be reached.
    drop(storage);
    let text = anonymous(&server.host).manifest(&v1()).await.unwrap_err().to_string();
    let named = format!("{target} (to which {} redirects)", server.host);
    assert!(text.contains(&named) && !text.contains("secret"), "{text}");
}
