//! The state directory goes, is replaced, becomes read-only or full, or loses a record, under a running plugin with
//! mounted volumes: pods can end, the answers say what is wrong, and everything works again when it is back. Needs root.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use composefs_csi::csi::proto::identity_client::IdentityClient;
use composefs_csi::csi::proto::{NodeStageVolumeRequest, NodeUnstageVolumeRequest, ProbeRequest};
use rustix::mount::{MountFlags, UnmountFlags};
use tonic::{Code, Status};

use crate::support::archive::archive;
use crate::support::csi::try_connect;
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};

const OTHERS: &str = "another image";

struct Node {
    machine: Machine,
    plugin: Plugin,
    image: String,
    other: String,
    _layouts: (Layout, Layout),
}

/// A plugin, and a pod `a` that has a volume.
async fn node(machine: Machine) -> Node {
    let layouts = (
        Layout::of(&Image::new(vec![archive(&[("file", b"content")])])),
        Layout::of(&Image::new(vec![archive(&[("file", OTHERS.as_bytes())])])),
    );
    let plugin = machine.start().await;
    let (image, other) = (layouts.0.reference("latest"), layouts.1.reference("latest"));
    let node = Node { machine, plugin, image, other, _layouts: layouts };
    node.publish("a", &node.image).await.unwrap();
    node
}

impl Node {
    async fn publish(&self, pod: &str, image: &str) -> Result<(), Status> {
        let request = self.machine.publish(pod, image);
        self.plugin.node.clone().node_publish_volume(request).await.map(drop)
    }

    /// A pod ends, and its end is asked for again, as kubelet does.
    async fn end(&self, pod: &str) {
        for _ in 0..2 {
            let request = self.machine.unpublish(pod);
            self.plugin.node.clone().node_unpublish_volume(request).await.unwrap();
            assert!(!self.machine.target(pod).exists());
        }
        assert!(!self.machine.published().contains(&self.machine.target(pod)));
    }

    async fn is_ready(&self) -> bool {
        let channel = try_connect(&self.machine.path().join("csi.sock")).await.unwrap();
        let answer = IdentityClient::new(channel).probe(ProbeRequest {}).await.unwrap();
        answer.into_inner().ready == Some(true)
    }

    /// New volumes are refused, for images that are here and for others, and not for what the images are.
    async fn assert_refuses(&self, because: &str) {
        for (pod, image) in [("b", &self.image), ("c", &self.other)] {
            let status = self.publish(pod, image).await.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            assert!(status.message().contains(because), "{status}");
            assert!(!status.message().contains("sha256:"), "{status}");
        }
        assert!(!self.is_ready().await);
        assert!(self.machine.log().contains(because), "{}", self.machine.log());
    }

    /// All is as before for the pods that come now, and nothing is left of those that went.
    async fn assert_serves(&self) {
        assert!(self.is_ready().await, "{}", self.machine.log());
        for (pod, image) in [("b", &self.image), ("c", &self.other)] {
            self.publish(pod, image).await.unwrap();
        }
        assert_eq!(std::fs::read_to_string(self.machine.target("c").join("file")).unwrap(), OTHERS);
        for pod in ["b", "c"] {
            self.end(pod).await;
        }
    }

    fn record(&self) -> PathBuf {
        let records = std::fs::read_dir(self.machine.state().join("store/volumes")).unwrap();
        let mut records = records.map(|record| record.unwrap().path());
        records.find(|path| path.extension().is_some_and(|extension| extension == "json")).unwrap()
    }
}

fn machine() -> Machine {
    Machine::new(&["--layout-dir=/"])
}

/// A state directory on a filesystem of its own, of so many inodes. It is unmounted with the rest.
fn small_machine(inodes: u32) -> Machine {
    let machine = machine();
    let (disk, state) = (machine.path().join("disk"), machine.state());
    std::fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
    std::fs::create_dir(&state).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let (disk, place) = (disk.to_str().unwrap().to_owned(), state.to_str().unwrap().to_owned());
    run("mkfs.ext4", &["-q", "-N", &inodes.to_string(), &disk]);
    run("mount", &["-o", "loop", &disk, &place]);
    machine
}

