//! Many and large signatures: the right one is found, and the others take no memory. Needs root.

use composefs_csi::trust::ClaimMemory;
use openssl::pkey::{PKey, Private};

use crate::admission::{Registry, key, signed_by, write_policy};
use crate::support::driver::Machine;
use crate::support::process::memory;

/// A claim just below the limit of 1 MiB.
const LARGE: usize = (1 << 20) - 1024;

/// A node that admits what `key` has signed.
fn machine(registry: &Registry, directory: &std::path::Path, key: &PKey<Private>) -> Machine {
    let policy = write_policy(directory, &signed_by(directory, key));
    Machine::new(&[
        &format!("--insecure-registry={}", registry.host()),
        &format!("--policy={}", policy.display()),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_signature_is_found_behind_many_others() {
    let (registry, index, _) = Registry::start().await;
    let (mine, other, directory) = (key(), key(), tempfile::tempdir().unwrap());
    let machine = machine(&registry, directory.path(), &mine);
    let mut layers: Vec<_> =
        (0..60).map(|number| registry.signature(&index, &other, &number.to_string())).collect();
    registry.put_signatures(&index, layers.clone());
    let mut plugin = machine.start().await;
    let refused = plugin.node.node_publish_volume(machine.publish("early", &registry.image())).await;
    let why = refused.unwrap_err().message().to_owned();
    assert!(why.contains("60 signatures were found"), "{why}");
    layers.push(registry.signature(&index, &mine, ""));
    registry.put_signatures(&index, layers);
    plugin.node.node_publish_volume(machine.publish("later", &registry.image())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_ends_at_its_limit_says_so() {
    let (registry, index, _) = Registry::start().await;
    let (mine, other, directory) = (key(), key(), tempfile::tempdir().unwrap());
    let machine = machine(&registry, directory.path(), &mine);
    // One blob is enough: each layer is read.
    let layer = registry.signature(&index, &other, &"x".repeat(LARGE));
    let many = (0..40).map(|number| {
        let mut layer = layer.clone();
        layer["annotations"]["dev.sigstore.cosign/chain"] = number.to_string().into();
        layer
    });
    registry.put_signatures(&index, many.chain([registry.signature(&index, &mine, "")]).collect());
    let mut plugin = machine.start().await;
    let refused = plugin.node.node_publish_volume(machine.publish("pod", &registry.image())).await;
    let why = refused.unwrap_err().message().to_owned();
    assert!(why.contains("ended at its limit"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_publishes_of_an_image_with_large_claims_take_bounded_memory() {
    let (registry, index, _) = Registry::start().await;
    let (mine, other, directory) = (key(), key(), tempfile::tempdir().unwrap());
    let machine = machine(&registry, directory.path(), &mine);
    let large = |number: u32| registry.signature(&index, &other, &format!("{number:02}").repeat(LARGE / 2));
    let layers = (0..28).map(large).chain([registry.signature(&index, &mine, "")]);
    registry.put_signatures(&index, layers.collect());
    let plugin = machine.start().await;
    let before = memory(plugin.process.0.id());
    let publishes = (0..10).map(|pod| {
        let (mut node, request) =
            (plugin.node.clone(), machine.publish(&format!("p{pod}"), &registry.image()));
        async move { node.node_publish_volume(request).await }
    });
    for published in futures_util::future::join_all(publishes).await {
        published.unwrap();
    }
    let after = memory(plugin.process.0.id());
    let grown = (after.peak - before.resident) / 1024;
    let kept = after.anonymous.saturating_sub(before.anonymous) / 1024;
    eprintln!("10 publishes with 28 MiB of claims each: peak +{grown} MiB, kept +{kept} MiB");
    let bound = ClaimMemory::MAX as u64 >> 20;
    assert!(grown < 2 * bound, "+{grown} MiB at the peak");
    assert!(kept < bound, "+{kept} MiB kept");
}
