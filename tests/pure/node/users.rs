//! Pods with a user namespace, as far as it needs no kernel: when a volume is mapped, and what a failure leaves.

use composefs_csi::node::mount::IdRange;
use rustix::io::Errno;
use tonic::Code;

use super::{code_of, unpublish};
use crate::support::csi::Node;
use crate::support::pod_users::write_users;

#[tokio::test]
async fn a_publish_maps_as_soon_as_kubelet_has_said_for_whom() {
    let node = Node::new();
    let plugin = node.start().await;
    let users = |first| Some(IdRange { first, length: 65_536 });
    for pod in ["a", "b"] {
        std::fs::create_dir(node.target(pod)).unwrap();
    }
    assert_eq!(code_of(&plugin, node.publish("v", "a/mount")).await.0, Code::Ok);
    assert_eq!(node.mounter.users(&node.target("a/mount")), None);
    write_users(&node.target("a"), 131_072);
    // Kubelet asks again, as it does where something else of the pod fails.
    node.mounter.fail_next("map", Errno::NOMEM);
    let (code, message) = code_of(&plugin, node.publish("v", "a/mount")).await;
    assert_eq!(code, Code::ResourceExhausted, "{message}");
    assert!(node.mounter.targets().contains(&node.target("a/mount")), "it stays as it was");
    assert_eq!(code_of(&plugin, node.publish("v", "a/mount")).await.0, Code::Ok);
    assert_eq!(node.mounter.users(&node.target("a/mount")), users(131_072));
    // Another pod with the same volume has users of its own.
    write_users(&node.target("b"), 196_608);
    assert_eq!(code_of(&plugin, node.publish("v", "b/mount")).await.0, Code::Ok);
    assert_eq!(node.mounter.users(&node.target("b/mount")), users(196_608));
    plugin.kill().await;
    let plugin = node.start().await;
    assert_eq!(code_of(&plugin, node.publish("v", "b/mount")).await.0, Code::Ok);
    for target in ["a/mount", "b/mount"] {
        assert_eq!(unpublish(&plugin, node.unpublish("v", target)).await, Code::Ok);
    }
    for pod in ["a", "b"] {
        std::fs::remove_dir_all(node.target(pod)).unwrap();
    }
    node.assert_clean();
}
