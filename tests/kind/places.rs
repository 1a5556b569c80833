//! Every place where a pod can mount a volume. docs/where-it-mounts.md says the same to users.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::cluster::{Cluster, until};
use crate::images::{Files, noise};
use crate::objects;
use crate::pods::{claim, inline};

const POD: &str = "places";

/// One volume, inline and by a claim, in an init container and two others: whole, in part, read-only in each way, with each
/// propagation. It shows the same everywhere and takes no write.
pub async fn all_work(cluster: &Cluster) {
    let image = image(cluster);
    cluster.class("composefs-csi-e2e-places", json!({"image": image})).await;
    cluster.claim("places", "composefs-csi-e2e-places").await;
    let mut writable = inline(json!({"image": image}));
    writable["csi"]["readOnly"] = json!(false);
    for volume in [inline(json!({"image": image})), writable, claim("places")] {
        let tools = &cluster.settings.tools_image;
        let pod = objects::places(POD, tools, &volume, cluster.release.has_recursive_read_only());
        cluster.create(&cluster.api::<Pod>(), pod).await;
        all_run(cluster);
        let mut whole = vec!["/content", "/read-only", "/writable", "/follows", "/alone"];
        if cluster.release.has_recursive_read_only() {
            whole.push("/recursive");
        }
        for place in whole {
            assert_eq!(cluster.sh(POD, &format!("cat {place}/etc/motd")), "from an image", "{place}");
            refuses(cluster, "reader", &format!("{place}/etc/motd"));
        }
        assert_eq!(cluster.sh(POD, "ls /part"), "blob");
        assert_eq!(cluster.sh(POD, "cat /file"), "from an image");
        assert_eq!(cluster.sh(POD, "cat /own/note"), "by name");
        for path in ["/part/blob", "/file", "/own/note"] {
            refuses(cluster, "reader", path);
        }
        // A privileged container sees the volume by a mount that it shares with the node, and cannot write either.
        let second = cluster.kubectl(&["exec", POD, "-c", "second", "--", "cat", "/both/etc/motd"]);
        assert_eq!(second, "from an image\n");
        refuses(cluster, "second", "/both/etc/motd");
        end(cluster).await;
    }
}

/// Ephemeral containers and pods with a user namespace, on releases that have them.
pub async fn later_and_mapped(cluster: &Cluster) {
    let (release, tools) = (cluster.release, &cluster.settings.tools_image);
    let volume = inline(json!({"image": image(cluster)}));
    if !release.has_ephemeral_containers() {
        println!("kind: this release has no ephemeral containers by default: not tried");
        return;
    }
    cluster.create(&cluster.api::<Pod>(), objects::places(POD, tools, &volume, true)).await;
    all_run(cluster);
    let late = objects::ephemeral("late", tools).to_string();
    let resource = ["patch", "pod", POD, "--subresource=ephemeralcontainers", "--type=strategic", "--patch"];
    cluster.kubectl(&[&resource[..], &[late.as_str()]].concat());
    until("the ephemeral container", 60, async || {
        cluster.try_kubectl(&["exec", POD, "-c", "late", "--", "cat", "/content/etc/motd"]).ok()
    })
    .await;
    refuses(cluster, "late", "/content/etc/motd");
    end(cluster).await;
    if !release.has_user_namespaces() {
        println!("kind: this release has no user namespaces by default: not tried");
        return;
    }
    let command = ["sleep".to_owned(), "1000000".to_owned()];
    let mut mapped = objects::reader("mapped", tools, &command, None, &volume);
    mapped["spec"]["hostUsers"] = json!(false);
    cluster.create(&cluster.api::<Pod>(), mapped).await;
    cluster.running("mapped").await;
    let map = cluster.sh("mapped", "cat /proc/self/uid_map");
    assert_ne!(map.split_whitespace().nth(1), Some("0"), "the pod has the node's users: {map}");
    assert_eq!(cluster.sh("mapped", "stat -c %u:%g /content/etc/motd"), "0:0");
    assert_eq!(cluster.sh("mapped", "cat /content/etc/motd"), "from an image");
}

fn image(cluster: &Cluster) -> String {
    let files = Files::default()
        .with("data/blob", noise(3, 100_000))
        .with("etc/motd", "from an image\n")
        .with(&format!("{POD}/note"), "by name\n");
    cluster.registries.open.push(&files, "places:1").0
}

/// Waits until all containers of the pod run.
fn all_run(cluster: &Cluster) {
    let outcome =
        cluster.try_kubectl(&["wait", "--for=condition=Ready", "--timeout=360s", &format!("pod/{POD}")]);
    outcome.unwrap_or_else(|said| panic!("{said}{}", cluster.kubectl(&["describe", "pod", POD])));
}

/// A write in a container of the pod fails because the filesystem is read-only, and for no other reason.
fn refuses(cluster: &Cluster, container: &str, path: &str) {
    let write = format!("echo x >>{path}");
    let outcome = cluster.try_kubectl(&["exec", POD, "-c", container, "--", "sh", "-c", &write]);
    let said = outcome.expect_err("a write");
    assert!(said.contains("Read-only file system"), "{path}: {said}");
}

async fn end(cluster: &Cluster) {
    cluster.kubectl(&["delete", "pod", POD, "--grace-period=0", "--wait"]);
    let gone = async || {
        let left: Value =
            serde_json::from_str(&cluster.kubectl(&["get", "pods", "-o", "json"])).expect("JSON");
        let named = |pod: &Value| pod.pointer("/metadata/name").is_some_and(|name| name == POD);
        left["items"].as_array().is_some_and(|pods| !pods.iter().any(named)).then_some(())
    };
    until("the end of the pod", 60, gone).await;
}
