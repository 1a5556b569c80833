//! PersistentVolumes written by hand.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::json;

use crate::cluster::{Cluster, LABEL};
use crate::images::Files;
use crate::pods::{Reader, claim};

/// One PersistentVolume, read by two pods through its claim.
pub async fn is_shared(cluster: &Cluster) {
    let (image, _) =
        cluster.registries.open.push(&Files::default().with("motd", "persistent\n"), "persistent:1");
    let (key, value) = LABEL.split_once('=').expect("a label");
    let volume = json!({
        "metadata": {"name": "composefs-csi-e2e", "labels": {key: value}},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "csi": {
                "driver": crate::driver::NAME,
                "volumeHandle": "composefs-csi-e2e",
                "readOnly": true,
                "volumeAttributes": {"image": image},
            },
        },
    });
    cluster.create(&cluster.all::<PersistentVolume>(), volume).await;
    let object = json!({
        "metadata": {"name": "persistent"},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "volumeName": "composefs-csi-e2e",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    });
    cluster.create(&cluster.api::<PersistentVolumeClaim>(), object).await;
    for name in ["persistent-1", "persistent-2"] {
        cluster.start(&Reader::new(name, claim("persistent"))).await;
        assert_eq!(cluster.sh(name, "cat /content/motd"), "persistent");
    }
}
