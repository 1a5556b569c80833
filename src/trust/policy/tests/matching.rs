//! signedIdentity, row by row of the manual.

use crate::trust::policy::identity::SignedIdentity;
use crate::trust::policy::json::{At, read};

fn identity(json: &str) -> SignedIdentity {
    SignedIdentity::parse(At::top(), read(json.as_bytes()).unwrap()).unwrap()
}

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn identities_are_compared_as_the_manual_says() {
    let pinned = format!("r.io/a/b@{DIGEST}");
    let tagged_and_pinned = format!("r.io/a/b:1@{DIGEST}");
    let other = format!("r.io/a/b@sha256:{}", "0".repeat(64));
    let exact = r#"{"type":"matchExact"}"#;
    let default = r#"{"type":"matchRepoDigestOrExact"}"#;
    let repository = r#"{"type":"matchRepository"}"#;
    let exact_reference = r#"{"type":"exactReference","dockerReference":"up.io/x:7"}"#;
    let exact_repository = r#"{"type":"exactRepository","dockerRepository":"up.io/x"}"#;
    let hub = r#"{"type":"exactRepository","dockerRepository":"busybox"}"#;
    let remap = r#"{"type":"remapIdentity","prefix":"r.io/a","signedPrefix":"up.io/z"}"#;
    let remap_host = r#"{"type":"remapIdentity","prefix":"r.io","signedPrefix":"up.io:5000/deep/er"}"#;
    let rows: &[(&str, &str, &str, bool)] = &[
        (exact, "r.io/a/b:1", "r.io/a/b:1", true),
        (exact, "r.io/a/b:1", "r.io/a/b:2", false),
        (exact, "r.io/a/b:1", "r.io/a/b", false),
        (exact, "r.io/a/b:latest", "r.io/a/b", false),
        (exact, &pinned, "r.io/a/b:1", false),
        (exact, &pinned, &pinned, true),
        (exact, &pinned, &other, false),
        (default, "r.io/a/b:1", "r.io/a/b:1", true),
        (default, "r.io/a/b:1", "r.io/a/b:2", false),
        (default, "r.io/a/b:1", "r.io/a/b", false),
        (default, "r.io/a/b:1", &pinned, false),
        (default, &pinned, "r.io/a/b:1", true),
        (default, &tagged_and_pinned, "r.io/a/b:2", true),
        (default, &pinned, "r.io/a/b", false),
        (default, &pinned, "r.io/a/c:1", false),
        (repository, "r.io/a/b:1", "r.io/a/b", true),
        (repository, "r.io/a/b:1", "r.io/a/b:7", true),
        (repository, "r.io/a/b:1", "r.io/a/bb", false),
        (repository, "r.io/a/b:1", "r.io:443/a/b", true),
        (repository, "r.io/a/b:1", "r.io:444/a/b", false),
        (repository, "docker.io/library/busybox:1", "index.docker.io/library/busybox", true),
        (repository, "docker.io/library/busybox:1", "busybox", true),
        (repository, "docker.io/library/busybox:1", "busybox:9", true),
        (exact_reference, "r.io/a/b:1", "up.io/x:7", true),
        (exact_reference, "r.io/a/b:1", "up.io/x:8", false),
        (exact_reference, "oci:/srv/a", "up.io/x:7", true),
        (exact_repository, "r.io/a/b:1", "up.io/x", true),
        (exact_repository, "r.io/a/b:1", "up.io/xx", false),
        (exact_repository, "oci:/srv/a", "up.io/x:3", true),
        (hub, "r.io/a/b:1", "docker.io/library/busybox:1", true),
        (remap, "r.io/a/b:1", "up.io/z/b:1", true),
        (remap, "r.io/a/b:1", "r.io/a/b:1", false),
        (remap, "r.io/ab:1", "r.io/ab:1", true),
        (remap, &pinned, "up.io/z/b:1", true),
        (remap, &pinned, "up.io/z/b", false),
        (remap_host, "r.io/a/b:1", "up.io:5000/deep/er/a/b:1", true),
        // Nothing to compare with.
        (exact, "oci:/srv/a:1", "up.io/x:7", false),
        (default, "oci:/srv/a:1", "up.io/x:7", false),
        (repository, "oci:/srv/a:1", "up.io/x:7", false),
        // Not a name at all.
        (exact_repository, "r.io/a/b:1", "", false),
        (exact_repository, "r.io/a/b:1", "oci:/up.io/x", false),
        (exact_repository, "r.io/a/b:1", "up.io/x/../y", false),
    ];
    for (json, image, signed, expected) in rows {
        let checked = identity(json).check(&image.parse().unwrap(), signed);
        assert_eq!(checked.is_ok(), *expected, "{json} {image} {signed}: {checked:?}");
        if let Err(why) = checked {
            assert!(why.len() < 600 && !why.is_empty(), "{why}");
        }
    }
    assert_eq!(SignedIdentity::default(), SignedIdentity::RepoDigestOrExact);
}

#[test]
fn a_refusal_says_what_would_do() {
    let check =
        |json: &str, signed: &str| identity(json).check(&"r.io/a/b:1".parse().unwrap(), signed).unwrap_err();
    let why = check(r#"{"type":"matchRepoDigestOrExact"}"#, "r.io/a/b");
    assert!(why.contains("r.io/a/b:1") && why.contains("matchRepository"), "{why}");
    let why = check(r#"{"type":"matchRepository"}"#, "r.io/other");
    assert!(why.contains("\"r.io/other\"") && why.contains("repository r.io/a/b"), "{why}");
    let why = check(r#"{"type":"remapIdentity","prefix":"r.io/a","signedPrefix":"up.io"}"#, "r.io/a/b:1");
    assert!(why.contains("up.io/b"), "{why}");
}
