//! Those without rights: they are told the same whether or not the image is here, and get nothing by lies.

use std::collections::HashMap;
use std::time::Duration;

use composefs_csi::oci::digest::Digest;
use tonic::Code;

use super::pods::*;
use crate::support::images::{Image, Layout};
use crate::support::impostor::{Answer, Impostor};
use crate::support::wait::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn one_without_rights_is_told_the_same_before_during_and_after() {
    let (registry, proxy) = registry().await;
    push(&registry, vec![layer("a", 2 << 20), layer("b", 2 << 20)], "team/app:1");
    let image = format!("{}/team/app:1", proxy.address);
    let machine = machine(&[&proxy.address], &[]);
    let plugin = machine.start().await;
    let pods = Pods::new(&machine, &plugin);
    let strangers = [
        HashMap::new(),
        secret(&proxy.address, ("alice", "guess")),
        secret(&proxy.address, ("mallory", "wonderland")),
    ];

    let before = told(&pods, &image, &strangers).await;
    for (code, message) in &before {
        assert_eq!(*code, Code::PermissionDenied, "{message}");
        assert!(!message.contains("sha256:"), "{message}");
    }
    let alice = secret(&proxy.address, ALICE);
    proxy.throttle(256 << 10);
    let begun = proxy.passed();
    let (given, during) = tokio::join!(pods.start(&image, "IfNotPresent", &alice), async {
        eventually("the pull", || proxy.passed() > begun + (256 << 10)).await;
        let during = told(&pods, &image, &strangers).await;
        assert!(machine.published().is_empty(), "the pull was still under way");
        proxy.throttle(0);
        during
    });
    given.unwrap();
    assert_eq!(during, before);
    let asked = proxy.passed();
    assert_eq!(told(&pods, &image, &strangers).await, before);
    assert!(proxy.passed() > asked, "nobody is refused without asking the registry");
    assert_eq!(machine.published().len(), 1);
    for (_, message) in before {
        assert!(!machine.log().contains("wonderland"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_of_the_attackers_gets_no_layer_out_of_the_store() {
    let (registry, proxy) = registry().await;
    push(&registry, vec![layer("secret", 100_000)], "team/app:1");
    let image = format!("{}/team/app:1", proxy.address);
    let storage =
        registry.storage().join("docker/registry/v2/repositories/team/app/_manifests/tags/1/current/link");
    let manifest: Digest = std::fs::read_to_string(storage).unwrap().parse().unwrap();
    let bytes = std::fs::read(registry.blob_file(&manifest.hex())).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let config: Digest = document["config"]["digest"].as_str().unwrap().parse().unwrap();
    let config_bytes = std::fs::read(registry.blob_file(&config.hex())).unwrap();
    let media_type = document["mediaType"].as_str().unwrap().to_owned();
    // He knows manifest and config, and claims to have everything.
    let evil = Impostor::start(move |asked| {
        if asked.path.contains("/manifests/") {
            Answer::body(&media_type, &bytes).with("docker-content-digest", &manifest.to_string())
        } else if asked.path.ends_with(&config.to_string()) {
            Answer::body("application/octet-stream", &config_bytes)
        } else {
            Answer::status(404)
        }
    })
    .await;
    let machine = machine(&[&proxy.address, &evil.address], &[]);
    let plugin = machine.start().await;
    let pods = Pods::new(&machine, &plugin);
    let asks = [
        format!("{}/evil/x:1", evil.address),
        format!("{}/evil/x@{manifest}", evil.address),
        // The victim's own repository name, too.
        format!("{}/team/app:1", evil.address),
    ];
    let mut before = Vec::new();
    for ask in &asks {
        before.push(told(&pods, ask, &[HashMap::new(), secret(&evil.address, BOB)]).await);
    }
    pods.start(&image, "IfNotPresent", &secret(&proxy.address, ALICE)).await.unwrap();
    for (ask, before) in asks.iter().zip(&before) {
        let fetched = evil.asked("/blobs/");
        let after = told(&pods, ask, &[HashMap::new(), secret(&evil.address, BOB)]).await;
        assert_eq!(&after, before);
        assert!(evil.asked("/blobs/") > fetched, "the bytes themselves are asked for");
    }
    assert_eq!(machine.published().len(), 1, "alice's");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_joins_a_pull_does_not_share_its_refusal() {
    let layout = Layout::of(&Image::new(vec![layer("a", 1000)]));
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(layout.path().join("index.json")).unwrap()).unwrap();
    let media_type = index["manifests"][0]["mediaType"].as_str().unwrap().to_owned();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let blob = {
        let directory = layout.path().join("blobs/sha256");
        move |digest: &str| std::fs::read(directory.join(digest.trim_start_matches("sha256:"))).unwrap()
    };
    let document: serde_json::Value = serde_json::from_slice(&blob(&manifest)).unwrap();
    let layer = document["layers"][0]["digest"].as_str().unwrap().to_owned();
    let refused = layer.clone();
    // Alice may read the manifest and not the layer, and is told so slowly.
    let registry = Impostor::start(move |asked| {
        let Some(user) = &asked.user else {
            return Answer::status(401).with("www-authenticate", "Basic realm=\"test\"");
        };
        let name = asked.path.rsplit('/').next().unwrap_or_default();
        if asked.path.contains("/manifests/") {
            Answer::body(&media_type, &blob(&manifest)).with("docker-content-digest", &manifest)
        } else if name == refused && user == ALICE.0 {
            Answer { after: Duration::from_secs(2), ..Answer::status(403) }
        } else {
            Answer::body("application/octet-stream", &blob(name))
        }
    })
    .await;
    let machine = machine(&[&registry.address], &[]);
    let plugin = machine.start().await;
    let pods = Pods::new(&machine, &plugin);
    let image = format!("{}/team/app:1", registry.address);
    let (alice, bob) = tokio::join!(
        async { pods.refusal(&image, "IfNotPresent", &secret(&registry.address, ALICE)).await },
        async {
            eventually("alice's pull", || registry.asked(&layer) > 0).await;
            pods.start(&image, "IfNotPresent", &secret(&registry.address, BOB)).await
        }
    );
    assert_eq!(alice.0, Code::PermissionDenied, "{alice:?}");
    bob.unwrap();
    let again = pods.refusal(&image, "IfNotPresent", &HashMap::new()).await;
    assert_eq!(again.0, Code::PermissionDenied);
}
