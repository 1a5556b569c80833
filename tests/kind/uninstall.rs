//! The end: helm removes the release, and the cluster and its nodes are as before, the store's files aside.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::storage::v1::CSIDriver;
use kube::api::DeleteParams;

use crate::cluster::{Cluster, until};
use crate::inline::no_volume;
use crate::node::INSPECTOR;
use crate::{cluster, driver};

/// Nothing of the release is left: no object, no registration, no process, no mount.
pub async fn leaves_nothing(cluster: &Cluster) {
    // Pods first, as docs/installation.md says: what is mounted then only the driver unmounts. Of pods that were
    // deleted by force, kubelet takes down the volumes when they are no objects any more.
    cluster.clear().await;
    no_volume(cluster).await;
    cluster.inspect().await;
    cluster.helm_uninstall();
    until("the end of the registration", 60, async || (!cluster.any_registered().await).then_some(())).await;
    assert!(cluster.all::<CSIDriver>().get_opt(driver::NAME).await.expect("drivers").is_none());
    let kinds =
        "all,serviceaccounts,roles,rolebindings,configmaps,clusterroles,clusterrolebindings,networkpolicies";
    let label = format!("app.kubernetes.io/instance={}", driver::RELEASE);
    // helm does not wait for the pods of a DaemonSet to end.
    until("the end of the release's objects", 180, async || {
        let left = cluster.kubectl(&["get", kinds, "--all-namespaces", "-l", &label, "-o", "name"]);
        left.trim().is_empty().then_some(())
    })
    .await;
    // By what is mounted: the driver's overlays and image files.
    let mounts = cluster.sh(INSPECTOR, "grep -E ' - (overlay composefs:|erofs )' /proc/1/mountinfo || true");
    assert_eq!(mounts, "", "mounts are left on the node");
    assert_eq!(cluster.processes("/usr/bin/composefs-csi"), Vec::<u32>::new(), "processes are left");
    // And what docs/installation.md says about kubelet's directories: nothing is in them but the socket.
    let documented = "cd /proc/1/root/var/lib/kubelet/plugins && rm -f csi.composefs.dev/csi.sock \
                      && rmdir csi.composefs.dev kubernetes.io/csi/csi.composefs.dev";
    cluster.sh(INSPECTOR, documented);

    for name in [cluster::NAMESPACE, driver::NAMESPACE] {
        let namespaces = cluster.all::<Namespace>();
        namespaces.delete(name, &DeleteParams::default()).await.expect("the namespace is deleted");
    }
    until("the end of the suite's pods", 120, async || {
        let pods = cluster.api::<Pod>().list(&Default::default()).await.expect("pods are listed");
        pods.items.is_empty().then_some(())
    })
    .await;
}
