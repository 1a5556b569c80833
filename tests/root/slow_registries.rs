//! Pods of slow registries beside a pod of a good one, by the running plugin.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::support::archive::{archive, noise};
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};
use crate::support::impostor::{Answer, Asked, Impostor};
use crate::support::proxy::Proxy;
use crate::support::registry::{Options, Registry};

/// Bytes per second: enough for `--min-transfer-rate`, and days for a large layer.
const TRICKLE: u64 = 12 << 10;

/// An image of `layers` layers of so many MiB each, pushed as `name`.
fn push(registry: &Registry, name: &str, layers: usize, mebibytes: usize) {
    let layer = |number: usize| {
        let path = format!("{name}/{number}");
        archive(&[(&path, &noise(&path, mebibytes << 20))])
    };
    let layout = Layout::of(&Image::new((0..layers).map(layer).collect()));
    registry.push(&layout.reference("latest"), &format!("{name}:1"), &[]);
}

/// Starts a publish and returns at once.
fn publish(
    plugin: &Plugin,
    machine: &Machine,
    pod: &str,
    image: &str,
) -> JoinHandle<Result<(), tonic::Status>> {
    let (mut node, request) = (plugin.node.clone(), machine.publish(pod, image));
    tokio::spawn(async move { node.node_publish_volume(request).await.map(drop) })
}

#[tokio::test(flavor = "multi_thread")]
async fn that_trickle_keep_no_other_pod_waiting() {
    let registry = Registry::start(Options::default());
    push(&registry, "evil/big", 3, 8);
    push(&registry, "good/app", 3, 1);
    // One registry by three names: three tenants, with as many layers each as there are slots for one.
    let mut attackers = Vec::new();
    for _ in 0..3 {
        let proxy = Proxy::start(&registry.host()).await;
        proxy.throttle(TRICKLE);
        attackers.push(proxy);
    }
    let mut machine = Machine::new(&["--insecure-registry", &registry.host()]);
    for proxy in &attackers {
        machine.also("--insecure-registry");
        machine.also(&proxy.address.to_string());
    }
    let plugin = machine.start().await;
    let mut pending = Vec::new();
    for (number, proxy) in attackers.iter().enumerate() {
        let image = format!("{}/evil/big:1", proxy.address);
        pending.push(publish(&plugin, &machine, &format!("evil-{number}"), &image));
    }
    // Its manifest is some kilobytes: layers are under way.
    while attackers[0].passed() < 64 << 10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let good = publish(&plugin, &machine, "good", &format!("{}/good/app:1", registry.host()));
    good.await.unwrap().unwrap();
    assert!(machine.target("good").join("good/app/2").exists());
    assert!(pending.iter().all(|publish| !publish.is_finished()), "they go on");
    // Nor do pulls that outlive their pods, and new ones of slow registries.
    for publish in &pending {
        publish.abort();
    }
    push(&registry, "good/other", 4, 1);
    publish(&plugin, &machine, "other", &format!("{}/good/other:1", registry.host())).await.unwrap().unwrap();
    for proxy in &attackers {
        assert!(proxy.passed() < 20 << 20, "still under way");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn that_hang_keep_no_other_pod_waiting() {
    let registry = Registry::start(Options::default());
    push(&registry, "good/app", 1, 1);
    let mut machine = Machine::new(&["--insecure-registry", &registry.host()]);
    let mut hung = Vec::new();
    for _ in 0..10 {
        let never = |_: &Asked| Answer { after: Duration::from_secs(3600), ..Answer::status(200) };
        let impostor = Impostor::start(never).await;
        machine.also("--insecure-registry");
        machine.also(&impostor.address.to_string());
        hung.push(impostor);
    }
    let plugin = machine.start().await;
    let mut pending = Vec::new();
    for (number, impostor) in hung.iter().enumerate() {
        for pod in 0..20 {
            let (pod, image) = (format!("hung-{number}-{pod}"), format!("{}/evil:{pod}", impostor.address));
            pending.push(publish(&plugin, &machine, &pod, &image));
        }
    }
    // All that may be asked at a time, by the share of each.
    while hung.iter().map(|impostor| impostor.asked("manifests")).sum::<usize>() < 64 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let good = publish(&plugin, &machine, "good", &format!("{}/good/app:1", registry.host()));
    good.await.unwrap().unwrap();
    assert!(pending.iter().all(|publish| !publish.is_finished()), "they are tried again");
    pending.iter().for_each(JoinHandle::abort);
}
