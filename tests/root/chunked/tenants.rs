//! Files of another tenant's layers are not used, however little they cost; and what is put together proves nothing
//! about the blob whose digest its manifest names.

use std::collections::HashMap;

use composefs_csi::oci::digest::Digest;
use tonic::Code;

use super::registry::*;
use super::reuse::{version_one, version_two};
use crate::support::driver::Machine;
use crate::tenants::pods::{ALICE, BOB, Pods, machine, secret};

async fn node(registry: &ChunkedRegistry, extra: &[&str]) -> Machine {
    machine(&[&registry.host()], &[&["--keep-partial=0"], extra].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_files_are_used_only_where_the_node_has_one_tenant() {
    for (setting, shared) in [("--partial-pulls=own", false), ("--partial-pulls=all", true)] {
        let registry = ChunkedRegistry::start(&[ALICE.0, BOB.0]).await;
        let (one, two) = (layer(&version_one()), layer(&version_two()));
        let (first, second) = (registry.offer("1", &[&one]), registry.offer("2", &[&two]));
        let node = node(&registry, &[setting]).await;
        let plugin = node.start().await;
        let pods = Pods::new(&node, &plugin);
        let (alice, bob) = (secret(&registry.host(), ALICE), secret(&registry.host(), BOB));
        pods.start(&first, "IfNotPresent", &alice).await.unwrap();
        registry.cost();
        pods.start(&second, "IfNotPresent", &bob).await.unwrap();
        let cost = registry.cost();
        // Without rights the very requests are those of a node that has nothing.
        let whole = Cost { bytes: two.blob.len(), ranges: 0, whole: 1 };
        assert_eq!(cost == whole, !shared, "{setting}: {cost:?}");
        // With her own she fetches the difference.
        let third = registry.offer("3", &[&two, &one]);
        if !shared {
            pods.start(&third, "IfNotPresent", &alice).await.unwrap();
            let cost = registry.cost();
            assert!(cost.whole == 0 && cost.bytes < two.blob.len() / 4, "{cost:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_anybody_may_read_serves_all() {
    let (public, private) = (ChunkedRegistry::start(&[]).await, ChunkedRegistry::start(&[BOB.0]).await);
    let (one, two) = (layer(&version_one()), layer(&version_two()));
    let (first, second) = (public.offer("1", &[&one]), private.offer("2", &[&two]));
    let node = machine(&[&public.host(), &private.host()], &[]);
    let plugin = node.start().await;
    let pods = Pods::new(&node, &plugin);
    pods.start(&first, "IfNotPresent", &HashMap::new()).await.unwrap();
    pods.start(&second, "IfNotPresent", &secret(&private.host(), BOB)).await.unwrap();
    let cost = private.cost();
    assert!(cost.whole == 0 && cost.bytes < two.blob.len() / 4, "{cost:?}");
}

/// Bob makes images whose manifests name the blob of Alice's private layer, and serves parts of his own for it. That he
/// has "fetched" it must give him nothing, and must not spoil it for her.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_a_manifest_only_names_is_not_proven() {
    let (alices, bobs) = (ChunkedRegistry::start(&[ALICE.0]).await, ChunkedRegistry::start(&[]).await);
    let secret_layer = layer(&[("secret".to_owned(), b"secret".repeat(5000))].into());
    let (one, two) = (layer(&version_one()), layer(&version_two()));
    let private = alices.offer("private", &[&secret_layer]);
    let blob = Digest::of(&secret_layer.blob);
    let node = machine(&[&alices.host(), &bobs.host()], &["--keep-partial=0"]);
    let plugin = node.start().await;
    let pods = Pods::new(&node, &plugin);
    let alice = secret(&alices.host(), ALICE);
    pods.start(&bobs.offer("1", &[&one]), "IfNotPresent", &HashMap::new()).await.unwrap();
    bobs.cost();
    // His second version, put together from parts, under the digest of her blob.
    let lie = bobs.offer_as("2", &[&two], |_| blob);
    pods.start(&lie, "IfNotPresent", &HashMap::new()).await.unwrap();
    let cost = bobs.cost();
    assert!(cost.whole == 0 && cost.ranges > 2, "{cost:?}");
    // She gets hers.
    pods.start(&private, "IfNotPresent", &alice).await.unwrap();
    // He names hers as a whole, with a config that knows its DiffID, and has nothing to serve.
    let mut claim = secret_layer.clone();
    claim.blob = two.blob.clone();
    claim.annotations.clear();
    let theft = bobs.offer_as("3", &[&claim], |_| blob);
    let (code, message) = pods.refusal(&theft, "IfNotPresent", &HashMap::new()).await;
    assert_ne!(code, Code::Ok, "{message}");
    assert_eq!(bobs.cost().whole, 2, "it is fetched from him, who does not have it, and once more");
    // The operator's pull of his image does not make her layer everybody's either.
    node.run(&["pull", &lie]);
    let (code, message) = pods.refusal(&theft, "Always", &HashMap::new()).await;
    assert_ne!(code, Code::Ok, "{message}");
}
