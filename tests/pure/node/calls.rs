//! What calls answer that may be answered.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::Ordering;

use composefs_csi::csi::proto::identity_client::IdentityClient;
use composefs_csi::csi::proto::node_service_capability::{Type, rpc};
use composefs_csi::csi::proto::volume_capability::access_mode::Mode;
use composefs_csi::csi::proto::{
    GetPluginCapabilitiesRequest, GetPluginInfoRequest, NodeExpandVolumeRequest, NodeGetCapabilitiesRequest,
    NodeGetInfoRequest, NodeGetVolumeStatsRequest, NodeStageVolumeRequest, NodeUnstageVolumeRequest,
    ProbeRequest, VolumeUsage,
};
use composefs_csi::node::mount::Mounter as _;
use tonic::Code;

use super::{code_of, unpublish};
use crate::support::csi::{IMAGE, Node, capability, context, verity};
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
        volume_context: context(&[("image", IMAGE)]),
        ..Default::default()
    };
    for _ in 0..2 {
        client.node_stage_volume(stage.clone()).await.unwrap();
    }
    // The tag moves, the volume does not.
    node.images.tag(IMAGE, 2);
    assert_eq!(code_of(&plugin, node.publish("v", "a")).await.0, Code::Ok);
    assert_eq!(node.mounter.mounted(&node.target("a")).unwrap().unwrap().image, verity(1));
    // Every pod must be authorised, even if the volume is staged already.
    assert_eq!(node.images.asked.load(Ordering::SeqCst), 2);
    node.images.forbid(IMAGE);
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
    assert_eq!(amounts, [(0, 1000, 0), (0, 7, 0)]);
    // kubernetes-mixin, KubePersistentVolumeFillingUp and KubePersistentVolumeInodesFillingUp.
    let fires =
        |usage: &VolumeUsage| usage.used > 0 && (usage.available as f64) / (usage.total as f64) < 0.03;
    assert!(!answer.usage.iter().any(fires), "every claim would raise an alert");
    assert!(!answer.volume_condition.unwrap().abnormal);
    node.mounter.unmount(&node.target("a")).unwrap();
    let answer = client.node_get_volume_stats(ask("v", &target)).await.unwrap().into_inner();
    assert!(answer.volume_condition.unwrap().abnormal);
}
