//! What is tried again, how often and when.

use std::collections::BTreeMap;
use std::time::Instant;

use super::script::{Ending, Reply, Script};
use super::*;
use crate::kind::Kind;
use crate::oci::SourceError;
use crate::oci::digest::Digest;
use crate::oci::manifest::Descriptor;

#[tokio::test]
async fn retry_after_is_waited_for() {
    let server = Script::start(|_, before| match before {
        0 => Reply::new(429, "").header("Retry-After", "1"),
        _ => Reply::new(200, MANIFEST),
    })
    .await;
    let begin = Instant::now();
    anonymous(&server.host).manifest(&v1()).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_date_is_waited_for() {
    let server = Script::start(|_, before| match before {
        // The server's clock is a day ahead; its own date tells.
        0 => Reply::new(429, "")
            .header("Date", "Fri, 02 Jan 2026 12:00:00 GMT")
            .header("Retry-After", "Fri, 02 Jan 2026 12:00:01 GMT"),
        _ => Reply::new(200, MANIFEST),
    })
    .await;
    let begin = Instant::now();
    anonymous(&server.host).manifest(&v1()).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_long_retry_after_is_reported_at_once() {
    let reply = Reply::new(429, r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#);
    let reply = reply.header("Retry-After", "3600");
    let server = Script::start(move |_, _| reply.clone()).await;
    let error = anonymous(&server.host).manifest(&v1()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Transient);
    let text = error.to_string();
    assert!(text.contains("3600 s") && text.contains("slow down"), "{text}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn nobody_with_the_same_credential_asks_before_the_time_that_was_given() {
    let server = Script::start(|request, _| match request.target.as_str() {
        target if target.contains("/team/app/") => Reply::new(429, "").header("Retry-After", "1200"),
        _ => Reply::new(200, MANIFEST),
    })
    .await;
    let sources = sources(&server.host);
    let limited = open(&sources, &server.host, &Credentials::none());
    assert_eq!(limited.waits(), None);
    limited.manifest(&v1()).await.unwrap_err();
    let wait = limited.waits().unwrap();
    assert!(wait.host == server.host && wait.left() > Duration::from_secs(1000), "{wait:?}");
    // By whatever request, of whatever repository, and by those that open blobs.
    let other: Reference = format!("{}/team/other:v1", server.host).parse().unwrap();
    let other = sources.open(&other, &Credentials::none()).unwrap();
    let descriptor = Descriptor {
        media_type: "application/octet-stream".to_owned(),
        digest: Digest::of(b"x"),
        size: 1,
        annotations: BTreeMap::new(),
    };
    for error in [
        other.manifest(&v1()).await.unwrap_err(),
        other.resolve(&v1()).await.unwrap_err(),
        other.blob(&descriptor).await.map(drop).unwrap_err(),
    ] {
        assert!(
            matches!(&error, SourceError::RateLimited { retry_after: Some(left), .. }
            if *left > Duration::from_secs(1000) && *left <= Duration::from_secs(1200)),
            "{error}"
        );
    }
    assert_eq!(server.seen().len(), 1);
    // Another user is another account.
    let user = credentials(&server.host, "u", "p");
    let other: Reference = format!("{}/team/other:v1", server.host).parse().unwrap();
    sources.open(&other, &user).unwrap().manifest(&v1()).await.unwrap();
}

#[tokio::test]
async fn requests_wait_together_for_a_short_time() {
    let server = Script::start(|_, before| match before {
        0 => Reply::new(429, "").header("Retry-After", "3"),
        _ => Reply::new(200, MANIFEST),
    })
    .await;
    let source = anonymous(&server.host);
    let begin = Instant::now();
    let first = tokio::spawn({
        let source = Arc::clone(&source);
        async move { source.manifest(&v1()).await }
    });
    while source.waits().is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(begin.elapsed() < Duration::from_secs(120), "nobody is told to wait");
    }
    source.manifest(&v1()).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(3), "{:?}", begin.elapsed());
    first.await.unwrap().unwrap();
    assert_eq!(server.seen().len(), 3);
    assert_eq!(source.waits(), None);
}

#[tokio::test]
async fn server_errors_are_tried_again_within_bounds() {
    for status in [408, 425, 500, 502, 503, 504, 520, 524, 530] {
        let server = Script::start(move |_, before| match before {
            0 | 1 => Reply::new(status, "try later"),
            _ => Reply::new(200, MANIFEST),
        })
        .await;
        anonymous(&server.host).manifest(&v1()).await.unwrap();
        let server = Script::start(move |_, _| Reply::new(status, "try later")).await;
        let error = anonymous(&server.host).manifest(&v1()).await.unwrap_err();
        assert!(matches!(error, SourceError::Unavailable { .. }), "{error}");
        assert_eq!(server.seen().len(), 3);
    }
}

#[tokio::test]
async fn refusals_are_not_tried_again() {
    for (status, kind) in [(400, Kind::Unsupported), (403, Kind::Denied), (404, Kind::NotFound)] {
        let server = Script::start(move |_, _| Reply::new(status, "")).await;
        let error = anonymous(&server.host).manifest(&v1()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(server.count("/manifests/"), 1);
    }
}

#[tokio::test]
async fn the_token_service_is_retried_as_well() {
    let server = Script::start(|request, before| {
        if request.target.starts_with("/token") {
            return match before {
                1 => Reply::new(503, ""),
                _ => Reply::new(200, r#"{"token":"good"}"#),
            };
        }
        match request.header("authorization") {
            Some("Bearer good") => Reply::new(200, MANIFEST),
            _ => {
                let realm = format!("http://{}/token", request.header("host").unwrap());
                Reply::new(401, "").header("WWW-Authenticate", format!("Bearer realm=\"{realm}\""))
            }
        }
    })
    .await;
    anonymous(&server.host).manifest(&v1()).await.unwrap();
    assert_eq!(server.count("/token"), 2);
}

#[tokio::test]
async fn a_manifest_that_breaks_or_stalls_is_fetched_again() {
    for ending in [Ending::Cut(10), Ending::Stall(10), Ending::Stall(0)] {
        let server = Script::start(move |_, before| match before {
            0 => Reply::new(200, MANIFEST).ending(ending),
            _ => Reply::new(200, MANIFEST),
        })
        .await;
        impatient(&server.host, Duration::from_secs(3)).manifest(&v1()).await.unwrap();
        let server = Script::start(move |_, _| Reply::new(200, MANIFEST).ending(ending)).await;
        // Each attempt waits as long; a connection that breaks says so by itself.
        let patience = if matches!(ending, Ending::Cut(_)) { 20_000 } else { 500 };
        let error =
            impatient(&server.host, Duration::from_millis(patience)).manifest(&v1()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Transient, "{error}");
        match ending {
            Ending::Cut(_) => assert!(matches!(error, SourceError::Unreachable { .. }), "{error}"),
            _ => assert!(matches!(error, SourceError::Stalled { .. }), "{error}"),
        }
    }
}
