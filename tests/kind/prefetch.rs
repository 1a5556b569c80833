//! Prefetching on the cluster: images are there before their pods, also on nodes that come later.
//!
//! A machine with one kubelet has one node. The further ones here are objects, and plugins with stores of their own that run
//! as pods where the kubelet is: that is all that prefetching needs of a node.

use base64::Engine as _;
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::cluster::{Cluster, NAMESPACE, until};
use crate::driver;
use crate::examples::apply;
use crate::images::{Files, noise};
use crate::objects;
use crate::pods::{Reader, inline};
use crate::prefetch_objects::{further_account, further_node, further_plugin, may_read, wish};
use crate::registry::USER;

const SECRET: &str = "prefetch-credentials";
const FURTHER: [&str; 3] = ["further-1", "further-2", "further-3"];
/// The account of their plugins.
const ACCOUNT: &str = "further";

/// A wish comes to its end, its pod fetches nothing, a registry that fails is named, and nodes that come later take part.
pub async fn before_the_pod(cluster: &Cluster) {
    cluster.helm_upgrade(&["--set", "prefetch.enabled=true"]);
    cluster.driver_ready().await;
    let nodes = cluster.all::<Node>().list(&Default::default()).await.expect("nodes").items.len();
    let (open, private) = (&cluster.registries.open, &cluster.registries.private);
    let (model, digest) =
        open.push(&Files::default().with("model", noise(77, 2_000_000)), "prefetch/model:1");
    let (secret, _) = private.push(&Files::default().with("motd", "private\n"), "prefetch/private:1");
    let user = base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", USER.0, USER.1));
    cluster.create(&cluster.api::<Secret>(), objects::secret(SECRET, &private.host, &user)).await;

    // The plugin may read no Secret that its namespace has not given it.
    let more = json!({"pullSecrets": [{"name": SECRET}], "parallelism": 2});
    cluster.apply(&wish("models", &[&model, &secret], &more));
    until("a node that says which right is missing", 60, async || {
        let entry = cluster.entry_of(&secret)?;
        (entry["reason"] == "SecretForbidden").then_some(())
    })
    .await;
    let accounts = [(driver::NAMESPACE, "composefs-csi-node"), (NAMESPACE, ACCOUNT)];
    may_read(SECRET, &accounts).iter().for_each(|object| cluster.apply(object));
    let status = cluster.complete("models", nodes).await;
    let first =
        status["images"].as_array().and_then(|all| all.iter().find(|image| image["reference"] == model));
    assert_eq!(first.expect("the image")["digest"], digest.to_string(), "{status}");

    // The pod starts warm.
    let fetched = cluster.metric("composefs_csi_fetched_bytes_total").await;
    assert!(fetched > 2e6, "{fetched} bytes were fetched before the pod");
    cluster.start(&Reader::new("warm", inline(json!({"image": model})))).await;
    assert_eq!(cluster.sh("warm", "wc -c </content/model"), "2000000");
    let after = cluster.metric("composefs_csi_fetched_bytes_total").await;
    assert_eq!(
        fetched.to_bits(),
        after.to_bits(),
        "the pod has fetched layers: {fetched} before, {after} after"
    );

    // Where nobody listens.
    let nowhere = format!("{}:5059/nothing:1", open.host.rsplit_once(':').expect("a port").0);
    cluster.apply(&wish("nowhere", &[&nowhere], &json!({"backoffLimit": 0})));
    let failure = until("the failure in the status", 120, async || {
        let failure = cluster.status("nowhere")["failures"].get(0).cloned()?;
        (failure["reason"] == "Unavailable").then_some(failure)
    })
    .await;
    assert_eq!(failure["reference"], nowhere, "{failure}");
    let shown = cluster.kubectl(&["get", "imageprefetch", "nowhere"]);
    assert!(shown.contains("FAILED") && shown.contains("False"), "{shown}");
    // Corrected, it begins anew.
    cluster.apply(&wish("nowhere", &[&model], &json!({"backoffLimit": 0})));
    cluster.complete("nowhere", nodes).await;

    later(cluster, nodes).await;
    end(cluster).await;
}

