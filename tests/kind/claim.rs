//! Claims that the external-provisioner brings to the controller.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use crate::cluster::{Cluster, until};
use crate::images::Files;
use crate::objects;
use crate::pods::{Reader, claim};

/// A claim gets a volume that names the image by the digest that its tag had, which a later push does not change.
pub async fn is_provisioned_and_pinned(cluster: &Cluster) {
    let registry = &cluster.registries.open;
    let (image, digest) = registry.push(&Files::default().with("motd", "first\n"), "claimed:1");
    cluster.class("composefs-csi-e2e-claim", json!({"image": image})).await;
    cluster.claim("claimed", "composefs-csi-e2e-claim").await;
    let volume = cluster.bound("claimed").await;
    let source = volume.spec.as_ref().and_then(|spec| spec.csi.clone()).expect("a CSI volume");
    let pinned = &source.volume_attributes.expect("attributes")["image"];
    assert!(pinned.ends_with(&digest.to_string()), "{pinned} is not pinned to {digest}");
    assert_eq!(volume.spec.expect("a specification").access_modes, Some(vec!["ReadOnlyMany".to_owned()]));

    registry.push(&Files::default().with("motd", "second\n"), "claimed:1");
    cluster.start(&Reader::new("claim-reader", claim("claimed"))).await;
    assert_eq!(cluster.sh("claim-reader", "cat /content/motd"), "first");

    // The reclaim policy is Delete: the volume goes with its claim.
    let name = volume.metadata.name.expect("a name");
    cluster.clear().await;
    until("the end of the volume", 60, async || {
        cluster.all::<PersistentVolume>().get_opt(&name).await.expect("volumes").is_none().then_some(())
    })
    .await;
}

/// A claim that cannot be provisioned says in its Events what is wrong and what to do, whoever made the mistake.
pub async fn says_why_not(cluster: &Cluster) {
    let (open, private) = (&cluster.registries.open.host, &cluster.registries.private);
    let (guarded, _) = private.push(&Files::default().with("motd", "private\n"), "team/guarded:1");
    let absent = format!("{open}/nothing/here:1");
    let mistakes: [(&str, Value, &[&str]); 5] = [
        (
            "unknown",
            json!({"image": format!("{open}/claimed:1"), "colour": "red"}),
            &["parameters of the StorageClass", "\"colour\" is not known; known are"],
        ),
        (
            "malformed",
            json!({"image": "busybox:1.36"}),
            &["`image`", "does not name its registry", "docker.io/library/busybox:1.36"],
        ),
        ("nameless", json!({}), &["no image is given; set the parameter `image`"]),
        ("absent", json!({"image": absent}), &[&absent, "was not found; check the name"]),
        (
            "guarded",
            json!({"image": guarded}),
            &[&guarded, "denied access", "no credentials were sent", "provisioner-secret-name"],
        ),
    ];
    for (name, parameters, _) in &mistakes {
        let class = format!("composefs-csi-e2e-{name}");
        cluster.class(&class, parameters.clone()).await;
        cluster.claim(name, &class).await;
    }
    for (name, _, parts) in mistakes {
        let event = cluster.event(name, "ProvisioningFailed").await;
        for part in parts {
            assert!(event.contains(part), "claim {name}: {part:?} is missing in {event:?}");
        }
    }
}

impl Cluster {
    /// Creates a StorageClass of this driver.
    pub async fn class(&self, name: &str, parameters: Value) {
        self.create(&self.all::<StorageClass>(), objects::class(name, &parameters)).await;
    }

    /// Creates a claim.
    pub async fn claim(&self, name: &str, class: &str) {
        let object = objects::claim_of_class(name, class);
        self.create(&self.api::<PersistentVolumeClaim>(), object).await;
    }

    /// Waits until a claim is bound; returns its volume.
    pub async fn bound(&self, name: &str) -> PersistentVolume {
        let volume = until(&format!("a volume for claim {name}"), 120, async || {
            let claim = self.api::<PersistentVolumeClaim>().get(name).await.expect("the claim");
            let bound = claim.status?.phase? == "Bound";
            if bound { claim.spec?.volume_name } else { None }
        })
        .await;
        self.all::<PersistentVolume>().get(&volume).await.expect("the volume")
    }
}
