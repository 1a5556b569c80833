//! Day one: helm installs the driver, and kubelet knows it.

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
    least_rights(cluster);
}

/// A privileged pod is the more dangerous the more its account may do: the node plugin may write Events on pods.
fn least_rights(cluster: &Cluster) {
    let account = format!("system:serviceaccount:{0}:{1}-node", driver::NAMESPACE, driver::RELEASE);
    let may = |verb: &str, what: &str| {
        // kubectl ends with a failure for "no".
        let question = ["auth", "can-i", verb, what, "--all-namespaces", "--as", &account];
        cluster.try_kubectl_anywhere(&question).is_ok_and(|answer| answer.trim() == "yes")
    };
    assert!(may("create", "events"), "the node plugin may write no Events");
    for what in ["secrets", "pods", "nodes", "serviceaccounts", "configmaps", "persistentvolumes"] {
        for verb in ["get", "list", "create", "patch", "delete"] {
            assert!(!may(verb, what), "the node plugin may {verb} {what}");
        }
    }
}
