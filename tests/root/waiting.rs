//! A registry that takes questions and never answers: those who wait for it are answered when their volume is taken
//! down, and when the plugin ends. Needs root.

use std::time::{Duration, Instant};

use composefs_csi::csi::proto::{NodeStageVolumeRequest, NodeUnstageVolumeRequest};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::support::archive::archive;
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};
use crate::support::impostor::{Answer, Impostor};

const FOR_EVER: Duration = Duration::from_secs(3600);

/// Requests that are never answered, by what their path has.
const MANIFESTS: &str = "/manifests/";
const BLOBS: &str = "/blobs/";
/// The layer: it is asked for when much is under way.
const LAYER: &str = "layer";

/// A registry with one image that never answers requests for what is `silent`; with what their path has.
async fn registry(silent: &str) -> (Impostor, Machine, String, String) {
    let layout = Layout::of(&Image::new(vec![archive(&[("file", b"content")])]));
    let index = std::fs::read(layout.path().join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let [media_type, manifest] =
        ["mediaType", "digest"].map(|key| index["manifests"][0][key].as_str().unwrap().to_owned());
    let document = layout.path().join("blobs/sha256").join(manifest.trim_start_matches("sha256:"));
    let document: serde_json::Value = serde_json::from_slice(&std::fs::read(document).unwrap()).unwrap();
    let silent = match silent {
        LAYER => document["layers"][0]["digest"].as_str().unwrap().to_owned(),
        other => other.to_owned(),
    };
    let kept = silent.clone();
    let registry = Impostor::start(move |asked| {
        let name = asked.path.rsplit('/').next().unwrap();
        let digest = if name == "1" { &manifest } else { name };
        let blob = layout.path().join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
        let after = if asked.path.contains(&kept) { FOR_EVER } else { Duration::ZERO };
        match std::fs::read(blob) {
            Ok(bytes) if asked.path.contains("/manifests/") => {
                let answer = Answer::body(&media_type, &bytes).with("docker-content-digest", &manifest);
                Answer { after, ..answer }
            }
            Ok(bytes) => Answer { after, ..Answer::body("application/octet-stream", &bytes) },
            Err(_) => Answer::status(404),
        }
    })
    .await;
    let machine = Machine::new(&["--insecure-registry", &registry.address.to_string()]);
    let image = format!("{}/team/app:1", registry.address);
    (registry, machine, image, silent)
}

/// A publish that waits for the registry by now.
async fn publishing(
    registry: &Impostor,
    silent: &str,
    machine: &Machine,
    plugin: &Plugin,
    image: &str,
) -> JoinHandle<Result<(), Status>> {
    let (mut node, request) = (plugin.node.clone(), machine.publish("a", image));
    let call = tokio::spawn(async move { node.node_publish_volume(request).await.map(drop) });
    asked(registry, silent).await;
    call
}

async fn asked(registry: &Impostor, silent: &str) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while registry.asked(silent) == 0 {
        assert!(Instant::now() < deadline, "the registry is not asked");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_ends_ends_the_waiting_for_its_volume() {
    for silent in [MANIFESTS, BLOBS, LAYER] {
        let (registry, machine, image, silent) = registry(silent).await;
        let plugin = machine.start().await;
        let call = publishing(&registry, &silent, &machine, &plugin, &image).await;
        for _ in 0..2 {
            plugin.node.clone().node_unpublish_volume(machine.unpublish("a")).await.unwrap();
        }
        let status = call.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Aborted, "{status}");
        assert!(status.message().contains("taken down"), "{status}");
        // The volume is free: the next publish waits, and is no second call for it.
        let mut hasty = tonic::Request::new(machine.publish("a", &image));
        hasty.set_timeout(Duration::from_secs(2));
        let status = plugin.node.clone().node_publish_volume(hasty).await.unwrap_err();
        // Said by the plugin, or on a busy machine by the client itself.
        assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
        plugin.node.clone().node_unpublish_volume(machine.unpublish("a")).await.unwrap();
        machine.assert_nothing_published();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_unstaged_is_waited_for_no_longer() {
    let (registry, machine, image, silent) = registry(BLOBS).await;
    let plugin = machine.start().await;
    let published = machine.publish("a", &image);
    let staging_target_path = machine.path().join("kubelet/plugins/staging").display().to_string();
    let request = NodeStageVolumeRequest {
        volume_id: published.volume_id.clone(),
        staging_target_path: staging_target_path.clone(),
        volume_capability: published.volume_capability,
        volume_context: published.volume_context,
        ..NodeStageVolumeRequest::default()
    };
    let mut node = plugin.node.clone();
    let call = tokio::spawn(async move { node.node_stage_volume(request).await });
    asked(&registry, &silent).await;
    let unstage = NodeUnstageVolumeRequest { volume_id: published.volume_id, staging_target_path };
    plugin.node.clone().node_unstage_volume(unstage).await.unwrap();
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Aborted);
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_ends_says_so_to_those_who_wait() {
    for silent in [MANIFESTS, BLOBS, LAYER] {
        let (registry, machine, image, silent) = registry(silent).await;
        let mut plugin = machine.start().await;
        let call = publishing(&registry, &silent, &machine, &plugin, &image).await;
        let told = Instant::now();
        kill_process(Pid::from_child(&plugin.process.0), Signal::TERM).unwrap();
        let status = call.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("resumed when the plugin is back"), "{status}");
        assert!(plugin.process.0.wait().unwrap().success());
        // Calls that do not end get twenty seconds.
        assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
        println!("waiting: {silent} answered, and the plugin ended, within {:?} of SIGTERM", told.elapsed());
        machine.assert_nothing_published();
    }
}
