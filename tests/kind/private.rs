//! A registry that asks for a password, which a Secret holds.

use base64::Engine as _;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

use crate::cluster::{Cluster, NAMESPACE};
use crate::images::Files;
use crate::objects;
use crate::pods::{Reader, claim, inline};
use crate::registry::USER;

const SECRET: &str = "registry-credentials";

/// With the Secret the pod reads; without it, or with another's password, its Events say what is missing. That
/// the image is on the node by then opens no door.
pub async fn needs_the_secret(cluster: &Cluster) {
    let registry = &cluster.registries.private;
    let (image, _) = registry.push(&Files::default().with("motd", "private\n"), "team/private:1");
    cluster.secret(SECRET, USER.1).await;
    cluster.secret("wrong-credentials", "a guess").await;
    let volume = |secret: Option<&str>| {
        // Asked for at each publish, so that an answer from the cache would be seen.
        let mut volume = inline(json!({"image": image, "pullPolicy": "Always"}));
        if let Some(name) = secret {
            volume["csi"]["nodePublishSecretRef"] = json!({"name": name});
        }
        volume
    };
    cluster.start(&Reader::new("private", volume(Some(SECRET)))).await;
    assert_eq!(cluster.sh("private", "cat /content/motd"), "private");
    for (name, secret, remedy) in [
        ("private-without", None, "no credentials were sent: give a secret"),
        ("private-wrong", Some("wrong-credentials"), "renew them in the secret"),
    ] {
        cluster.submit(&Reader::new(name, volume(secret))).await;
        let refusal = cluster.own_event(name, "Refused").await;
        for part in [&*image, "denied access", remedy] {
            assert!(refusal.contains(part), "{part:?} is missing in {refusal:?}");
        }
        let all = cluster.events(name).await;
        assert!(!all.iter().any(|event| event.contains("a guess")), "{all:?}");
    }
}

/// The provisioner's Secret serves the controller, those for staging and publishing the node.
pub async fn through_a_claim(cluster: &Cluster) {
    let registry = &cluster.registries.private;
    let (image, digest) = registry.push(&Files::default().with("motd", "claimed\n"), "team/claimed:1");
    cluster.secret(SECRET, USER.1).await;
    let mut parameters = json!({"image": image});
    for use_of in ["provisioner", "node-stage", "node-publish"] {
        parameters[format!("csi.storage.k8s.io/{use_of}-secret-name")] = json!(SECRET);
        parameters[format!("csi.storage.k8s.io/{use_of}-secret-namespace")] = json!(NAMESPACE);
    }
    cluster.class("composefs-csi-e2e-private", parameters).await;
    cluster.claim("private", "composefs-csi-e2e-private").await;
    let volume = cluster.bound("private").await;
    let attributes = volume.spec.and_then(|spec| spec.csi?.volume_attributes).expect("attributes");
    assert!(attributes["image"].ends_with(&digest.to_string()), "{attributes:?}");
    cluster.start(&Reader::new("private-claim", claim("private"))).await;
    assert_eq!(cluster.sh("private-claim", "cat /content/motd"), "claimed");
}

impl Cluster {
    /// Creates a Secret with a password for the private registry, as `kubectl create secret docker-registry` does.
    pub async fn secret(&self, name: &str, password: &str) {
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{}:{password}", USER.0));
        let object = objects::secret(name, &self.registries.private.host, &auth);
        self.create(&self.api::<Secret>(), object).await;
    }
}
