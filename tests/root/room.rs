//! Room for pulls on a small disk: what cannot fit makes room, or is refused before a layer is fetched; what may go and what
//! went. Needs root.

use std::fs;

use composefs_csi::oci::digest::Digest;
use serde_json::{Value, json};
use tonic::Code;

use crate::support::archive::{archive, noise};
use crate::support::artifacts::Artifact;
use crate::support::disk::SmallDisk;
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};
use crate::support::impostor::{Answer, Impostor};
use crate::support::proxy::Proxy;
use crate::support::registry::{Options, Registry};

const MODEL: &str = "application/vnd.cncf.model.manifest.v1+json";
const MIB: usize = 1 << 20;
/// What questions without layers weigh at most, in bytes.
const QUESTIONS: u64 = 64 << 10;
/// MiB of the disk: an older model fits and a newer one, but not both.
const DISK: u64 = 96;
const OLD: usize = 40 * MIB;
const NEW: usize = 60 * MIB;

/// An older model and a newer one, each a single file, in a registry behind a proxy.
async fn models() -> (Registry, Proxy, [String; 2]) {
    let registry = Registry::start(Options::default());
    let mut layout = Layout::new();
    for (name, size) in [("old", OLD), ("new", NEW)] {
        let model =
            Artifact::new(MODEL).model_file("model", false, &noise(name, size)).add(&mut layout, name);
        registry.push(&model, &format!("models/{name}:1"), &["--preserve-digests"]);
    }
    let proxy = Proxy::start(&registry.host()).await;
    let references = ["old", "new"].map(|name| format!("{}/models/{name}:1", proxy.address));
    (registry, proxy, references)
}

async fn publish(plugin: &Plugin, machine: &Machine, pod: &str, image: &str) -> Result<(), tonic::Status> {
    plugin.node.clone().node_publish_volume(machine.publish(pod, image)).await.map(drop)
}

async fn unpublish(plugin: &Plugin, machine: &Machine, pod: &str) {
    plugin.node.clone().node_unpublish_volume(machine.unpublish(pod)).await.unwrap();
}

