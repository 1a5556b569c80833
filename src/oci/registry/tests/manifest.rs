//! Manifests: limits, digests and what they claim to be.

use super::script::{Ending, Reply, Script};
use super::*;
use crate::kind::Kind;
use crate::oci::SourceError;
use crate::oci::digest::Digest;
use crate::oci::limits::ImageLimits;
use crate::oci::manifest::{Document, ManifestError};

const MANIFEST_MAX: usize = ImageLimits::DEFAULT.manifest_bytes;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[tokio::test]
async fn head_is_enough_to_resolve() {
    let server = Script::start(|_, _| {
        let digest = Digest::of(MANIFEST).to_string();
        Reply::new(200, MANIFEST).header("Docker-Content-Digest", digest)
    })
    .await;
    let source = anonymous(&server.host);
    assert_eq!(source.resolve(&v1()).await.unwrap(), Digest::of(MANIFEST));
    let requests = server.seen();
    assert_eq!((requests.len(), requests[0].method.as_str()), (1, "HEAD"));
    assert!(requests[0].header("accept").unwrap().contains(INDEX));
    let other = Version::Digest(Digest::of(b"other"));
    assert_eq!(source.resolve(&other).await.unwrap_err().kind(), Kind::Corrupt);
}

#[tokio::test]
async fn other_content_than_asked_for_is_refused() {
    let server = Script::start(|_, _| Reply::new(200, MANIFEST)).await;
    let wanted = Version::Digest(Digest::of(b"wanted"));
    let error = anonymous(&server.host).manifest(&wanted).await.unwrap_err();
    assert!(matches!(error, SourceError::WrongDigest { .. }), "{error}");
    let server = Script::start(|_, _| {
        let digest = Digest::of(b"other").to_string();
        Reply::new(200, MANIFEST).header("Docker-Content-Digest", digest)
    })
    .await;
    let error = anonymous(&server.host).manifest(&v1()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
}

#[tokio::test]
async fn manifests_are_read_up_to_the_limit_only() {
    let exact = vec![b' '; MANIFEST_MAX];
    let server = Script::start(move |_, _| Reply::new(200, exact.clone())).await;
    assert_eq!(anonymous(&server.host).manifest(&v1()).await.unwrap().bytes.len(), MANIFEST_MAX);
    let reply = Reply::new(200, vec![b' '; MANIFEST_MAX + 1]);
    for ending in [Ending::Whole, Ending::Unannounced, Ending::Endless] {
        let reply = reply.clone().ending(ending);
        let server = Script::start(move |_, _| reply.clone()).await;
        let error = anonymous(&server.host).manifest(&v1()).await.unwrap_err();
        assert!(matches!(error, SourceError::Limit { .. }), "{error}");
        assert!(error.to_string().contains("--max-manifest-bytes"), "{error}");
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn endless_errors_are_read_up_to_a_limit_only() {
    for status in [401, 404, 418, 500] {
        let reply = Reply::new(status, vec![b'x'; 100_000]).ending(Ending::Endless);
        let server = Script::start(move |_, _| reply.clone()).await;
        let error = anonymous(&server.host).manifest(&v1()).await.unwrap_err();
        assert!(error.to_string().len() < 1000, "{error}");
    }
}

#[tokio::test]
async fn a_manifest_under_the_type_of_an_index_is_refused() {
    let server = Script::start(|_, _| Reply::new(200, MANIFEST).header("Content-Type", INDEX)).await;
    let raw = anonymous(&server.host).manifest(&v1()).await.unwrap();
    let error = Document::parse(&raw.bytes, raw.media_type.as_deref()).unwrap_err();
    assert!(matches!(error, ManifestError::Syntax(_) | ManifestError::WrongShape { .. }), "{error}");
    for (given, stated) in [
        ("Application/Vnd.OCI.image.index.v1+json; charset=utf-8", Some(INDEX)),
        ("application/vnd.example.manifest", Some("application/vnd.example.manifest")),
        ("text/html", None),
        ("text/json", None),
        ("text/plain", None),
        ("application/json", None),
        ("application/octet-stream", None),
        ("binary/octet-stream", None),
        ("", None),
        ("application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json", None),
    ] {
        let server = Script::start(move |_, _| Reply::new(200, MANIFEST).header("Content-Type", given)).await;
        let raw = anonymous(&server.host).manifest(&v1()).await.unwrap();
        assert_eq!(raw.media_type.as_deref(), stated, "{given}");
    }
}

#[tokio::test]
async fn a_manifest_that_was_damaged_once_is_fetched_again() {
    let server = Script::start(|_, before| match before {
        0 => Reply::new(200, "{\"schemaVersion\": damaged"),
        _ => Reply::new(200, MANIFEST),
    })
    .await;
    let wanted = Version::Digest(Digest::of(MANIFEST));
    assert_eq!(anonymous(&server.host).manifest(&wanted).await.unwrap().bytes, MANIFEST);
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_page_for_people_is_named() {
    let page = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>";
    let portal = Script::start(move |_, _| Reply::new(200, page).header("Content-Type", "text/html")).await;
    let error = anonymous(&portal.host).manifest(&v1()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("a web page came instead, titled \"Sign in\""), "{text}");
    assert!(text.contains("no proxy answers for it"), "{text}");
    assert_eq!(error.kind(), Kind::Unsupported);
    // A registry that redirects to the page is not the one that showed it.
    let elsewhere = format!("http://{}/login", portal.host);
    let server = Script::start(move |_, _| Reply::new(302, "").header("Location", elsewhere.clone())).await;
    let text = anonymous(&server.host).manifest(&v1()).await.unwrap_err().to_string();
    assert!(text.contains(&format!("{} (to which {} redirects)", portal.host, server.host)), "{text}");
    // One with an error status is named as well.
    for (status, says) in [(403, "denied access"), (502, "answered HTTP 502")] {
        let server = Script::start(move |_, _| Reply::new(status, page)).await;
        let text = anonymous(&server.host).manifest(&v1()).await.unwrap_err().to_string();
        assert!(text.contains(says) && text.contains("titled \"Sign in\""), "{text}");
    }
}

#[tokio::test]
async fn what_a_registry_says_is_shown_without_control_characters() {
    let body = r#"{"errors":[{"code":"DENIED","message":"no\u001b[31m\nred"}]}"#;
    let server = Script::start(move |_, _| Reply::new(403, body)).await;
    let error = anonymous(&server.host).manifest(&v1()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("DENIED no [31m red") && !text.contains('\u{1b}'), "{text}");
}

#[tokio::test]
async fn a_manifest_that_trickles_is_given_up() {
    let trickle = Ending::Trickle(Duration::from_millis(250));
    let server = Script::start(move |_, _| Reply::new(200, MANIFEST).ending(trickle)).await;
    let mut settings =
        SourceSettings { document_timeout: Duration::from_millis(1500), ..settings(&[&server.host]) };
    settings.retry.attempts = 2;
    let source = open(&Sources::new(&settings).unwrap(), &server.host, &Credentials::none());
    let error = source.manifest(&v1()).await.unwrap_err();
    assert!(matches!(error, SourceError::Overdue { .. }), "{error}");
    assert_eq!(server.seen().len(), 1, "all attempts share the time");
}
