//! Who is shown which secret.

use super::script::{Reply, Script, Seen};
use super::*;
use crate::kind::Kind;
use crate::oci::SourceError;

/// A registry with its token service: alice's password is "right", tokens are `USER-N`, and
/// `accepts` says which tokens are good.
async fn registry(accepts: impl Fn(&str) -> Result<(), u16> + Send + Sync + 'static) -> Script {
    Script::start(move |request, before| {
        if request.target.starts_with("/token") {
            return token(request, before);
        }
        let refusal = match request.header("authorization").and_then(|h| h.strip_prefix("Bearer ")) {
            Some(token) => accepts(token),
            None => Err(401),
        };
        match refusal {
            Ok(()) => Reply::new(200, MANIFEST),
            Err(status) => {
                let realm = format!("http://{}/token", request.header("host").unwrap());
                let reply = Reply::new(status, r#"{"errors":[{"code":"NO","message":"not you"}]}"#);
                if status != 401 {
                    return reply;
                }
                reply.header("WWW-Authenticate", format!(r#"Bearer realm="{realm}",service="s e""#))
            }
        }
    })
    .await
}

fn token(request: &Seen, before: usize) -> Reply {
    let user = match request.header("authorization") {
        None => "nobody",
        Some(basic) if basic == format!("Basic {}", encoded("alice", "right")) => "alice",
        Some(basic) if basic == format!("Basic {}", encoded("bob", "right")) => "bob",
        Some(_) => return Reply::new(401, "wrong password"),
    };
    Reply::new(200, format!(r#"{{"token":"{user}-{before}","expires_in":300}}"#))
}

fn only(user: &'static str) -> impl Fn(&str) -> Result<(), u16> {
    move |token| if token.starts_with(user) { Ok(()) } else { Err(401) }
}

#[tokio::test]
async fn a_token_is_fetched_once_and_used_again() {
    let server = registry(only("alice")).await;
    let all = sources(&server.host);
    let source = open(&all, &server.host, &credentials(&server.host, "alice", "right"));
    for _ in 0..3 {
        source.manifest(&v1()).await.unwrap();
    }
    let again = open(&all, &server.host, &credentials(&server.host, "alice", "right"));
    again.manifest(&v1()).await.unwrap();
    assert_eq!(server.count("/token"), 1);
    assert_eq!(server.count("/manifests/v1"), 5);
    let asked = server.seen().into_iter().find(|r| r.target.starts_with("/token")).unwrap();
    let (_, query) = asked.target.split_once('?').unwrap();
    assert_eq!(query, "service=s+e&scope=repository%3Ateam%2Fapp%3Apull");
    // The password goes to the token service only.
    let basic = |r: &&Seen| r.header("authorization").is_some_and(|h| h.starts_with("Basic"));
    assert!(server.seen().iter().filter(basic).all(|r| r.target.starts_with("/token")));
}

#[tokio::test]
async fn two_credentials_never_share_a_token() {
    let server = registry(only("alice")).await;
    let all = sources(&server.host);
    let host = &server.host;
    let alice = open(&all, host, &credentials(host, "alice", "right"));
    alice.manifest(&v1()).await.unwrap();
    for (other, sent) in [
        (credentials(host, "bob", "right"), true),
        (credentials(host, "alice", "wrong"), true),
        (Credentials::none(), false),
    ] {
        let error = open(&all, host, &other).manifest(&v1()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{error}");
        let SourceError::Denied { credentials_sent, .. } = error else { panic!("{error}") };
        assert_eq!(credentials_sent, sent);
    }
    alice.manifest(&v1()).await.unwrap();
}

#[tokio::test]
async fn a_token_that_expired_is_renewed_once() {
    for status in [401, 403] {
        let server = registry(move |token| match token {
            "alice-1" => Err(status),
            _ => Ok(()),
        })
        .await;
        let source = anonymous_or_alice(&server);
        // The first token is refused at first sight, which a 401 may repair only once …
        let first = source.manifest(&v1()).await.unwrap_err();
        assert_eq!(first.kind(), Kind::Denied);
        assert!(first.to_string().contains("not you"), "{first}");
        assert_eq!(server.count("/token"), 1);
        // … and the next request finds it expired.
        source.manifest(&v1()).await.unwrap();
        assert_eq!(server.count("/token"), 2);
    }
}

fn anonymous_or_alice(server: &Script) -> Arc<dyn Source> {
    open(&sources(&server.host), &server.host, &credentials(&server.host, "alice", "right"))
}

#[tokio::test]
async fn refused_credentials_do_not_become_anonymous() {
    let server = registry(only("")).await;
    let wrong = credentials(&server.host, "alice", "wrong");
    let error = open(&sources(&server.host), &server.host, &wrong).manifest(&v1()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.to_string().contains("were refused"), "{error}");
    assert_eq!((server.count("/token"), server.count("/manifests")), (1, 1));
}

#[tokio::test]
async fn basic_is_sent_after_a_challenge_only() {
    let server = Script::start(|request, _| match request.header("authorization") {
        Some(h) if h == format!("Basic {}", encoded("alice", "right")) => Reply::new(200, MANIFEST),
        _ => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"r\""),
    })
    .await;
    let alice = anonymous_or_alice(&server);
    alice.manifest(&v1()).await.unwrap();
    alice.manifest(&v1()).await.unwrap();
    assert_eq!(server.seen().iter().filter(|r| r.header("authorization").is_none()).count(), 1);
    let all = sources(&server.host);
    for (other, says) in [
        (credentials(&server.host, "alice", "wrong"), "were refused"),
        (Credentials::none(), "no credentials were sent"),
    ] {
        let error = open(&all, &server.host, &other).manifest(&v1()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn identity_tokens_are_exchanged() {
    let server = registry_for_refresh().await;
    let json = format!(r#"{{"auths":{{"{}":{{"identitytoken":"re+fresh"}}}}}}"#, server.host);
    let refresh = Credentials::parse(json.as_bytes()).unwrap();
    open(&sources(&server.host), &server.host, &refresh).manifest(&v1()).await.unwrap();
    let asked = server.seen().into_iter().find(|r| r.target == "/token").unwrap();
    assert_eq!(asked.method, "POST");
    assert!(asked.body.contains("grant_type=refresh_token"), "{}", asked.body);
    assert!(asked.body.contains("refresh_token=re%2Bfresh"), "{}", asked.body);
    assert!(asked.body.contains("scope=repository%3Ateam%2Fapp%3Apull"), "{}", asked.body);
}

async fn registry_for_refresh() -> Script {
    Script::start(|request, _| {
        if request.target == "/token" {
            return Reply::new(200, r#"{"access_token":"good"}"#);
        }
        match request.header("authorization") {
            Some("Bearer good") => Reply::new(200, MANIFEST),
            _ => {
                let realm = format!("http://{}/token", request.header("host").unwrap());
                Reply::new(401, "").header("WWW-Authenticate", format!("Bearer realm=\"{realm}\""))
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_redirect_elsewhere_carries_no_authorization() {
    let storage = Script::start(|_, _| Reply::new(200, MANIFEST)).await;
    let elsewhere = format!("http://{}/signed?key=secret", storage.host);
    let server = Script::start(move |request, _| match request.header("authorization") {
        Some(_) => Reply::new(307, "").header("Location", elsewhere.clone()),
        None => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"r\""),
    })
    .await;
    anonymous_or_alice(&server).manifest(&v1()).await.unwrap();
    let request = storage.seen().pop().unwrap();
    assert_eq!(request.header("authorization"), None, "{request:?}");
    assert_eq!(request.header("referer"), None, "{request:?}");
}

#[tokio::test]
async fn redirects_end() {
    let server = Script::start(|request, _| {
        Reply::new(302, "").header("Location", format!("{}?again", request.target))
    })
    .await;
    let error = anonymous(&server.host).manifest(&v1()).await.unwrap_err();
    assert!(matches!(error, SourceError::Protocol { .. }), "{error}");
    assert!(error.to_string().contains("more than 5 times"), "{error}");
    assert_eq!(server.seen().len(), 6);
}

#[tokio::test]
async fn nonsense_from_the_token_service_is_not_repeated() {
    for answer in ["hunter2", r#"{"token":""}"#, r#"{"token":"hunter2\n"}"#, r#"["hunter2"]"#] {
        let server = Script::start(move |request, _| {
            if request.target.starts_with("/token") {
                return Reply::new(200, answer);
            }
            let realm = format!("http://{}/token", request.header("host").unwrap());
            Reply::new(401, "").header("WWW-Authenticate", format!("Bearer realm=\"{realm}\""))
        })
        .await;
        let error = anonymous(&server.host).manifest(&v1()).await.unwrap_err();
        assert!(matches!(error, SourceError::Protocol { .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}