fn remount(state: &Path, flags: MountFlags) {
    rustix::mount::mount_remount(state, flags, "").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn moved_away_and_back() {
    let node = node(machine()).await;
    let (state, aside) = (node.machine.state(), node.machine.path().join("aside"));
    // The base mounts are in a mount of their own, with which the directory moves.
    std::fs::rename(&state, &aside).unwrap();
    node.assert_refuses("was removed or replaced").await;
    node.end("a").await;
    std::fs::create_dir(&state).unwrap();
    node.assert_refuses("was removed or replaced").await;
    std::fs::remove_dir(&state).unwrap();
    std::fs::rename(&aside, &state).unwrap();
    node.assert_serves().await;
    // The record of the pod that ended meanwhile goes with the next recovery.
    let Node { machine, plugin, .. } = node;
    drop(plugin);
    machine.start().await;
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_for_good() {
    let mut node = node(machine()).await;
    node.publish("d", &node.image).await.unwrap();
    let state = node.machine.state();
    for entry in std::fs::read_dir(&state).unwrap() {
        let path = entry.unwrap().path();
        // The base mounts are a mount of their own, which no `rm` removes.
        if path.is_dir() && !path.ends_with("mounts") {
            std::fs::remove_dir_all(path).unwrap();
        } else if path.is_file() {
            std::fs::remove_file(path).unwrap();
        }
    }
    node.assert_refuses("was removed or replaced").await;
    node.end("a").await;
    // As kubelet does with a plugin that is not ready.
    node.plugin.process.0.kill().unwrap();
    node.plugin.process.0.wait().unwrap();
    node.plugin = node.machine.start().await;
    node.end("d").await;
    node.assert_serves().await;
    node.machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_and_writable_again() {
    let mut node = node(small_machine(4096)).await;
    node.publish("d", &node.image).await.unwrap();
    let staging = node.machine.path().join("kubelet/plugins/kubernetes.io/csi/d.example/hash/globalmount");
    std::fs::create_dir_all(&staging).unwrap();
    let published = node.machine.publish("staged", &node.image);
    let stage = NodeStageVolumeRequest {
        volume_id: published.volume_id.clone(),
        staging_target_path: staging.display().to_string(),
        volume_capability: published.volume_capability,
        volume_context: published.volume_context,
        ..NodeStageVolumeRequest::default()
    };
    node.plugin.node.clone().node_stage_volume(stage.clone()).await.unwrap();
    let state = node.machine.state();
    remount(&state, MountFlags::RDONLY);
    node.assert_refuses("cannot be written to").await;
    node.end("a").await;
    // A plugin that starts now serves pods that end, and says what it waits for.
    node.plugin.process.0.kill().unwrap();
    node.plugin.process.0.wait().unwrap();
    node.plugin = node.machine.start_unready().await;
    node.end("d").await;
    let unstage = NodeUnstageVolumeRequest {
        volume_id: published.volume_id,
        staging_target_path: staging.display().to_string(),
    };
    node.plugin.node.clone().node_unstage_volume(unstage).await.unwrap();
    let status = node.plugin.node.clone().node_stage_volume(stage).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    // As kubelet does with what it has unstaged.
    std::fs::remove_dir_all(staging.parent().unwrap()).unwrap();
    let status = node.publish("b", &node.image).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("cannot be written to"), "{status}");
    remount(&state, MountFlags::empty());
    let deadline = Instant::now() + Duration::from_secs(120);
    while !node.is_ready().await {
        assert!(Instant::now() < deadline, "{}", node.machine.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    node.assert_serves().await;
    node.machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_inodes() {
    let node = node(small_machine(1024)).await;
    // One volume at two targets: the end of one writes the record anew.
    let mut second = node.machine.publish("a", &node.image);
    second.target_path = node.machine.target("a2").display().to_string();
    node.plugin.node.clone().node_publish_volume(second).await.unwrap();
    let fill = node.machine.state().join("fill");
    std::fs::create_dir(&fill).unwrap();
    while std::fs::File::create(fill.join(format!("{:?}", Instant::now()))).is_ok() {}
    let status = node.publish("b", &node.image).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(node.is_ready().await, "room can be made, and a restart makes none");
    node.end("a").await;
    let mut second = node.machine.unpublish("a");
    second.target_path = node.machine.target("a2").display().to_string();
    node.plugin.node.clone().node_unpublish_volume(second).await.unwrap();
    assert!(!node.machine.target("a2").exists());
    std::fs::remove_dir_all(&fill).unwrap();
    node.assert_serves().await;
    node.machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_records_that_are_none() {
    let node = node(machine()).await;
    let forged = {
        node.publish("d", &node.image).await.unwrap();
        let forged = std::fs::read(node.record()).unwrap();
        node.end("d").await;
        forged
    };
    for rubbish in [&b""[..], b"{\"format\":1,", b"\xff\xff", &forged] {
        node.publish("a", &node.image).await.unwrap();
        std::fs::write(node.record(), rubbish).unwrap();
        node.end("a").await;
        node.machine.assert_nothing_published();
    }
    node.assert_serves().await;
    // What this driver did not mount stays.
    node.publish("a", &node.image).await.unwrap();
    let target = node.machine.target("a");
    std::fs::write(node.record(), "rubbish").unwrap();
    rustix::mount::mount("none", &target, c"tmpfs", MountFlags::empty(), None).unwrap();
    let request = node.machine.unpublish("a");
    let status = node.plugin.node.clone().node_unpublish_volume(request).await.unwrap_err();
    assert!(status.message().contains("did not make"), "{status}");
    rustix::mount::unmount(&target, UnmountFlags::empty()).unwrap();
    node.end("a").await;
    node.machine.assert_nothing_published();
}
