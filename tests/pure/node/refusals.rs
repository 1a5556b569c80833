//! What must not be done has its code, and a message that names it.

use composefs_csi::csi::proto::volume_capability::AccessType;
use composefs_csi::csi::proto::volume_capability::access_mode::Mode;
use composefs_csi::csi::proto::{NodePublishVolumeRequest, volume_capability};
use tonic::Code;

use super::{code_of, unpublish};
use crate::support::csi::{IMAGE, Node, capability, context};
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
    let attribute = |key: &str, value: &str| context(&[("image", IMAGE), (key, value)]);
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