fn images(machine: &Machine) -> Vec<String> {
    let listed = machine.run(&["ls"]);
    let names = listed["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| image["names"][0].as_str().unwrap().to_owned());
    names.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_fit_is_refused_before_a_layer_is_fetched_and_comes_when_something_may_go() {
    let (_registry, proxy, [old, new]) = models().await;
    let machine = Machine::new(&[&format!("--insecure-registry={}", proxy.address), "--gc-min-age=0"]);
    let _disk = SmallDisk::mount(&machine.state(), DISK, 800);
    let mut plugin = machine.start().await;
    publish(&plugin, &machine, "a", &old).await.unwrap();
    // In use, then pinned, also over a crash.
    let before = proxy.passed();
    for _ in 0..2 {
        let refused = publish(&plugin, &machine, "b", &new).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        let said = refused.message();
        assert!(said.contains("60 MiB of the disk at least") && said.contains("--min-unpacked"), "{said}");
        machine.run(&["pin", &old]);
        unpublish(&plugin, &machine, "a").await;
        plugin.process.0.kill().unwrap();
        plugin.process.0.wait().unwrap();
        plugin = machine.start().await;
    }
    assert!(proxy.passed() - before < 2 * QUESTIONS, "{} bytes came", proxy.passed() - before);
    assert!(machine.published().is_empty());
    assert_eq!(images(&machine), std::slice::from_ref(&old));
    // A command makes no room that a pin keeps, either.
    let output = machine.command(&["pull", &new]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("to spare"), "{said}");

    machine.run(&["unpin", &old]);
    publish(&plugin, &machine, "b", &new).await.unwrap();
    assert!(fs::read(machine.target("b").join("model")).unwrap() == noise("new", NEW));
    assert_eq!(images(&machine), std::slice::from_ref(&new), "{}", machine.log_tail());
    let log = machine.log();
    let removed = log.lines().find(|line| line.contains("image removed")).unwrap_or_else(|| panic!("{log}"));
    assert!(removed.contains("the filesystem is full") && removed.contains(&old), "{removed}");
    assert_eq!(machine.run(&["verify"])["damaged"], json!([]));
    unpublish(&plugin, &machine, "b").await;
    machine.assert_nothing_published();
}

/// Its files may be here for somebody else, or in another layer: nobody knows before it has come.
#[tokio::test(flavor = "multi_thread")]
async fn what_may_fit_is_fetched() {
    let files: Vec<(String, Vec<u8>)> =
        (0..15).map(|number| (format!("file{number}"), noise(&format!("many {number}"), 4 * MIB))).collect();
    let members: Vec<(&str, &[u8])> =
        files.iter().map(|(name, content)| (name.as_str(), &content[..])).collect();
    let first = Layout::of(&Image::new(vec![archive(&members)]));
    let again: Vec<_> = members.iter().rev().copied().chain([("more", &b"of it"[..])]).collect();
    let second = Layout::of(&Image::new(vec![archive(&again)]));
    let machine = Machine::new(&["--layout-dir=/", "--gc-min-age=0"]);
    let _disk = SmallDisk::mount(&machine.state(), DISK, 800);
    let plugin = machine.start().await;
    publish(&plugin, &machine, "a", &first.reference("latest")).await.unwrap();
    publish(&plugin, &machine, "b", &second.reference("latest")).await.unwrap();
    assert!(fs::read(machine.target("b").join("file7")).unwrap() == files[7].1);
    assert_eq!(fs::read(machine.target("b").join("more")).unwrap(), b"of it");
    for pod in ["a", "b"] {
        unpublish(&plugin, &machine, pod).await;
    }
    machine.assert_nothing_published();
}

/// A registry that names what another tenant has gets the answer that it gets about what nobody has.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_does_not_tell_what_others_have() {
    const ALICE: (&str, &str) = ("alice", "wonderland");
    let registry = Registry::start(Options { user: Some(ALICE), ..Options::default() });
    let mut layout = Layout::new();
    let model = Artifact::new(MODEL).model_file("model", false, &noise("new", NEW)).add(&mut layout, "new");
    registry.push(&model, "models/new:1", &["--preserve-digests"]);
    let read =
        |digest: &str| fs::read(layout.path().join("blobs/sha256").join(&digest["sha256:".len()..])).unwrap();
    let index: Value = serde_json::from_slice(&fs::read(layout.path().join("index.json")).unwrap()).unwrap();
    let real = String::from_utf8(read(index["manifests"][0]["digest"].as_str().unwrap())).unwrap();
    let document: Value = serde_json::from_str(&real).unwrap();
    let other =
        real.replace(document["layers"][0]["digest"].as_str().unwrap(), &Digest::of(b"other").to_string());
    let media_type = document["mediaType"].as_str().unwrap().to_owned();
    let evil = Impostor::start(move |asked| {
        let body = |manifest: &str| {
            let digest = Digest::of(manifest.as_bytes()).to_string();
            Answer::body(&media_type, manifest.as_bytes()).with("docker-content-digest", &digest)
        };
        match asked.path.rsplit('/').next().unwrap_or_default() {
            "held" => body(&real),
            "unheld" => body(&other),
            digest if digest == Digest::of(b"{}").to_string() => Answer::body("application/json", b"{}"),
            digest if digest == Digest::of(real.as_bytes()).to_string() => body(&real),
            digest if digest == Digest::of(other.as_bytes()).to_string() => body(&other),
            _ => Answer::status(404),
        }
    })
    .await;
    let insecure =
        [registry.host(), evil.address.to_string()].map(|host| format!("--insecure-registry={host}"));
    let machine = Machine::new(&insecure.each_ref().map(String::as_str));
    let _disk = SmallDisk::mount(&machine.state(), DISK, 800);
    let plugin = machine.start().await;
    let mut request = machine.publish("alice", &format!("{}/models/new:1", registry.host()));
    let auth = json!({"auths": {registry.host(): {"username": ALICE.0, "password": ALICE.1}}});
    request.secrets.insert(".dockerconfigjson".to_owned(), auth.to_string());
    plugin.node.clone().node_publish_volume(request).await.unwrap();
    let mut told = Vec::new();
    for tag in ["unheld", "held"] {
        let asked = format!("{}/evil/models:{tag}", evil.address);
        let refused = publish(&plugin, &machine, "mallory", &asked).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        told.push(refused.message().replace(tag, "TAG"));
    }
    assert_eq!(told[0], told[1]);
    unpublish(&plugin, &machine, "alice").await;
    machine.assert_nothing_published();
}

/// By request it is tried all the same, as before there was a check.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_factor_it_is_fetched_until_the_disk_is_full() {
    let (_registry, proxy, [old, new]) = models().await;
    let machine = Machine::new(&[
        &format!("--insecure-registry={}", proxy.address),
        "--min-unpacked=0",
        "--gc-min-age=0",
    ]);
    let _disk = SmallDisk::mount(&machine.state(), DISK, 800);
    let plugin = machine.start().await;
    publish(&plugin, &machine, "a", &old).await.unwrap();
    let before = proxy.passed();
    let refused = publish(&plugin, &machine, "b", &new).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(!refused.message().contains("to spare"), "{refused}");
    assert!(proxy.passed() - before > QUESTIONS);
    unpublish(&plugin, &machine, "a").await;
    machine.assert_nothing_published();
}

