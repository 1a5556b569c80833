//! The node plugin over its socket: what each call answers, and what is left after cancelled calls, killed
//! plugins and reboots. Fakes stand in for images and mounts; real mounts are `tests/mount.rs`'s.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use composefs_csi::csi::proto::identity_client::IdentityClient;
use composefs_csi::csi::proto::node_service_capability::{Type, rpc};
use composefs_csi::csi::proto::volume_capability::AccessType;
use composefs_csi::csi::proto::volume_capability::access_mode::Mode;
use composefs_csi::csi::proto::{
    GetPluginCapabilitiesRequest, GetPluginInfoRequest, NodeExpandVolumeRequest, NodeGetCapabilitiesRequest,
    NodeGetInfoRequest, NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, ProbeRequest, volume_capability,
};
use composefs_csi::image::store::Integrity;
use composefs_csi::node::mount::fake::FakeMounter;
use composefs_csi::node::mount::{MountError, MountSpec, Mounter};
use tonic::Code;

mod support {
    pub mod csi;
}

use support::csi::{Node, Plugin, capability, context, verity};

async fn code_of(plugin: &Plugin, request: NodePublishVolumeRequest) -> (Code, String) {
    match plugin.node.clone().node_publish_volume(request).await {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => (status.code(), status.message().to_owned()),
    }
}

