//! Who cannot have such a volume, and what the answer says.

use std::fs;

use composefs_csi::csi::proto::{NodePublishVolumeRequest, NodeStageVolumeRequest};
use rustix::io::Errno;
use tonic::Code;

use super::{layout, machine, publish, unpublish, writable};
use crate::support::driver::Machine;
use crate::support::pod_users::{idmap_as_runtimes_do, write_users};

#[tokio::test(flavor = "multi_thread")]
async fn only_inline_volumes_within_what_the_operator_allows() {
    let layout = layout();
    let machine = machine(&layout);
    let plugin = machine.start().await;
    let image = layout.reference("latest");
    let changed = |change: &dyn Fn(&mut NodePublishVolumeRequest)| {
        let mut request = writable(&machine, "pod", &image, "8Mi");
        change(&mut request);
        request
    };
    let set = |request: &mut NodePublishVolumeRequest, key: &str, value: &str| {
        request.volume_context.insert(key.to_owned(), value.to_owned());
    };
    let ephemeral = "csi.storage.k8s.io/ephemeral";
    for (request, words) in [
        (changed(&|r| set(r, ephemeral, "false")), "inline volumes only"),
        (changed(&|r| drop(r.volume_context.remove(ephemeral))), "inline volumes only"),
        (
            changed(&|r| r.staging_target_path = machine.target("pod").display().to_string()),
            "inline volumes only",
        ),
        (changed(&|r| r.readonly = true), "readOnly: true"),
        (changed(&|r| set(r, "noexec", "true")), "`noexec`"),
        (changed(&|r| set(r, "verify", "read")), "`verify: read`"),
        (changed(&|r| set(r, "upperMedium", "Tape")), "must be Memory or Disk"),
        (changed(&|r| set(r, "upperSizeLimit", "65Mi")), "allows 67108864 in memory at the most"),
        (changed(&|r| drop(r.volume_context.remove("upperSizeLimit"))), "`upperSizeLimit` is missing"),
    ] {
        let status = publish(&plugin, request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(words), "{words:?} is not in {status}");
    }
    let stage = NodeStageVolumeRequest {
        volume_id: "csi-pod".to_owned(),
        staging_target_path: machine.target("pod").display().to_string(),
        volume_capability: writable(&machine, "pod", &image, "8Mi").volume_capability,
        volume_context: writable(&machine, "pod", &image, "8Mi").volume_context,
        ..NodeStageVolumeRequest::default()
    };
    let status = plugin.node.clone().node_stage_volume(stage).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("inline volumes only"), "{status}");
    assert_eq!(machine.run(&["ls"])["images"], serde_json::json!([]), "nothing was pulled for them");
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_allows_none_unless_asked_and_a_policy_can_forbid_it() {
    let layout = layout();
    let image = layout.reference("latest");
    let layouts = format!("--layout-dir={}", layout.path().display());
    let machine = Machine::new(&[&layouts]);
    let plugin = machine.start().await;
    let status = publish(&plugin, writable(&machine, "pod", &image, "8Mi")).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("node.writableMaxMiB"), "{status}");
    publish(&plugin, machine.publish("plain", &image)).await.unwrap();
    unpublish(&plugin, &machine, "plain").await;
    drop(plugin);

    let policy = tempfile::NamedTempFile::new().unwrap();
    let rules = serde_json::json!({"default": [
        {"type": "insecureAcceptAnything"},
        {"type": "composefs", "integrity": "read"},
    ]});
    fs::write(&policy, rules.to_string()).unwrap();
    let machine =
        Machine::new(&[&layouts, "--writable-max-size=64", &format!("--policy={}", policy.path().display())]);
    let plugin = machine.start().await;
    let status = publish(&plugin, writable(&machine, "pod", &image, "8Mi")).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("the policy that admits the image"), "{status}");
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_a_user_namespace_is_told_that_it_cannot_have_one() {
    let layout = layout();
    let machine = machine(&layout);
    let plugin = machine.start().await;
    let request = writable(&machine, "pod", &layout.reference("latest"), "8Mi");
    // Nobody knows the pod's users yet.
    let target = publish(&plugin, request.clone()).await.unwrap();
    write_users(&machine.path().join("kubelet/pods/pod"), 131_072);
    assert_eq!(idmap_as_runtimes_do(&target, 131_072).unwrap_err(), Errno::INVAL, "no container starts");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !machine.log().contains("cannot have their volume: a pod with a user namespace") {
        assert!(std::time::Instant::now() < deadline, "{}", machine.log_tail());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // Kubelet, if it asks again; the plugin may just be trying itself.
    let status = loop {
        let status = publish(&plugin, request.clone()).await.unwrap_err();
        if status.code() != Code::Aborted {
            break status;
        }
    };
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("hostUsers: false"), "{status}");
    unpublish(&plugin, &machine, "pod").await;
    machine.assert_nothing_published();
}
