//! How often a registry is asked for a manifest: the fewest requests for a fresh pull, and for an image that is here.

use std::path::Path;

use composefs_csi::oci::digest::Digest;

use crate::support::archive::archive;
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};
use crate::support::impostor::{Answer, Asked, Impostor};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Whether a registry states the digest of a manifest in its answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Digests {
    Stated,
    NotStated,
}

/// A registry with `app:plain`, a manifest, and `app:index`, an index that leads to it.
async fn registry(digests: Digests) -> (Impostor, Layout, Digest) {
    let image = Image::new(vec![archive(&[("a", b"text")])]);
    let mut layout = Layout::new();
    let plain = layout.add(&image, "plain").digest;
    let index = layout.add_index(&[image], "index").digest;
    let blobs = layout.path().join("blobs/sha256");
    let answer = move |asked: &Asked| answer(&blobs, digests, &asked.path, plain, index);
    (Impostor::start(answer).await, layout, plain)
}

fn answer(blobs: &Path, digests: Digests, path: &str, plain: Digest, index: Digest) -> Answer {
    let name = path.rsplit('/').next().unwrap_or_default();
    let digest = match name {
        "plain" => plain.to_string(),
        "index" => index.to_string(),
        digest => digest.to_owned(),
    };
    let Some(hex) = digest.strip_prefix("sha256:") else { return Answer::status(404) };
    let Ok(bytes) = std::fs::read(blobs.join(hex)) else { return Answer::status(404) };
    let kind = if digest == index.to_string() { INDEX } else { MANIFEST };
    match digests {
        Digests::Stated => Answer::body(kind, &bytes).with("docker-content-digest", &digest),
        Digests::NotStated => Answer::body(kind, &bytes),
    }
}

async fn publish(plugin: &Plugin, machine: &Machine, pod: &str, image: &str, policy: &str) {
    let mut request = machine.publish(pod, image);
    request.volume_context.insert("pullPolicy".to_owned(), policy.to_owned());
    plugin.node.clone().node_publish_volume(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_asked_for_once() {
    for digests in [Digests::Stated, Digests::NotStated] {
        let (registry, _layout, plain) = registry(digests).await;
        let host = registry.address.to_string();
        let machine = Machine::new(&["--insecure-registry", &host]);
        let plugin = machine.start().await;
        let image = format!("{host}/app:plain");
        for policy in ["IfNotPresent", "Always"] {
            let fresh = Machine::new(&["--insecure-registry", &host]);
            let plugin = fresh.start().await;
            publish(&plugin, &fresh, "fresh", &image, policy).await;
            assert_eq!(registry.take("/manifests/"), ["GET /v2/app/manifests/plain"], "{policy}");
        }

        publish(&plugin, &machine, "first", &image, "IfNotPresent").await;
        registry.take("");
        publish(&plugin, &machine, "second", &image, "IfNotPresent").await;
        assert_eq!(registry.take(""), [""; 0], "the anonymous user has just read it");
        publish(&plugin, &machine, "third", &image, "Always").await;
        let asked = registry.take("");
        match digests {
            Digests::Stated => assert_eq!(asked, ["HEAD /v2/app/manifests/plain"]),
            Digests::NotStated => {
                assert_eq!(asked, ["HEAD /v2/app/manifests/plain", "GET /v2/app/manifests/plain"]);
            }
        }

        // By another name of the same image, through an index that is new here.
        publish(&plugin, &machine, "fourth", &format!("{host}/app:index"), "IfNotPresent").await;
        let expected = ["GET /v2/app/manifests/index".to_owned(), format!("GET /v2/app/manifests/{plain}")];
        assert_eq!(registry.take(""), expected, "and no layer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_by_digest_needs_one_request() {
    let (registry, _layout, plain) = registry(Digests::Stated).await;
    let host = registry.address.to_string();
    let machine = Machine::new(&["--insecure-registry", &host]);
    let plugin = machine.start().await;
    publish(&plugin, &machine, "a", &format!("{host}/app@{plain}"), "IfNotPresent").await;
    assert_eq!(registry.take("/manifests/"), [format!("GET /v2/app/manifests/{plain}")]);
}