/// Nodes come, are given what is wished already, and go.
async fn later(cluster: &Cluster, before: usize) {
    further_account(ACCOUNT).iter().for_each(|object| cluster.apply(object));
    for node in FURTHER {
        cluster.apply(&further_node(node));
    }
    until("nodes that are silent", 60, async || {
        (cluster.status("models")["nodes"]["silent"] == FURTHER.len()).then_some(())
    })
    .await;
    for node in FURTHER {
        let image = &cluster.settings.driver_image;
        cluster.apply(&further_plugin(node, image, ACCOUNT, &cluster.registries.hosts()));
    }
    for name in ["models", "nowhere"] {
        cluster.complete(name, before + FURTHER.len()).await;
    }
    for node in FURTHER {
        let listed = cluster.kubectl(&["exec", node, "--", "composefs-csi", "--output", "json", "ls"]);
        assert!(listed.contains("prefetch/model"), "{node}: {listed}");
    }
    cluster.all::<Node>().delete(FURTHER[0], &DeleteParams::default()).await.expect("the node is deleted");
    // Its report is its property.
    until("the end of the node's report", 120, async || {
        let left = cluster.kubectl(&["get", "nodeimagecaches", "-o", "name"]);
        (!left.contains(FURTHER[0])).then_some(())
    })
    .await;
    let all = before + FURTHER.len() - 1;
    cluster.complete("models", all).await;
}

/// What is not wished any more is not kept, and the kinds go by the documented command.
async fn end(cluster: &Cluster) {
    cluster.kubectl(&["delete", "imageprefetch", "models", "nowhere"]);
    until("reports without entries", 120, async || {
        let entries = "{.items[*].status.entries[*].image}";
        let left = cluster.kubectl(&["get", "nodeimagecaches", "-o", &format!("jsonpath={entries}")]);
        left.trim().is_empty().then_some(())
    })
    .await;
    cluster.clear().await;
    cluster.helm_upgrade(&[]);
    cluster.driver_ready().await;
    let kinds = ["imageprefetches.csi.composefs.dev", "nodeimagecaches.csi.composefs.dev"];
    cluster.kubectl(&["delete", "crd", kinds[0], kinds[1]]);
}

impl Cluster {
    fn apply(&self, object: &Value) {
        apply(self, "apply", &object.to_string(), &[]);
    }

    /// The status of a wish; null before there is one.
    fn status(&self, name: &str) -> Value {
        let object = self.kubectl(&["get", "imageprefetch", name, "-o", "json"]);
        let mut object: Value = serde_json::from_str(&object).expect("JSON");
        object["status"].take()
    }

    /// Waits until so many nodes have all images of a wish, and no others are wanted; returns its status.
    async fn complete(&self, name: &str, nodes: usize) -> Value {
        until(&format!("{name} complete on {nodes} nodes"), 180, async || {
            let status = self.status(name);
            let is_true =
                |condition: &Value| condition["type"] == "Complete" && condition["status"] == "True";
            let complete = status["conditions"].as_array().is_some_and(|all| all.iter().any(is_true));
            let counts = &status["nodes"];
            (complete && counts["wanted"] == nodes && counts["ready"] == nodes).then_some(status)
        })
        .await
    }

    /// What any node says of an image.
    fn entry_of(&self, image: &str) -> Option<Value> {
        let reports = self.kubectl(&["get", "nodeimagecaches", "-o", "json"]);
        let reports: Value = serde_json::from_str(&reports).expect("JSON");
        let entries =
            reports["items"].as_array()?.iter().filter_map(|report| report["status"]["entries"].as_array());
        entries.flatten().find(|entry| entry["image"] == image).cloned()
    }
}
