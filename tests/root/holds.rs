//! Collections beside pulls and mounts that take long: what these rely on stays, everything else goes at once. Needs
//! root.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use composefs_csi::csi::proto::volume_capability::access_mode::Mode;
use composefs_csi::csi::proto::{NodeStageVolumeRequest, NodeUnstageVolumeRequest};
use composefs_csi::image::verity::VerityDigest;
use tokio::task::JoinHandle;

use crate::support::archive::{archive, noise};
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};
use crate::support::proxy::Proxy;
use crate::support::registry::{Options, Registry};
use crate::support::wait::eventually;

/// Files of an image, and their bytes: no compression shrinks them.
const FILES: usize = 64;
const SIZE: usize = 32 << 10;

fn layer(name: &str) -> Vec<u8> {
    let files: Vec<_> = (0..FILES).map(|number| format!("{name}/{number}")).collect();
    let files: Vec<_> = files.into_iter().map(|name| (noise(&name, SIZE), name)).collect();
    let members: Vec<(&str, &[u8])> = files.iter().map(|(content, name)| (&**name, &**content)).collect();
    archive(&members)
}

fn assert_whole(root: &Path, name: &str) {
    for number in 0..FILES {
        let file = format!("{name}/{number}");
        assert_eq!(std::fs::read(root.join(&file)).unwrap(), noise(&file, SIZE), "{file}");
    }
}

/// An image that a slow registry serves, and a node that may use it.
struct Slow {
    _registry: Registry,
    proxy: Proxy,
    image: String,
    machine: Machine,
}

impl Slow {
    async fn new() -> Self {
        let layout = Layout::of(&Image::new(vec![layer("first"), layer("second")]));
        let registry = Registry::start(Options::default());
        registry.push(&layout.reference("latest"), "team/slow:1", &[]);
        let proxy = Proxy::start(&registry.host()).await;
        let image = format!("{}/team/slow:1", proxy.address);
        let machine = Machine::new(&["--layout-dir=/", "--insecure-registry", &proxy.address.to_string()]);
        Self { _registry: registry, proxy, image, machine }
    }

