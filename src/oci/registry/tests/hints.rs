//! HEAD is a hint, and so is the name by which a manifest is asked for: what has the digest is what was wanted.

use super::script::{Reply, Script, Seen};
use super::*;
use crate::kind::Kind;
use crate::oci::SourceError;
use crate::oci::digest::Digest;

const OTHER: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[],"other":1}"#;

fn stated(bytes: &[u8]) -> Reply {
    Reply::new(200, bytes).header("Docker-Content-Digest", Digest::of(bytes).to_string())
}

fn methods(server: &Script) -> Vec<String> {
    let manifests = server.seen().into_iter().filter(|request| request.target.contains("/manifests/"));
    manifests.map(|request| request.method).collect()
}

#[tokio::test]
async fn whatever_head_says_get_decides() {
    for status in [200, 400, 401, 403, 404, 405, 406, 410, 500, 501, 502, 503, 520] {
        let server = Script::start(move |request, _| match request.method.as_str() {
            "HEAD" => Reply::new(status, ""),
            _ => Reply::new(200, MANIFEST),
        })
        .await;
        let source = anonymous(&server.host);
        assert_eq!(source.resolve(&v1()).await.unwrap(), Digest::of(MANIFEST), "{status}");
        assert_eq!(methods(&server), ["HEAD", "GET"], "{status}");
        // It is here already.
        source.manifest(&Version::Digest(Digest::of(MANIFEST))).await.unwrap();
        assert_eq!(methods(&server).len(), 2, "{status}");
    }
}

#[tokio::test]
async fn a_head_that_is_redirected_to_a_link_signed_for_get_is_not_the_end() {
    let storage = Script::start(|request, _| match request.method.as_str() {
        "GET" => Reply::new(200, MANIFEST).header("Content-Type", "binary/octet-stream"),
        _ => Reply::new(403, ""),
    })
    .await;
    let signed = format!("http://{}/object?Signature=for-GET", storage.host);
    let server = Script::start(move |_, _| Reply::new(307, "").header("Location", signed.clone())).await;
    assert_eq!(anonymous(&server.host).resolve(&v1()).await.unwrap(), Digest::of(MANIFEST));
    // A token does not help either; it is not sent there.
    let server = Script::start(move |request, _| match request.header("authorization") {
        Some(_) => Reply::new(307, "").header("Location", format!("http://{}/object", storage.host)),
        None => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"r\""),
    })
    .await;
    let source = open(&sources(&server.host), &server.host, &credentials(&server.host, "alice", "right"));
    assert_eq!(source.resolve(&v1()).await.unwrap(), Digest::of(MANIFEST));
}

#[tokio::test]
async fn a_head_that_is_limited_is_repeated_and_no_download() {
    let server = Script::start(|_, before| match before {
        0 => Reply::new(429, "").header("Retry-After", "1"),
        _ => stated(MANIFEST),
    })
    .await;
    anonymous(&server.host).resolve(&v1()).await.unwrap();
    assert_eq!(methods(&server), ["HEAD", "HEAD"]);
}

#[tokio::test]
async fn refusals_are_the_same_for_those_who_ask_and_those_who_read() {
    for status in [400, 401, 403, 404, 429, 451, 500, 503] {
        let mut seen = Vec::new();
        for reads in [false, true] {
            let server = Script::start(move |_, _| {
                Reply::new(status, r#"{"errors":[{"code":"NO","message":"in a body"}]}"#)
                    .header("Retry-After", "3600")
            })
            .await;
            let source = anonymous(&server.host);
            let error = if reads { source.resolve_to_read(&v1()).await } else { source.resolve(&v1()).await };
            let text = error.unwrap_err().to_string().replace(&server.host, "HOST");
            seen.push((text, server.seen().into_iter().map(|request| request.target).collect::<Vec<_>>()));
        }
        assert_eq!(seen[0], seen[1], "{status}");
    }
}

#[tokio::test]
async fn a_digest_that_is_not_found_is_taken_by_its_tag() {
    let by_tag_only = |request: &Seen| match request.target.ends_with("/manifests/v1") {
        true => stated(MANIFEST),
        false => Reply::new(404, ""),
    };
    let server = Script::start(move |request, _| by_tag_only(request)).await;
    let digest = Digest::of(MANIFEST);
    // The tag that HEAD has resolved.
    let source = anonymous(&server.host);
    source.resolve(&v1()).await.unwrap();
    assert_eq!(source.manifest(&Version::Digest(digest)).await.unwrap().bytes, MANIFEST);
    // A reference with both.
    let reference: Reference = format!("{}/team/app:v1@{digest}", server.host).parse().unwrap();
    for reads in [false, true] {
        let source = sources(&server.host).open(&reference, &Credentials::none()).unwrap();
        let version = reference.version();
        let found =
            if reads { source.resolve_to_read(&version).await } else { source.resolve(&version).await };
        assert_eq!(found.unwrap(), digest);
        assert_eq!(source.manifest(&version).await.unwrap().bytes, MANIFEST);
    }
    // What the tag has never been said to name is not looked for there.
    let other = Version::Digest(Digest::of(OTHER));
    let before = server.count("/manifests/v1");
    assert_eq!(source.manifest(&other).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(server.count("/manifests/v1"), before);
}

#[tokio::test]
async fn a_tag_that_names_another_digest_gives_nothing() {
    let server = Script::start(|request, _| match request.target.ends_with("/manifests/v1") {
        true => stated(OTHER),
        false => Reply::new(404, ""),
    })
    .await;
    let digest = Digest::of(MANIFEST);
    let reference: Reference = format!("{}/team/app:v1@{digest}", server.host).parse().unwrap();
    let source = sources(&server.host).open(&reference, &Credentials::none()).unwrap();
    let error = source.manifest(&reference.version()).await.unwrap_err();
    assert!(matches!(error, SourceError::NotFound { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&digest.to_string()) && text.contains(&Digest::of(OTHER).to_string()), "{text}");
}
