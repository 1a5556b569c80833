//! Volumes whose content changes while their pods run: by the pod, which writes, and by the tag, which moves. Both live on
//! when the plugin is killed.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::images::Files;
use crate::inline::no_volume;
use crate::pods::{Reader, inline};

const WRITER: &str = "changing-writer";
const FOLLOWER: &str = "changing-follower";

/// The operator allows both; a pod has its own changes, another the tag's new image.
pub async fn both(cluster: &Cluster) {
    // An hour: nothing switches here but what `refresh` asks for.
    let values = ["node.writableMaxMiB=32", "node.followIntervalSeconds=3600"];
    cluster.helm_upgrade(&values.map(|value| ["--set", value]).concat());
    cluster.driver_ready().await;
    let registry = &cluster.registries.open;
    let (image, old) = registry.push(&site("first"), "site:live");

    let mut volume = inline(json!({"image": image, "writable": "true", "upperSizeLimit": "8Mi"}));
    volume["csi"]["readOnly"] = json!(false);
    cluster.start(&Reader::new(WRITER, volume)).await;
    cluster.create(&cluster.api::<Pod>(), follower(cluster, &image)).await;
    cluster.running(FOLLOWER).await;
    assert_eq!(shown(cluster), "first");
    cluster.sh(WRITER, "echo mine >/content/page && echo new >/content/added");
    let full = cluster.sh_fails(WRITER, "dd if=/dev/zero of=/content/much bs=65536 count=1000");
    assert!(full.contains("No space left"), "{full}");
    cluster.sh(WRITER, "rm /content/much");

    let (_, new) = registry.push(&site("second"), "site:live");
    refresh(cluster, &image).await;
    assert_eq!(shown(cluster), "second");
    let event = cluster.own_event(FOLLOWER, "Switched").await;
    for digest in [old, new] {
        assert!(event.contains(&digest.to_string()), "{event}");
    }

    cluster.kill_node_plugins().await;
    assert_eq!(cluster.sh(WRITER, "cat /content/page /content/added"), "mine\nnew");
    assert_eq!(shown(cluster), "second");
    // What one pod has written is no other's.
    cluster
        .start(&Reader::new("changing-reader", inline(json!({"image": image, "pullPolicy": "Always"}))))
        .await;
    assert_eq!(cluster.sh("changing-reader", "cat /content/page; ls /content"), "second\npage");
    cluster.clear().await;
    no_volume(cluster).await;
    cluster.helm_rollback().await;
}

fn site(version: &str) -> Files {
    Files::default().with("page", format!("{version}\n"))
}

/// A pod whose container gets what is mounted in its volume later.
fn follower(cluster: &Cluster, image: &str) -> Value {
    let mut pod = Reader::new(FOLLOWER, inline(json!({"image": image, "follow": "true"}))).manifest(cluster);
    pod["spec"]["containers"][0]["volumeMounts"][0]["mountPropagation"] = json!("HostToContainer");
    pod
}

fn shown(cluster: &Cluster) -> String {
    cluster.sh(FOLLOWER, "cat /content/current/page")
}

/// Asks for the tag on every node, as a pipeline does that has pushed.
async fn refresh(cluster: &Cluster, image: &str) {
    for plugin in cluster.node_plugins().await {
        cluster
            .in_plugin(&plugin.name_any(), &["refresh", image])
            .unwrap_or_else(|said| panic!("refresh: {said}"));
    }
}