    /// Begins to publish the image, and returns when some of it is in the store.
    async fn begin(&self, plugin: &Plugin) -> JoinHandle<Result<(), tonic::Status>> {
        self.proxy.throttle(128 << 10);
        let (mut node, request) = (plugin.node.clone(), self.machine.publish("slow", &self.image));
        let publish = tokio::spawn(async move { node.node_publish_volume(request).await.map(drop) });
        let deadline = Instant::now() + Duration::from_secs(120);
        let more = self.objects().len() + 4;
        while self.objects().len() < more {
            assert!(Instant::now() < deadline, "nothing comes: {}", self.machine.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        publish
    }

    fn objects(&self) -> Vec<PathBuf> {
        let mut objects = Vec::new();
        let Ok(directories) = std::fs::read_dir(self.machine.state().join("store/objects")) else {
            return objects;
        };
        for directory in directories {
            let files = std::fs::read_dir(directory.unwrap().path()).unwrap();
            objects.extend(files.map(|file| file.unwrap().path()));
        }
        objects.sort();
        objects
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_frees_all_else_beside_a_slow_pull_and_a_mount_and_the_pull_ends_whole() {
    let slow = Slow::new().await;
    let machine = &slow.machine;
    let [idle, shown] = ["idle", "shown"].map(|name| Layout::of(&Image::new(vec![layer(name)])));
    machine.run(&["pull", &idle.reference("latest")]);
    let target = machine.path().join("mounted");
    std::fs::create_dir(&target).unwrap();
    machine.run(&["mount", &shown.reference("latest"), &target.to_string_lossy()]);
    let plugin = machine.start().await;
    let publish = slow.begin(&plugin).await;
    for freed in [1, 0] {
        let pruned = machine.run(&["prune"]);
        assert_eq!(pruned["images"].as_array().unwrap().len(), freed, "{pruned}");
    }
    assert!(!publish.is_finished(), "the pull was over before the collections");
    assert_whole(&target, "shown");
    slow.proxy.throttle(0);
    publish.await.unwrap().unwrap();
    for name in ["first", "second"] {
        assert_whole(&machine.target("slow"), name);
    }
    assert_eq!(machine.run(&["verify"])["damaged"].as_array().unwrap().len(), 0);
    machine.run(&["unmount", &target.to_string_lossy()]);
    plugin.node.clone().node_unpublish_volume(machine.unpublish("slow")).await.unwrap();
    machine.assert_nothing_published();
    assert_eq!(machine.run(&["prune"])["images"].as_array().unwrap().len(), 2);
    assert_eq!(slow.objects(), [] as [PathBuf; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_pull_has_left_goes_with_the_next_collection() {
    let slow = Slow::new().await;
    let mut plugin = slow.machine.start().await;
    let publish = slow.begin(&plugin).await;
    let before = slow.objects();
    slow.machine.run(&["prune"]);
    let kept = slow.objects();
    assert!(before.iter().all(|object| kept.contains(object)), "a living pull lost objects");
    assert!(!publish.is_finished(), "the pull was over before the collection");
    plugin.process.0.kill().unwrap();
    plugin.process.0.wait().unwrap();
    publish.await.unwrap().unwrap_err();
    slow.machine.run(&["prune"]);
    assert_eq!(slow.objects(), [] as [PathBuf; 0]);
    assert_eq!(std::fs::read_dir(slow.machine.state().join("store/holds")).unwrap().count(), 0);
    // Nothing of it stands in the way of the next one.
    slow.proxy.throttle(0);
    let plugin = slow.machine.start().await;
    plugin.node.clone().node_publish_volume(slow.machine.publish("slow", &slow.image)).await.unwrap();
    assert_whole(&slow.machine.target("slow"), "second");
}

#[test]
fn a_mount_of_this_store_whose_image_has_gone_blocks_and_one_of_another_store_does_not() {
    let [here, other] = [(); 2].map(|()| Machine::new(&[]));
    // No other test of this process has the image: one that is mounted from any store stays in this one.
    let layout = Layout::of(&Image::new(vec![layer("gone")]));
    let image = layout.reference("latest");
    let target = here.path().join("mounted");
    std::fs::create_dir(&target).unwrap();
    let mounted = here.run(&["mount", &image, &target.to_string_lossy()]);
    let composefs = VerityDigest::from_hex(mounted["composefs"].as_str().unwrap()).unwrap().hex();
    std::fs::remove_file(here.state().join("store/objects").join(&composefs[..2]).join(&composefs[2..]))
        .unwrap();
    for step in ["as it is", "after a repair"] {
        let refused = here.command(&["prune"]).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(&composefs), "{step}: {said}");
        assert!(said.contains("pull the image again"), "{step}: {said}");
        assert_whole(&target, "gone");
        here.command(&["verify", "--repair"]).output().unwrap();
    }

    let pulled = Layout::of(&Image::new(vec![layer("other")]));
    other.run(&["pull", &pulled.reference("latest")]);
    assert_eq!(other.run(&["prune"])["images"].as_array().unwrap().len(), 1);

    // As the message says.
    here.run(&["pull", &image]);
    assert_eq!(here.run(&["prune"])["images"].as_array().unwrap().len(), 0);
    assert_whole(&target, "gone");
    here.run(&["unmount", &target.to_string_lossy()]);
    assert_eq!(here.run(&["prune"])["images"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_staged_image_outlives_a_revoked_policy_a_restart_and_collections_until_it_is_unstaged() {
    let layout = Layout::of(&Image::new(vec![layer("staged")]));
    let image = layout.reference("latest");
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("policy.json");
    let decide = |decision: &str| {
        std::fs::write(&policy, format!(r#"{{"default":[{{"type":"{decision}"}}]}}"#)).unwrap();
    };
    decide("insecureAcceptAnything");
    let machine = Machine::new(&["--layout-dir=/", &format!("--policy={}", policy.display())]);
    let plugin = machine.start().await;
    let staging = machine.path().join("kubelet/staging");
    std::fs::create_dir_all(&staging).unwrap();
    let stage = NodeStageVolumeRequest {
        volume_id: "pv-1".to_owned(),
        staging_target_path: staging.display().to_string(),
        volume_capability: Some(crate::support::csi::capability(Mode::MultiNodeReaderOnly)),
        volume_context: crate::support::csi::context(&[("image", &image)]),
        ..Default::default()
    };
    plugin.node.clone().node_stage_volume(stage.clone()).await.unwrap();
    let mut publish = machine.publish("a", &image);
    publish.volume_id = stage.volume_id.clone();
    publish.volume_capability = stage.volume_capability.clone();
    publish.volume_context.remove("csi.storage.k8s.io/ephemeral");

    drop(plugin);
    decide("reject");
    let plugin = machine.start().await;
    plugin.node.clone().node_publish_volume(publish.clone()).await.unwrap_err();
    let holds = || std::fs::read_dir(machine.state().join("store/holds")).unwrap().count();
    // The thread that looked may end after the answer.
    eventually("a refused publish holds nothing any more", || holds() == 0).await;
    assert_eq!(machine.run(&["prune"])["objects"], 0, "the staged volume needs its image");

    drop(plugin);
    decide("insecureAcceptAnything");
    let plugin = machine.start().await;
    // Without the layout nothing could be fetched again.
    drop(layout);
    plugin.node.clone().node_publish_volume(publish).await.unwrap();
    assert_whole(&machine.target("a"), "staged");
    let mut unpublish = machine.unpublish("a");
    unpublish.volume_id = stage.volume_id.clone();
    plugin.node.clone().node_unpublish_volume(unpublish).await.unwrap();
    let unstage = NodeUnstageVolumeRequest {
        volume_id: stage.volume_id,
        staging_target_path: stage.staging_target_path,
    };
    plugin.node.clone().node_unstage_volume(unstage).await.unwrap();
    assert_eq!(machine.run(&["prune"])["objects"], FILES + 1);
    assert_eq!(holds(), 0);
}
