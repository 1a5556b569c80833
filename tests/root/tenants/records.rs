//! What is on record: who may read what is here without a question, and for how long.

use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use composefs_csi::image::access::Origin;
use composefs_csi::image::store::{AccessSubject, NodeKey, Options as StoreOptions, Store};
use composefs_csi::oci::reference::Reference;
use composefs_csi::oci::{Credentials, SourceSettings, Sources};
use tonic::Code;

use super::pods::*;
use crate::support::driver::Machine;
use crate::support::registry::{Options, Registry};

/// Seconds for which a yes counts.
const TTL: u64 = 3600;

/// As if twice that time had gone by since the registry gave the one image of the node to `who`.
fn make_old(machine: &Machine, image: &str, host: &dyn std::fmt::Display, who: (&str, &str)) {
    let key = NodeKey::load_or_create(&machine.state().join("node.key")).unwrap();
    let store = Store::open(&machine.state().join("store"), StoreOptions::new(key)).unwrap();
    let reference: Reference = image.parse().unwrap();
    let credentials = Credentials::parse(config(host, who).as_bytes()).unwrap();
    let sources = Sources::new(&SourceSettings::default()).unwrap();
    let credential = sources.identity(&reference, &credentials).unwrap();
    let manifest = store.images().list().unwrap().images[0].record.manifest;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let at = (now - 2 * Duration::from_secs(TTL)).as_secs();
    let (about, origin, reader) =
        (AccessSubject::Image(&manifest), Origin::of(&reference), store.access().reader(&credential));
    assert!(store.access().time_of(about, origin.name(), &reader).unwrap().is_some());
    store.access().record(&store.hold(), about, origin.name(), &reader, at).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_anybody_may_read_is_everybodys_even_when_the_registry_is_away() {
    let registry = Registry::start(Options::default());
    push(&registry, vec![layer("a", 1000)], "public/app:1");
    let host = registry.host();
    let machine = machine(&[&host], &["--access-ttl=0"]);
    let plugin = machine.start().await;
    let image = format!("{host}/public/app:1");
    Pods::new(&machine, &plugin).start(&image, "IfNotPresent", &HashMap::new()).await.unwrap();
    drop(registry);
    drop(plugin);
    let plugin = machine.start().await;
    let pods = Pods::new(&machine, &plugin);
    pods.started.store(1, SeqCst);
    for policy in ["IfNotPresent", "Never"] {
        pods.start(&image, policy, &HashMap::new()).await.unwrap();
        pods.start(&image, policy, &secret(&host, BOB)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_counts_for_a_time_and_over_a_restart() {
    let (registry, proxy) = registry().await;
    push(&registry, vec![layer("a", 1 << 20)], "team/app:1");
    let image = format!("{}/team/app:1", proxy.address);
    let (alice, bob) = (secret(&proxy.address, ALICE), secret(&proxy.address, BOB));
    let machine = machine(&[&proxy.address], &[&format!("--access-ttl={TTL}")]);
    let mut plugin = machine.start().await;
    Pods::new(&machine, &plugin).start(&image, "IfNotPresent", &alice).await.unwrap();
    plugin.process.0.kill().unwrap();
    plugin.process.0.wait().unwrap();
    let plugin = machine.start().await;
    let pods = Pods::new(&machine, &plugin);
    pods.started.store(1, SeqCst);

    let before = proxy.passed();
    pods.start(&image, "IfNotPresent", &alice).await.unwrap();
    assert_eq!(proxy.passed(), before, "the record outlives the process");
    pods.start(&image, "IfNotPresent", &bob).await.unwrap();
    assert!(proxy.passed() > before, "another credential is shown to the registry");
    assert!(proxy.passed() < before + QUESTIONS, "and the image is not fetched again");
    make_old(&machine, &image, &proxy.address, BOB);
    let before = proxy.passed();
    pods.start(&image, "IfNotPresent", &bob).await.unwrap();
    assert!(
        proxy.passed() > before && proxy.passed() < before + QUESTIONS,
        "after its time it is asked again"
    );

    drop(registry);
    for policy in ["IfNotPresent", "Never"] {
        pods.start(&image, policy, &bob).await.unwrap();
    }
    make_old(&machine, &image, &proxy.address, BOB);
    let late = pods.refusal(&image, "IfNotPresent", &bob).await;
    assert_eq!(late.0, Code::Unavailable, "{late:?}");
    let other = self::machine(&[&proxy.address], &[]);
    let elsewhere = other.start().await;
    let absent = Pods::new(&other, &elsewhere).refusal(&image, "IfNotPresent", &bob).await;
    // How a connection breaks is a matter of microseconds.
    let beginning = |text: &str| text.split(" failed: ").next().unwrap_or_default().to_owned();
    assert_eq!(absent.0, Code::Unavailable);
    assert_eq!(beginning(&late.1), beginning(&absent.1), "as where the image has never been");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_is_fetched_by_each_credential_once() {
    let (registry, proxy) = registry().await;
    let shared = layer("base", 2 << 20);
    for (name, own) in [("one", "1"), ("two", "2"), ("three", "3")] {
        push(&registry, vec![shared.clone(), layer(own, 1000)], &format!("team/{name}:1"));
    }
    let image = |name: &str| format!("{}/team/{name}:1", proxy.address);
    let machine = machine(&[&proxy.address], &["--image-credential-policy=AlwaysVerify"]);
    let plugin = machine.start().await;
    let pods = Pods::new(&machine, &plugin);
    let (alice, bob) = (secret(&proxy.address, ALICE), secret(&proxy.address, BOB));
    for (who, name, whole, why) in [
        (&alice, "one", true, "nothing is here yet"),
        (&bob, "two", true, "alice's fetch proves nothing about bob"),
        (&alice, "three", false, "alice has fetched the layer herself"),
        (&bob, "three", false, "the registry that had the image gives it to bob"),
    ] {
        let before = proxy.passed();
        pods.start(&image(name), "IfNotPresent", who).await.unwrap();
        let passed = proxy.passed() - before;
        assert_eq!(passed > 1 << 20, whole, "{passed} bytes: {why}");
        assert!(passed > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_pulls_is_everybodys_unless_all_is_verified() {
    let (registry, proxy) = registry().await;
    push(&registry, vec![layer("a", 1000)], "team/app:1");
    let image = format!("{}/team/app:1", proxy.address);
    let mut machine = machine(&[&proxy.address], &[]);
    let auth = machine.path().join("auth.json");
    std::fs::write(&auth, config(&proxy.address, ALICE)).unwrap();
    machine.run(&["pull", &image, "--auth-file", auth.to_str().unwrap()]);
    {
        let plugin = machine.start().await;
        let pods = Pods::new(&machine, &plugin);
        let before = proxy.passed();
        pods.start(&image, "IfNotPresent", &HashMap::new()).await.unwrap();
        assert_eq!(proxy.passed(), before);
    }
    machine.also("--image-credential-policy=AlwaysVerify");
    let plugin = machine.start().await;
    let pods = Pods::new(&machine, &plugin);
    pods.started.store(1, SeqCst);
    let (code, message) = pods.refusal(&image, "IfNotPresent", &HashMap::new()).await;
    assert_eq!(code, Code::PermissionDenied, "{message}");
    pods.start(&image, "IfNotPresent", &secret(&proxy.address, BOB)).await.unwrap();
}
