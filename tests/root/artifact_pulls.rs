//! Artifacts beside what else a node does: a kill -9 in a file of a model, a mirror in front of the registry, a full disk. Needs
//! root.

use std::fs;

use tonic::Code;

use crate::support::archive::noise;
use crate::support::artifacts::Artifact;
use crate::support::disk::SmallDisk;
use crate::support::driver::{Machine, Plugin};
use crate::support::images::Layout;
use crate::support::proxy::Proxy;
use crate::support::registry::{Options, Registry};

const MODEL: &str = "application/vnd.cncf.model.manifest.v1+json";
const MIB: usize = 1 << 20;
/// What questions without content weigh at most, in bytes.
const QUESTIONS: u64 = 64 << 10;

/// A model of a large file and a small one, in a registry behind a proxy.
async fn served(size: usize) -> (Registry, Proxy, String) {
    let registry = Registry::start(Options::default());
    let mut layout = Layout::new();
    let model = Artifact::new(MODEL)
        .model_file("model.safetensors", false, &noise("model", size))
        .model_file("config.json", false, b"{}")
        .add(&mut layout, "model");
    registry.push(&model, "models/one:1", &["--preserve-digests"]);
    let proxy = Proxy::start(&registry.host()).await;
    let reference = format!("{}/models/one:1", proxy.address);
    (registry, proxy, reference)
}

async fn publish((plugin, machine): (&Plugin, &Machine), image: &str) -> Result<(), tonic::Status> {
    plugin.node.clone().node_publish_volume(machine.publish("a", image)).await.map(drop)
}

fn assert_shown(machine: &Machine, size: usize) {
    let target = machine.target("a");
    assert!(fs::read(target.join("model.safetensors")).unwrap() == noise("model", size));
    assert_eq!(fs::read(target.join("config.json")).unwrap(), b"{}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_on_where_a_killed_plugin_was() {
    const SIZE: usize = 24 * MIB;
    let (_registry, proxy, model) = served(SIZE).await;
    let insecure = proxy.address.to_string();
    let machine = Machine::new(&["--insecure-registry", &insecure, "--range-size=1"]);
    // Without a limit nobody could tell where in the pull it is.
    proxy.throttle(4 * MIB as u64);
    for _ in 0..3 {
        let mut plugin = machine.start().await;
        let (mut node, request) = (plugin.node.clone(), machine.publish("a", &model));
        let waiting = tokio::spawn(async move { node.node_publish_volume(request).await });
        proxy.pass(6 * MIB as u64).await;
        plugin.process.0.kill().unwrap();
        plugin.process.0.wait().unwrap();
        assert!(waiting.await.unwrap().is_err());
        assert!(machine.published().is_empty());
    }
    proxy.throttle(0);
    let plugin = machine.start().await;
    publish((&plugin, &machine), &model).await.unwrap();
    assert_shown(&machine, SIZE);
    // Of each kill: what was on its way on five connections, and has not been written yet.
    let passed = proxy.passed() as usize;
    assert!(passed < SIZE + 3 * 3 * MIB, "{passed} bytes for a file of {SIZE}");
    plugin.node.clone().node_unpublish_volume(machine.unpublish("a")).await.unwrap();
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_serves_files_and_the_registry_says_who_may_have_them() {
    const SIZE: usize = 2 * MIB;
    let (registry, origin, model) = served(SIZE).await;
    let cache = Registry::mirror_of(&registry.host());
    let mut machine = Machine::new(&[&format!("--insecure-registry={}", origin.address)]);
    let hosts = machine.path().join("certs.d").join(origin.address.to_string());
    fs::create_dir_all(&hosts).unwrap();
    fs::write(hosts.join("hosts.toml"), format!("[host.\"http://{}\"]\n", cache.host())).unwrap();
    machine.also(&format!("--registry-hosts-dir={}", machine.path().join("certs.d").display()));
    let plugin = machine.start().await;
    publish((&plugin, &machine), &model).await.unwrap();
    assert_shown(&machine, SIZE);
    assert!(origin.passed() < QUESTIONS, "{} bytes came from the registry itself", origin.passed());
    plugin.node.clone().node_unpublish_volume(machine.unpublish("a")).await.unwrap();
    // Without the mirror, and without what it has brought, the registry gives the same.
    drop(cache);
    machine.run(&["prune"]);
    publish((&plugin, &machine), &model).await.unwrap();
    assert_shown(&machine, SIZE);
    assert!(origin.passed() > SIZE as u64);
    plugin.node.clone().node_unpublish_volume(machine.unpublish("a")).await.unwrap();
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_a_model_is_refused_and_comes_when_there_is_room() {
    const SIZE: usize = 6 * MIB;
    let (_registry, proxy, model) = served(SIZE).await;
    let machine = Machine::new(&[&format!("--insecure-registry={}", proxy.address)]);
    let disk = SmallDisk::mount(&machine.state(), 32, 800);
    let plugin = machine.start().await;
    let filler = disk.fill_bytes();
    let refused = publish((&plugin, &machine), &model).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(machine.published().is_empty());
    drop(filler);
    publish((&plugin, &machine), &model).await.unwrap();
    assert_shown(&machine, SIZE);
    assert_eq!(machine.run(&["verify"])["damaged"], serde_json::json!([]));
    plugin.node.clone().node_unpublish_volume(machine.unpublish("a")).await.unwrap();
    machine.assert_nothing_published();
}