/// What nothing needs is bounded whatever room there is, by the plugin and by command; `prune` says why each goes.
#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_needs_takes_no_more_than_it_may() {
    let layouts: Vec<Layout> = (0..3)
        .map(|number| {
            Layout::of(&Image::new(vec![archive(&[("file", &noise(&format!("idle {number}"), MIB))])]))
        })
        .collect();
    let all: Vec<String> = layouts.iter().map(|layout| layout.reference("latest")).collect();
    let mut machine = Machine::new(&["--layout-dir=/"]);
    for image in &all {
        machine.run(&["pull", image]);
    }
    let command = ["prune", "--watermark", "--gc-high=100", "--gc-low=100", "--gc-idle-size=2"];
    let plan = machine.run(&[&command[..], &["--dry-run"]].concat());
    assert_eq!(plan["images"].as_array().unwrap().len(), 2, "{plan}");
    let removal = &plan["removals"][0];
    assert_eq!(removal["cause"], "surplus");
    assert!(removal["frees_bytes"].as_u64() > Some(MIB as u64), "{plan}");
    assert_eq!(removal["refetch_bytes"], MIB);
    assert_eq!(plan["images"][0]["names"][0], all[0], "the one that was pulled first");
    let output = machine.command(&[&command[..], &["--dry-run"]].concat()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("frees 1.1 MB, 1.0 MB of files to be fetched again"), "{text}");
    assert_eq!(images(&machine).len(), 3);
    // What is young stays, where that is asked for.
    assert_eq!(machine.run(&[&command[..], &["--min-age=3600"]].concat())["images"], json!([]));

    machine.also("--gc-idle-size=2");
    machine.also("--gc-interval=1");
    machine.also("--gc-min-age=0");
    let plugin = machine.start().await;
    publish(&plugin, &machine, "a", &all[0]).await.unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while images(&machine).len() > 2 {
        assert!(std::time::Instant::now() < deadline, "nothing goes: {}", machine.log_tail());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let left = images(&machine);
    assert!(left.contains(&all[0]) && left.contains(&all[2]), "{left:?}");
    unpublish(&plugin, &machine, "a").await;
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_namespace_of_a_pod_is_on_record() {
    let layouts: Vec<Layout> = (0..2)
        .map(|number| {
            Layout::of(&Image::new(vec![archive(&[("file", &noise(&format!("du {number}"), MIB))])]))
        })
        .collect();
    let machine = Machine::new(&["--layout-dir=/"]);
    let plugin = machine.start().await;
    for (pod, namespace, image) in [("a", "shop", 0), ("b", "lab", 0), ("c", "lab", 1), ("d", "", 1)] {
        let mut request = machine.publish(pod, &layouts[image].reference("latest"));
        request.volume_context.insert("csi.storage.k8s.io/pod.namespace".to_owned(), namespace.to_owned());
        plugin.node.clone().node_publish_volume(request).await.unwrap();
    }
    let listed = machine.run(&["store", "du", "--by", "namespace"]);
    let of = |name: serde_json::Value| {
        let mut rows = listed["namespaces"].as_array().unwrap().iter();
        rows.find(|row| row["namespace"] == name).unwrap_or_else(|| panic!("{listed}")).clone()
    };
    assert_eq!((&of(json!("shop"))["alone_bytes"], &of(json!("lab"))["alone_bytes"]), (&json!(0), &json!(0)));
    assert_eq!((&of(json!("lab"))["volumes"], &of(json!("lab"))["images"]), (&json!(2), &json!(2)));
    assert!(of(json!(null))["shared_bytes"].as_u64() > Some(MIB as u64));
    unpublish(&plugin, &machine, "d").await;
    unpublish(&plugin, &machine, "b").await;
    let listed = machine.run(&["store", "du", "--by", "namespace"]);
    assert!(listed["namespaces"][0]["alone_bytes"].as_u64() > Some(MIB as u64), "{listed}");
    let output = machine.command(&["store", "du", "--by", "namespace"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("2 namespaces; pins,") && text.contains("shop"), "{text}");
    for pod in ["a", "c"] {
        unpublish(&plugin, &machine, pod).await;
    }
    machine.assert_nothing_published();
}
