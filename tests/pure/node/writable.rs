//! Writable volumes, as far as they need no kernel: one target for each, taken over as they are, tidied after a reboot.

use composefs_csi::csi::proto::{NodeGetVolumeStatsRequest, NodePublishVolumeRequest};
use composefs_csi::node::mount::{Mounter as _, UpperSpec};
use tonic::Code;

use super::{code_of, unpublish};
use crate::support::csi::{IMAGE, Node, context};

fn writable(node: &Node, target: &str, limit: &str) -> NodePublishVolumeRequest {
    let mut request = node.publish("v", target);
    request.volume_context = context(&[
        ("image", IMAGE),
        ("writable", "true"),
        ("upperSizeLimit", limit),
        ("csi.storage.k8s.io/ephemeral", "true"),
    ]);
    request
}

#[tokio::test]
async fn one_upper_for_one_volume() {
    let node = Node::new();
    let plugin = node.start().await;
    let upper =
        |target: &str| node.mounter.mounted(&node.target(target)).unwrap().and_then(|spec| spec.upper);
    assert_eq!(code_of(&plugin, writable(&node, "a", "2Mi")).await.0, Code::Ok);
    assert_eq!(upper("a"), Some(UpperSpec { bytes: 2 << 20, on_disk: false }));
    assert_eq!(code_of(&plugin, writable(&node, "a", "2Mi")).await.0, Code::Ok);
    let mounts = node.mounter.calls().iter().filter(|call| **call == "mount").count();
    assert_eq!(mounts, 1, "what has been written is still there");
    let (code, message) = code_of(&plugin, writable(&node, "b", "2Mi")).await;
    assert_eq!(code, Code::FailedPrecondition, "{message}");
    assert!(message.contains("or writable"), "{message}");
    for other in [writable(&node, "a", "3Mi"), node.publish("v", "a")] {
        assert_eq!(code_of(&plugin, other).await.0, Code::AlreadyExists);
    }
    let stats = NodeGetVolumeStatsRequest {
        volume_id: "v".to_owned(),
        volume_path: node.target("a").display().to_string(),
        ..Default::default()
    };
    let stats = plugin.node.clone().node_get_volume_stats(stats).await.unwrap().into_inner();
    let bytes = &stats.usage[0];
    assert_eq!((bytes.total, bytes.available, bytes.used), (2 << 20, 2 << 20, 0));
    assert!(stats.volume_condition.unwrap().message.starts_with("writable, "));
    assert_eq!(unpublish(&plugin, node.unpublish("v", "a")).await, Code::Ok);
    node.assert_clean();
}

#[tokio::test]
async fn without_its_record_it_is_taken_over_as_it_is_or_left_alone() {
    let node = Node::new();
    let plugin = node.start().await;
    assert_eq!(code_of(&plugin, writable(&node, "a", "2Mi")).await.0, Code::Ok);
    let lose = || {
        let records = std::fs::read_dir(node.records()).unwrap().map(|entry| entry.unwrap().path());
        records.filter(|path| !path.ends_with("boot")).for_each(|path| std::fs::remove_file(path).unwrap());
    };
    lose();
    assert_eq!(code_of(&plugin, writable(&node, "a", "3Mi")).await.0, Code::AlreadyExists, "another limit");
    assert_eq!(code_of(&plugin, writable(&node, "a", "2Mi")).await.0, Code::Ok);
    lose();
    // At which level it was mounted is not known, and a new mount would be an empty one.
    let mut checked = writable(&node, "a", "2Mi");
    checked.volume_context.insert("verify".to_owned(), "mount".to_owned());
    assert_eq!(code_of(&plugin, checked).await.0, Code::AlreadyExists);
    assert!(!node.mounter.calls().contains(&"unmount"));
    assert_eq!(unpublish(&plugin, node.unpublish("v", "a")).await, Code::Ok);
    node.assert_clean();
}

#[tokio::test]
async fn a_reboot_takes_what_was_written_and_leaves_no_trace() {
    let mut node = Node::new();
    let plugin = node.start().await;
    assert_eq!(code_of(&plugin, writable(&node, "a", "2Mi")).await.0, Code::Ok);
    plugin.kill().await;
    node.mounter.reboot();
    node.boot = "boot-2".to_owned();
    let plugin = node.start().await;
    assert_eq!(code_of(&plugin, writable(&node, "a", "2Mi")).await.0, Code::Ok);
    assert_eq!(node.mounter.targets(), [node.target("a")]);
    assert_eq!(unpublish(&plugin, node.unpublish("v", "a")).await, Code::Ok);
    node.assert_clean();
}
