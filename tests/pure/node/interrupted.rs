//! Calls that take long, are given up, or meet each other.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use composefs_csi::csi::proto::{NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnstageVolumeRequest};
use tonic::Code;

use super::slow::SlowMounter;
use super::{code_of, unpublish};
use crate::support::csi::{IMAGE, Node, Plugin};
async fn until(condition: impl Fn() -> bool) {
    for _ in 0..12_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came true");
}

/// The answer once nobody has the volume any more, and the image is there.
async fn when_free(plugin: &Plugin, request: NodePublishVolumeRequest) -> Code {
    for _ in 0..12_000 {
        match code_of(plugin, request.clone()).await.0 {
            Code::Aborted | Code::DeadlineExceeded => tokio::time::sleep(Duration::from_millis(10)).await,
            code => return code,
        }
    }
    Code::Aborted
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
    assert!(message.contains(IMAGE), "{message}");
    node.images.let_through();
    assert_eq!(when_free(&plugin, node.publish("v", "a")).await, Code::Ok);
}

#[tokio::test]
async fn the_callers_deadline_counts_where_it_is_shorter() {
    let node = Node::new();
    let plugin = node.start().await;
    node.images.hold();
    let mut request = tonic::Request::new(node.publish("v", "a"));
    // The client enforces it, too: a quarter of it is left for the answer to arrive.
    request.set_timeout(Duration::from_secs(8));
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
    // The caller goes away in the middle of the pull.
    first.abort();
    node.images.let_through();
    assert_eq!(when_free(&plugin, node.publish("v", "a")).await, Code::Ok);
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
    assert_eq!(when_free(&plugin, node.publish("v", "a")).await, Code::Ok);
    let mounts = node.mounter.calls().iter().filter(|call| **call == "mount").count();
    assert_eq!(mounts, 1, "mounted once, by the call that nobody waited for");
    assert_eq!(unpublish(&plugin, node.unpublish("v", "a")).await, Code::Ok);
    node.assert_clean();
}

/// A call that waits for a pull, which begins now.
async fn waiting(
    node: &Node,
    plugin: &Plugin,
    volume: &str,
    target: &str,
) -> tokio::task::JoinHandle<Result<(), tonic::Status>> {
    let before = node.images.asked.load(Ordering::SeqCst);
    let (mut client, request) = (plugin.node.clone(), node.publish(volume, target));
    let call = tokio::spawn(async move { client.node_publish_volume(request).await.map(drop) });
    until(|| node.images.asked.load(Ordering::SeqCst) > before).await;
    call
}

#[tokio::test]
async fn unpublish_ends_the_waiting_of_its_publish_and_of_no_other() {
    let node = Node::new();
    let plugin = node.start().await;
    node.images.hold();
    let (call, other) = (waiting(&node, &plugin, "v", "a").await, waiting(&node, &plugin, "w", "b").await);
    assert_eq!(unpublish(&plugin, node.unpublish("v", "a")).await, Code::Ok);
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status}");
    assert!(status.message().contains("taken down"), "{status}");
    assert!(!other.is_finished());
    // Nobody has the volume any more: the next publish waits for the pull again.
    let again = waiting(&node, &plugin, "v", "a").await;
    node.images.let_through();
    other.await.unwrap().unwrap();
    again.await.unwrap().unwrap();
    for (volume, target) in [("v", "a"), ("w", "b")] {
        assert_eq!(unpublish(&plugin, node.unpublish(volume, target)).await, Code::Ok);
    }
    node.assert_clean();
}

#[tokio::test]
async fn unstage_ends_the_waiting_of_its_stage() {
    let node = Node::new();
    let plugin = node.start().await;
    node.images.hold();
    let path = node.target("staging").display().to_string();
    let published = node.publish("v", "staging");
    let request = NodeStageVolumeRequest {
        volume_id: published.volume_id.clone(),
        staging_target_path: path.clone(),
        volume_capability: published.volume_capability,
        volume_context: published.volume_context,
        ..Default::default()
    };
    let mut client = plugin.node.clone();
    let call = tokio::spawn(async move { client.node_stage_volume(request).await });
    until(|| node.images.asked.load(Ordering::SeqCst) == 1).await;
    let unstage = NodeUnstageVolumeRequest { volume_id: published.volume_id, staging_target_path: path };
    plugin.node.clone().node_unstage_volume(unstage).await.unwrap();
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Aborted);
    node.images.let_through();
    node.assert_clean();
}

#[tokio::test]
async fn shutdown_answers_those_who_wait_and_removes_the_socket_but_no_mount() {
    let node = Node::new();
    let plugin = node.start().await;
    assert_eq!(code_of(&plugin, node.publish("v", "a")).await.0, Code::Ok);
    node.images.hold();
    let call = waiting(&node, &plugin, "w", "b").await;
    plugin.shutdown.cancel();
    // The image is held for ever, so only the shutdown can have ended the waiting.
    let status = call.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("resumed when the plugin is back"), "{status}");
    plugin.server.await.unwrap();
    assert!(!node.socket().exists());
    assert_eq!(node.mounter.targets().len(), 1);
    node.images.let_through();
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_lets_a_mount_finish() {
    let mut node = Node::new();
    let gate = Arc::new((Mutex::new((false, false)), Condvar::new()));
    node.slow = Some(Arc::new(SlowMounter { inner: node.mounter.clone(), gate: Arc::clone(&gate) }));
    let plugin = node.start().await;
    let (mut client, request) = (plugin.node.clone(), node.publish("v", "a"));
    let call = tokio::spawn(async move { client.node_publish_volume(request).await });
    until(|| gate.0.lock().unwrap().0).await;
    plugin.shutdown.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    gate.0.lock().unwrap().1 = true;
    gate.1.notify_all();
    call.await.unwrap().unwrap();
    plugin.server.await.unwrap();
    assert_eq!(node.mounter.targets().len(), 1);
}
