//! What a plugin finds that was killed, or whose node was.

use std::sync::atomic::Ordering;

use composefs_csi::csi::proto::NodeGetVolumeStatsRequest;
use composefs_csi::node::mount::Mounter as _;
use tonic::Code;

use super::{code_of, unpublish};
use crate::support::csi::{IMAGE, Node, verity};
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
    node.images.tag(IMAGE, 2);
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
