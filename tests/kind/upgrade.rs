//! A rolling upgrade of the release under pods that read.

use serde_json::json;

use crate::cluster::Cluster;
use crate::inline::no_volume;
use crate::pods::{Reader, inline};
use crate::restart::Reading;

/// Another annotation means other pods of the driver; what they replace leaves its mounts to the kernel.
pub async fn under_a_reader(cluster: &Cluster) {
    let reading = Reading::start(cluster, "upgrade").await;
    let before = cluster.node_plugin_ids().await;
    cluster.helm_upgrade(&["--set", "podAnnotations.suite=upgraded"]);
    cluster.driver_ready().await;
    let after = cluster.node_plugin_ids().await;
    assert!(after.iter().all(|id| !before.contains(id)), "the upgrade has replaced no pod");
    reading.went_on(cluster).await;
    cluster.start(&Reader::new("upgrade-new", inline(json!({"image": reading.image})))).await;

    // And back, as an operator would.
    let mut rollback = cluster.helm("rollback");
    crate::support::registry::run(rollback.args([crate::driver::RELEASE, "--wait", "--timeout", "4m"]));
    cluster.driver_ready().await;
    reading.went_on(cluster).await;
    cluster.clear().await;
    no_volume(cluster).await;
}
