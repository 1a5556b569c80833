//! Day one: helm installs the driver, and kubelet knows it.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::CSIDriver;

use crate::cluster::Cluster;
use crate::driver;

/// The chart installs as it is, and its pods have the rights that they need and no more.
pub async fn by_chart(cluster: &Cluster) {
    // What a run that was broken off has left.
    cluster.helm_uninstall();
    cluster.helm_upgrade(&[]);
    cluster.driver_ready().await;
    let object = cluster.all::<CSIDriver>().get(driver::NAME).await.expect("the CSIDriver object");
    assert_eq!(object.spec.attach_required, Some(false));
    let modes = object.spec.volume_lifecycle_modes.expect("lifecycle modes");
    assert!(modes.contains(&"Ephemeral".to_owned()) && modes.contains(&"Persistent".to_owned()), "{modes:?}");
    for pod in cluster.node_plugins().await {
        no_token(&pod);
    }
}

/// A privileged pod without an API token is half as dangerous.
fn no_token(pod: &Pod) {
    let containers = &pod.spec.as_ref().expect("a specification").containers;
    let mounts = containers.iter().flat_map(|container| container.volume_mounts.iter().flatten());
    let token = mounts.filter(|mount| mount.mount_path.contains("serviceaccount")).count();
    assert_eq!(token, 0, "the node plugin has an API token and needs none");
}
