//! What is tried again, how often and when.

use std::time::Instant;

use super::script::{Ending, Reply, Script};
use super::*;
use crate::image::source::SourceError;
use crate::kind::Kind;

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
async fn server_errors_are_tried_again_within_bounds() {
    for status in [408, 500, 502, 503, 504] {
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
        assert_eq!(server.seen().len(), 1);
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
        impatient(&server.host, Duration::from_millis(400)).manifest(&v1()).await.unwrap();
        let server = Script::start(move |_, _| Reply::new(200, MANIFEST).ending(ending)).await;
        let error = impatient(&server.host, Duration::from_millis(400)).manifest(&v1()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Transient, "{error}");
        match ending {
            Ending::Cut(_) => assert!(matches!(error, SourceError::Unreachable { .. }), "{error}"),
            _ => assert!(matches!(error, SourceError::Stalled { .. }), "{error}"),
        }
    }
}
