//! Referrers: the API, its pages, and the tag that stands in for it.

use super::script::{Reply, Script};
use super::*;
use crate::kind::Kind;
use crate::oci::digest::Digest;

fn subject() -> Digest {
    Digest::of(b"subject")
}

fn list(names: &[&str]) -> Reply {
    let entry =
        |name: &&str| format!(r#"{{"digest":"{}","artifactType":"{name}"}}"#, Digest::of(name.as_bytes()));
    let entries = names.iter().map(entry).collect::<Vec<_>>().join(",");
    Reply::new(200, format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#))
        .header("Content-Type", "application/vnd.oci.image.index.v1+json")
}

async fn found(server: &Script) -> Vec<String> {
    let found = anonymous(&server.host).referrers(&subject()).await.unwrap();
    found.into_iter().map(|referrer| referrer.artifact_type.unwrap_or_default()).collect()
}

#[tokio::test]
async fn every_page_is_read() {
    let server = Script::start(|request, before| {
        assert!(request.target.starts_with(&format!("/v2/team/app/referrers/{}", subject())), "{request:?}");
        match before {
            0 => list(&["a", "b"]).header("Link", r#"<http://elsewhere.invalid/x?n=2&last=b>; rel="next""#),
            _ => list(&["c"]),
        }
    })
    .await;
    assert_eq!(found(&server).await, ["a", "b", "c"]);
    assert!(server.seen()[1].target.ends_with("?n=2&last=b"));
}

#[tokio::test]
async fn pages_without_end_are_cut() {
    let server = Script::start(|_, _| list(&["a"]).header("Link", "</again?last=a>; rel=next")).await;
    let pages = found(&server).await.len();
    assert_eq!((pages, server.seen().len()), (20, 20));
}

#[tokio::test]
async fn where_there_is_no_such_api_the_tag_is_read() {
    let tag = format!("/v2/team/app/manifests/sha256-{}", subject().hex());
    for status in [404, 405, 501] {
        let tag = tag.clone();
        let server = Script::start(move |request, _| match request.target == tag {
            true => list(&["a"]),
            false => Reply::new(status, "404 page not found"),
        })
        .await;
        assert_eq!(found(&server).await, ["a"], "{status}");
    }
    let server = Script::start(|_, _| Reply::new(404, "")).await;
    assert_eq!(found(&server).await, [""; 0]);
    // A page of a web server is no list.
    let server = Script::start(move |request, _| match request.target == tag {
        true => list(&["a"]),
        false => Reply::new(200, "<html>"),
    })
    .await;
    assert_eq!(found(&server).await, ["a"]);
}

#[tokio::test]
async fn a_registry_that_fails_is_no_registry_without_referrers() {
    for (status, kind) in [(503, Kind::Transient), (403, Kind::Denied), (429, Kind::Transient)] {
        let server = Script::start(move |_, _| Reply::new(status, "")).await;
        let error = anonymous(&server.host).referrers(&subject()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    // Nor is one that fails on the second page.
    let server = Script::start(|_, before| match before {
        0 => list(&["a"]).header("Link", "</v2/x?last=a>; rel=next"),
        _ => Reply::new(404, ""),
    })
    .await;
    anonymous(&server.host).referrers(&subject()).await.unwrap_err();
}
