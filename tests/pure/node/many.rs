//! Volumes of several images: pinned one by one for as long as the volume is in use, and refused together.

use composefs_csi::node::mount::Mounter as _;
use tonic::Code;

use super::{code_of, unpublish};
use crate::support::csi::{Node, capability, context, verity};
use composefs_csi::csi::proto::NodePublishVolumeRequest;
use composefs_csi::csi::proto::volume_capability::access_mode::Mode;

const LIST: &str = "[{image: r.example/a:1, at: x}, {image: r.example/a:2, at: y}]";

fn publish(node: &Node, volume: &str, target: &str) -> NodePublishVolumeRequest {
    NodePublishVolumeRequest {
        volume_context: context(&[("images", LIST)]),
        volume_capability: Some(capability(Mode::MultiNodeReaderOnly)),
        ..node.publish(volume, target)
    }
}

/// A node that can mount what the images 1 and 2, and twice 1, are together.
fn node() -> Node {
    let node = Node::new();
    [102, 103].into_iter().for_each(|number| node.mounter.add_image(verity(number), &[]));
    node
}

#[tokio::test]
async fn all_targets_of_a_volume_show_the_images_of_the_first() {
    let node = node();
    let plugin = node.start().await;
    assert_eq!(code_of(&plugin, publish(&node, "v", "a")).await.0, Code::Ok);
    let shown = |target: &str| node.mounter.mounted(&node.target(target)).unwrap().unwrap().image;
    assert_eq!(shown("a"), verity(103));
    // The tag moves, and the plugin is killed.
    node.images.tag("r.example/a:2", 1);
    plugin.kill().await;
    let plugin = node.start().await;
    for (volume, target) in [("v", "a"), ("v", "b"), ("w", "c")] {
        assert_eq!(
            code_of(&plugin, publish(&node, volume, target)).await.0,
            Code::Ok,
            "{volume} at {target}"
        );
    }
    assert_eq!((shown("a"), shown("b"), shown("c")), (verity(103), verity(103), verity(102)));
    let records = std::fs::read_dir(node.records()).unwrap().map(|entry| entry.unwrap().path());
    let records = records.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    for record in records {
        let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
        assert_eq!(record["members"].as_array().unwrap().len(), 2, "what the collection keeps: {record}");
    }
    // Other images, or the same elsewhere, are another volume.
    let mut other = publish(&node, "v", "d");
    other.volume_context = context(&[("images", &LIST.replace("at: y", "at: z"))]);
    assert_eq!(code_of(&plugin, other).await.0, Code::AlreadyExists);
    for (volume, target) in [("v", "a"), ("v", "b"), ("w", "c")] {
        assert_eq!(unpublish(&plugin, node.unpublish(volume, target)).await, Code::Ok);
    }
    node.assert_clean();
}

#[tokio::test]
async fn one_that_is_not_to_be_had_refuses_all() {
    let node = node();
    let plugin = node.start().await;
    node.images.forbid("r.example/a:2");
    let (code, message) = code_of(&plugin, publish(&node, "v", "a")).await;
    assert_eq!(code, Code::NotFound, "{message}");
    assert!(
        message.contains("entry 2 (r.example/a:2): image r.example/a:2 is not on this node"),
        "{message}"
    );
    node.assert_clean();
    let mut malformed = publish(&node, "v", "a");
    malformed.volume_context = context(&[("images", "[{image: r.example/a:1}]")]);
    let (code, message) = code_of(&plugin, malformed).await;
    assert_eq!(
        (code, message.contains("entry 1: `at` is missing")),
        (Code::InvalidArgument, true),
        "{message}"
    );
}
