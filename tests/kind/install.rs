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
    // helm prints these on the first day.
    let notes = String::from_utf8(crate::support::registry::run(
        cluster.helm("get").args(["notes", driver::RELEASE]),
    ));
    let notes = notes.expect("text");
    assert!(notes.contains(driver::NAME) && !notes.contains("NO IMAGE CAN BE MOUNTED"), "{notes}");
    crate::rights::least(cluster);
}