async fn unpublish(plugin: &Plugin, request: NodeUnpublishVolumeRequest) -> Code {
    plugin.node.clone().node_unpublish_volume(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn the_node_says_who_it_is() {
    let node = Node::new();
    let plugin = node.start().await;
    assert_eq!(std::fs::metadata(node.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    let mut identity = IdentityClient::new(plugin.channel.clone());
    let info = identity.get_plugin_info(GetPluginInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.name, "csi.composefs.dev");
    assert_eq!(info.vendor_version, env!("CARGO_PKG_VERSION"));
    let capabilities = identity.get_plugin_capabilities(GetPluginCapabilitiesRequest {}).await.unwrap();
    assert!(capabilities.into_inner().capabilities.is_empty(), "no controller in this process");
    assert_eq!(identity.probe(ProbeRequest {}).await.unwrap().into_inner().ready, Some(true));

    let mut client = plugin.node.clone();
    let info = client.node_get_info(NodeGetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.node_id.as_str(), info.max_volumes_per_node), ("node-1", 0));
    let capabilities =
        client.node_get_capabilities(NodeGetCapabilitiesRequest {}).await.unwrap().into_inner();
    let types: Vec<_> = capabilities
        .capabilities
        .into_iter()
        .map(|capability| match capability.r#type.unwrap() {
            Type::Rpc(rpc) => rpc.r#type(),
        })
        .collect();
    assert!(types.contains(&rpc::Type::StageUnstageVolume));
    assert!(types.contains(&rpc::Type::GetVolumeStats));
    assert!(!types.contains(&rpc::Type::ExpandVolume));
    let refused = client.node_expand_volume(NodeExpandVolumeRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[tokio::test]
async fn publish_and_unpublish_in_every_order() {
    let node = Node::new();
    let plugin = node.start().await;
    assert_eq!(unpublish(&plugin, node.unpublish("v", "a")).await, Code::Ok, "never published");
    for _ in 0..2 {
        assert_eq!(code_of(&plugin, node.publish("v", "a")).await.0, Code::Ok);
    }
    assert_eq!(node.images.asked.load(Ordering::SeqCst), 1, "the second time nobody is asked");
    assert_eq!(code_of(&plugin, node.publish("v", "b")).await.0, Code::Ok, "a second target");
    assert_eq!(node.mounter.targets().len(), 2);
    let found = node.mounter.mounted(&node.target("a")).unwrap().unwrap();
    assert_eq!((found.image, found.noexec), (verity(1), false));
    for target in ["a", "a", "b", "b", "c"] {
        assert_eq!(unpublish(&plugin, node.unpublish("v", target)).await, Code::Ok);
    }
    node.assert_clean();
}

#[tokio::test]
async fn directories_without_a_mount_are_removed_and_mounts_without_a_directory_are_no_matter() {
    let node = Node::new();
    let plugin = node.start().await;
    std::fs::create_dir(node.target("left")).unwrap();
    assert_eq!(unpublish(&plugin, node.unpublish("v", "left")).await, Code::Ok);
    assert_eq!(code_of(&plugin, node.publish("v", "a")).await.0, Code::Ok);
    node.mounter.unmount(&node.target("a")).unwrap();
    std::fs::remove_dir(node.target("a")).unwrap();
    assert_eq!(unpublish(&plugin, node.unpublish("v", "a")).await, Code::Ok);
    node.assert_clean();
}

#[tokio::test]
async fn each_mistake_has_its_code_and_a_message_that_names_it() {
    let node = Node::new();
    let plugin = node.start().await;
    std::os::unix::fs::symlink("/etc", node.target("link")).unwrap();
    let publish = |change: &dyn Fn(&mut NodePublishVolumeRequest)| {
        let mut request = node.publish("v", "a");
        change(&mut request);
        request
    };
    let block = volume_capability::BlockVolume::default();
    let attribute = |key: &str, value: &str| context(&[("image", support::csi::IMAGE), (key, value)]);
    let cases: Vec<(NodePublishVolumeRequest, Code, &str)> = vec![
        (publish(&|r| r.volume_id.clear()), Code::InvalidArgument, "volume_id"),
        (publish(&|r| r.target_path.clear()), Code::InvalidArgument, "target_path"),
        (publish(&|r| r.target_path = "/etc/x".into()), Code::InvalidArgument, "kubelet"),
        (publish(&|r| r.target_path += "/../../../x"), Code::InvalidArgument, ".."),
        (node.publish("v", "link"), Code::InvalidArgument, "symbolic link"),
        (node.publish("v", "no/parent"), Code::InvalidArgument, "parent"),
        (publish(&|r| r.volume_capability = None), Code::InvalidArgument, "volume_capability"),
        (
            publish(&|r| {
                let capability = r.volume_capability.as_mut().unwrap();
                capability.access_type = Some(AccessType::Block(block));
            }),
            Code::InvalidArgument,
            "block device",
        ),
        (
            publish(&|r| r.volume_capability = Some(capability(Mode::MultiNodeMultiWriter))),
            Code::InvalidArgument,
            "ReadOnlyMany",
        ),
        (publish(&|r| r.volume_context.clear()), Code::InvalidArgument, "`image`"),
        (publish(&|r| r.volume_context = attribute("sise", "1")), Code::InvalidArgument, "\"sise\""),
        (publish(&|r| r.volume_context = attribute("path", "../x")), Code::InvalidArgument, "`path`"),
        (publish(&|r| r.volume_context = attribute("path", "nothing")), Code::NotFound, "nothing"),
        (
            publish(&|r| r.volume_context = context(&[("image", "r.example/b:1")])),
            Code::NotFound,
            "r.example/b:1",
        ),
        (
            publish(&|r| r.volume_context = context(&[("image", "oci:/etc")])),
            Code::PermissionDenied,
            "oci:/etc",
        ),
        (publish(&|r| r.secrets = context(&[("password", "x")])), Code::InvalidArgument, "\"password\""),
    ];
    for (request, code, word) in cases {
        let (found, message) = code_of(&plugin, request).await;
        assert_eq!(found, code, "{message}");
        assert!(message.contains(word), "{message:?} should hold {word:?}");
    }
    std::fs::remove_file(node.target("link")).unwrap();
    node.assert_clean();
}

#[tokio::test]
async fn another_capability_or_volume_at_a_target_is_already_exists() {
    let node = Node::new();
    let plugin = node.start().await;
    assert_eq!(code_of(&plugin, node.publish("v", "a")).await.0, Code::Ok);
    let mut other = node.publish("v", "a");
    other.volume_capability = Some(capability(Mode::MultiNodeReaderOnly));
    assert_eq!(code_of(&plugin, other).await.0, Code::AlreadyExists);
    assert_eq!(code_of(&plugin, node.publish("w", "a")).await.0, Code::AlreadyExists);
    let mut other = node.publish("v", "b");
    other.volume_context = context(&[("image", "r.example/a:2")]);
    assert_eq!(code_of(&plugin, other).await.0, Code::AlreadyExists);
    assert_eq!(node.mounter.targets(), [node.target("a")]);
}

#[tokio::test]
async fn a_volume_for_one_pod_is_not_given_to_two() {
    let node = Node::new();
    let plugin = node.start().await;
    let single = |target: &str| {
        let mut request = node.publish("v", target);
        request.volume_capability = Some(capability(Mode::SingleNodeSingleWriter));
        request
    };
    assert_eq!(code_of(&plugin, single("a")).await.0, Code::Ok);
    assert_eq!(code_of(&plugin, single("b")).await.0, Code::FailedPrecondition);
    assert_eq!(unpublish(&plugin, node.unpublish("v", "a")).await, Code::Ok);
    assert_eq!(code_of(&plugin, single("b")).await.0, Code::Ok);
}

#[tokio::test]
async fn stage_keeps_the_image_and_pins_it() {
    let node = Node::new();
    let plugin = node.start().await;
    let mut client = plugin.node.clone();
    let staging = node.directory.path().join("kubelet/staging");
    std::fs::create_dir(&staging).unwrap();
    let stage = NodeStageVolumeRequest {
        volume_id: "v".to_owned(),
        staging_target_path: staging.to_str().unwrap().to_owned(),
        volume_capability: Some(capability(Mode::MultiNodeReaderOnly)),
        volume_context: context(&[("image", support::csi::IMAGE)]),
        ..Default::default()
    };
    for _ in 0..2 {
        client.node_stage_volume(stage.clone()).await.unwrap();
    }
    // The tag moves, the volume does not.
    node.images.tag(support::csi::IMAGE, 2);
    assert_eq!(code_of(&plugin, node.publish("v", "a")).await.0, Code::Ok);
    assert_eq!(node.mounter.mounted(&node.target("a")).unwrap().unwrap().image, verity(1));
    // That it is staged is no leave for every pod that comes.
    assert_eq!(node.images.asked.load(Ordering::SeqCst), 2);
    node.images.forbid(support::csi::IMAGE);
    assert_eq!(code_of(&plugin, node.publish("v", "b")).await.0, Code::NotFound);
    assert!(!node.target("b").exists());
    assert!(node.mounter.mounted(&node.target("a")).unwrap().is_some(), "what is mounted stays");
    assert_eq!(code_of(&plugin, node.publish("v", "a")).await.0, Code::Ok, "and is published already");
    assert_eq!(unpublish(&plugin, node.unpublish("v", "a")).await, Code::Ok);
    let unstage = NodeUnstageVolumeRequest {
        volume_id: "v".to_owned(),
        staging_target_path: stage.staging_target_path,
    };
    for _ in 0..2 {
        client.node_unstage_volume(unstage.clone()).await.unwrap();
    }
    assert!(staging.exists(), "the staging directory is the kubelet's");
    node.assert_clean();
}

#[tokio::test]
async fn statistics_and_condition() {
    let node = Node::new();
    let plugin = node.start().await;
    let mut client = plugin.node.clone();
    let ask = |volume: &str, path: &str| NodeGetVolumeStatsRequest {
        volume_id: volume.to_owned(),
        volume_path: path.to_owned(),
        ..Default::default()
    };
    let target = node.target("a").to_str().unwrap().to_owned();
    for (request, code) in [
        (ask("", &target), Code::InvalidArgument),
        (ask("v", ""), Code::InvalidArgument),
        (ask("v", "some/path"), Code::NotFound),
    ] {
        assert_eq!(client.node_get_volume_stats(request).await.unwrap_err().code(), code);
    }
    assert_eq!(code_of(&plugin, node.publish("v", "a")).await.0, Code::Ok);
    let elsewhere = client.node_get_volume_stats(ask("v", "some/path")).await.unwrap_err();
    assert_eq!(elsewhere.code(), Code::NotFound);
    let answer = client.node_get_volume_stats(ask("v", &target)).await.unwrap().into_inner();
    let amounts: Vec<_> =
        answer.usage.iter().map(|usage| (usage.used, usage.total, usage.available)).collect();
    assert_eq!(amounts, [(1000, 1000, 0), (7, 7, 0)]);
    assert!(!answer.volume_condition.unwrap().abnormal);
    node.mounter.unmount(&node.target("a")).unwrap();
    let answer = client.node_get_volume_stats(ask("v", &target)).await.unwrap().into_inner();
    assert!(answer.volume_condition.unwrap().abnormal);
}

#[tokio::test]
async fn a_long_pull_is_answered_in_time_and_joined_by_the_retry() {
    let mut node = Node::new();
    node.pull_wait = Duration::from_millis(50);
    let plugin = node.start().await;
    node.images.hold();
    let (code, message) = code_of(&plugin, node.publish("v", "a")).await;
    assert_eq!(code, Code::DeadlineExceeded);
    assert!(message.contains("still being pulled"), "{message}");
    assert!(message.contains(support::csi::IMAGE), "{message}");
    node.images.let_through();
    assert_eq!(code_of(&plugin, node.publish("v", "a")).await.0, Code::Ok);
}

#[tokio::test]
async fn the_callers_deadline_counts_where_it_is_shorter() {
    let node = Node::new();
    let plugin = node.start().await;
    node.images.hold();
    let mut request = tonic::Request::new(node.publish("v", "a"));
    request.set_timeout(Duration::from_secs(2));
    let status = plugin.node.clone().node_publish_volume(request).await.unwrap_err();
    assert!(status.message().contains("still being pulled"), "{status:?}");
    node.images.let_through();
}

#[tokio::test]
async fn one_call_per_volume_at_a_time_and_a_dropped_one_gives_it_back() {
    let node = Node::new();
    let plugin = node.start().await;
    node.images.hold();
    let mut client = plugin.node.clone();
    let request = node.publish("v", "a");
    let first = tokio::spawn(async move { client.node_publish_volume(request).await });
    until(|| node.images.asked.load(Ordering::SeqCst) == 1).await;
    assert_eq!(code_of(&plugin, node.publish("v", "a")).await.0, Code::Aborted);
    assert_eq!(unpublish(&plugin, node.unpublish("v", "a")).await, Code::Aborted);
    // The caller goes away in the middle of the pull.
    first.abort();
    node.images.let_through();
    let mut code = Code::Aborted;
    for _ in 0..200 {
        code = code_of(&plugin, node.publish("v", "a")).await.0;
        if code != Code::Aborted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(code, Code::Ok);
}

async fn until(condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came true");
}

/// A mounter that stops before each mount until it is let on.
#[derive(Debug)]
struct SlowMounter {
    inner: Arc<FakeMounter>,
    /// Whether a mount is waiting, and whether it may go on.
    gate: Arc<(Mutex<(bool, bool)>, Condvar)>,
}

impl Mounter for SlowMounter {
    fn mount_at_least(
        &self,
        spec: &MountSpec,
        least: Integrity,
        target: &Path,
    ) -> Result<Integrity, MountError> {
        let (state, changed) = &*self.gate;
        let mut state = state.lock().unwrap();
        state.0 = true;
        changed.notify_all();
        while !state.1 {
            state = changed.wait(state).unwrap();
        }
        drop(state);
        self.inner.mount_at_least(spec, least, target)
    }
    fn level(&self, image: &composefs_csi::image::verity::VerityDigest) -> Integrity {
        self.inner.level(image)
    }
    fn mounted(&self, target: &Path) -> Result<Option<MountSpec>, MountError> {
        self.inner.mounted(target)
    }
    fn unmount(&self, target: &Path) -> Result<(), MountError> {
        self.inner.unmount(target)
    }
    fn release(&self, image: &composefs_csi::image::verity::VerityDigest) -> Result<(), MountError> {
        self.inner.release(image)
    }
    fn mounted_images(
        &self,
    ) -> Result<std::collections::BTreeSet<composefs_csi::image::verity::VerityDigest>, MountError> {
        self.inner.mounted_images()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_cancelled_in_the_middle_of_a_mount_splits_nothing() {
    let mut node = Node::new();
    let gate = Arc::new((Mutex::new((false, false)), Condvar::new()));
    node.slow = Some(Arc::new(SlowMounter { inner: node.mounter.clone(), gate: Arc::clone(&gate) }));
    let plugin = node.start().await;
    let mut client = plugin.node.clone();
    let request = node.publish("v", "a");
    let call = tokio::spawn(async move { client.node_publish_volume(request).await });
    until(|| gate.0.lock().unwrap().0).await;
    call.abort();
    let _ = call.await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let busy = code_of(&plugin, node.publish("v", "a")).await.0;
    assert_eq!(busy, Code::Aborted, "the mount still has the volume");
    gate.0.lock().unwrap().1 = true;
    gate.1.notify_all();
    until(|| !node.mounter.targets().is_empty()).await;
    let mut code = Code::Aborted;
    for _ in 0..200 {
        code = code_of(&plugin, node.publish("v", "a")).await.0;
        if code != Code::Aborted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(code, Code::Ok);
    let mounts = node.mounter.calls().iter().filter(|call| **call == "mount").count();
    assert_eq!(mounts, 1, "mounted once, by the call that nobody waited for");
    assert_eq!(unpublish(&plugin, node.unpublish("v", "a")).await, Code::Ok);
    node.assert_clean();
}

#[tokio::test]
async fn a_restart_finds_live_mounts_and_drops_what_has_gone() {
    let node = Node::new();
    let plugin = node.start().await;
    for (volume, target) in [("v", "a"), ("w", "b")] {
        assert_eq!(code_of(&plugin, node.publish(volume, target)).await.0, Code::Ok);
    }
    plugin.kill().await;
    // While the plugin was away, somebody cleaned up after one pod.
    node.mounter.unmount(&node.target("b")).unwrap();
    std::fs::remove_dir(node.target("b")).unwrap();
    let plugin = node.start().await;
    let asked = node.images.asked.load(Ordering::SeqCst);
    assert_eq!(code_of(&plugin, node.publish("v", "a")).await.0, Code::Ok);
    assert_eq!(node.images.asked.load(Ordering::SeqCst), asked, "it is published already");
    let ask = NodeGetVolumeStatsRequest {
        volume_id: "w".to_owned(),
        volume_path: node.target("b").to_str().unwrap().to_owned(),
        ..Default::default()
    };
    let gone = plugin.node.clone().node_get_volume_stats(ask).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert_eq!(unpublish(&plugin, node.unpublish("v", "a")).await, Code::Ok);
    node.assert_clean();
}

#[tokio::test]
async fn a_reboot_loses_mounts_and_torn_records_but_no_volume() {
    let mut node = Node::new();
    let plugin = node.start().await;
    for (volume, target) in [("v", "a"), ("w", "b")] {
        assert_eq!(code_of(&plugin, node.publish(volume, target)).await.0, Code::Ok);
    }
    plugin.kill().await;
    node.mounter.reboot();
    node.boot = "boot-2".to_owned();
    // What a power cut may leave of a file that was not synced.
    let torn = node.records().join("0000.json");
    std::fs::write(&torn, "").unwrap();
    // The tag has moved in the meantime; nothing holds the volume to the old image any more.
    node.images.tag(support::csi::IMAGE, 2);
    let plugin = node.start().await;
    assert!(!torn.exists());
    assert_eq!(code_of(&plugin, node.publish("v", "a")).await.0, Code::Ok);
    assert_eq!(node.mounter.mounted(&node.target("a")).unwrap().unwrap().image, verity(2));
    for (volume, target) in [("v", "a"), ("w", "b")] {
        assert_eq!(unpublish(&plugin, node.unpublish(volume, target)).await, Code::Ok);
    }
    node.assert_clean();
}

#[tokio::test]
async fn a_damaged_record_is_reported_and_touched_by_nobody() {
    let node = Node::new();
    let plugin = node.start().await;
    assert_eq!(code_of(&plugin, node.publish("v", "a")).await.0, Code::Ok);
    let record = std::fs::read_dir(node.records())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "json"))
        .unwrap();
    std::fs::write(&record, "{}").unwrap();
    let (code, message) = code_of(&plugin, node.publish("v", "b")).await;
    assert_eq!(code, Code::DataLoss);
    assert!(message.contains(record.to_str().unwrap()), "{message}");
    plugin.kill().await;
    let _again = node.start().await;
    assert!(record.exists(), "it is the same boot, so the record may be about a live mount");
    assert_eq!(node.mounter.targets().len(), 1);
}

#[tokio::test]
async fn shutdown_lets_calls_finish_and_removes_the_socket_but_no_mount() {
    let node = Node::new();
    let plugin = node.start().await;
    assert_eq!(code_of(&plugin, node.publish("v", "a")).await.0, Code::Ok);
    node.images.hold();
    let mut client = plugin.node.clone();
    let request = node.publish("w", "b");
    let call = tokio::spawn(async move { client.node_publish_volume(request).await });
    until(|| node.images.asked.load(Ordering::SeqCst) == 2).await;
    plugin.shutdown.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    node.images.let_through();
    call.await.unwrap().unwrap();
    plugin.server.await.unwrap();
    assert!(!node.socket().exists());
    assert_eq!(node.mounter.targets().len(), 2);
}
