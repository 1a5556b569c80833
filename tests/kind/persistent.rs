//! PersistentVolumes written by hand.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use crate::cluster::Cluster;
use crate::images::Files;
use crate::objects;
use crate::pods::{Reader, claim};

/// One PersistentVolume, read by two pods through its claim.
pub async fn is_shared(cluster: &Cluster) {
    let (image, _) =
        cluster.registries.open.push(&Files::default().with("motd", "persistent\n"), "persistent:1");
    let volume = "composefs-csi-e2e";
    cluster.create(&cluster.all::<PersistentVolume>(), objects::volume(volume, &image)).await;
    let object = objects::claim_of_volume("persistent", volume);
    cluster.create(&cluster.api::<PersistentVolumeClaim>(), object).await;
    for name in ["persistent-1", "persistent-2"] {
        cluster.start(&Reader::new(name, claim("persistent"))).await;
        assert_eq!(cluster.sh(name, "cat /content/motd"), "persistent");
    }
}
