//! What the driver may do: as installed next to nothing, and by request no more than what was requested.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::cluster::{Cluster, NAMESPACE, until};
use crate::driver::{self, RELEASE};
use crate::images::Files;
use crate::objects;
use crate::pods::{Reader, claim, inline};

const SECRET: &str = "pull-secret";
/// The startup taint that nodes are made with.
const TAINT: &str = "csi.composefs.dev/agent-not-ready";

/// A privileged pod is the more dangerous the more its account may do: the node plugin may write Events on pods. The
/// controller's may do what external-provisioner does, and read the Secrets of the one namespace that it was told.
pub fn least(cluster: &Cluster) {
    let everywhere = "--all-namespaces";
    assert!(cluster.may("node", "create", "events", everywhere), "the node plugin may write no Events");
    for what in ["secrets", "pods", "nodes", "serviceaccounts", "configmaps", "persistentvolumes"] {
        for verb in ["get", "list", "create", "patch", "delete"] {
            assert!(!cluster.may("node", verb, what, everywhere), "the node plugin may {verb} {what}");
        }
    }
    let own = format!("--namespace={NAMESPACE}");
    for (verb, what, place) in [("create", "persistentvolumes", everywhere), ("get", "secrets", &own)] {
        assert!(cluster.may("controller", verb, what, place), "the controller may not {verb} {what}");
    }
    for (verb, what, place) in [
        ("get", "secrets", everywhere),
        ("get", "secrets", "--namespace=kube-system"),
        ("list", "secrets", &own),
        ("update", "persistentvolumes", everywhere),
        ("delete", "persistentvolumeclaims", everywhere),
        ("create", "pods", everywhere),
        ("list", "nodes", everywhere),
        ("get", "leases/another-driver", "--namespace=composefs-csi"),
    ] {
        assert!(!cluster.may("controller", verb, what, place), "the controller may {verb} {what} {place}");
    }
}

/// The startup taint goes, pull secrets of pods and ServiceAccounts are found, and one of two controllers is enough.
pub async fn by_request(cluster: &Cluster) {
    let node = cluster.inspect().await;
    cluster.kubectl(&["taint", "nodes", &node, &format!("{TAINT}=:NoSchedule")]);
    let namespaces = format!("pullSecrets.namespaces={{{NAMESPACE}}}");
    let values =
        ["startupTaint.enabled=true", "pullSecrets.enabled=true", &namespaces, "controller.replicas=2"];
    // The controller's new pods can start only when the node plugin has removed the taint.
    cluster.helm_upgrade(&values.map(|value| ["--set", value]).concat());
    cluster.driver_ready().await;
    until("the end of the startup taint", 60, async || {
        let node = cluster.all::<Node>().get(&node).await.expect("the node");
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        (!taints.iter().any(|taint| taint.key == TAINT)).then_some(())
    })
    .await;

    assert!(cluster.may("node", "get", "secrets", &format!("--namespace={NAMESPACE}")));
    assert!(!cluster.may("node", "list", "secrets", &format!("--namespace={NAMESPACE}")));
    assert!(!cluster.may("node", "get", "secrets", "--namespace=kube-system"));
    pull_secrets(cluster).await;
    another_controller(cluster).await;

    cluster.helm_rollback().await;
    cluster.clear().await;
}

/// The volume names no Secret: what the pod or its ServiceAccount has for the images of containers serves it.
async fn pull_secrets(cluster: &Cluster) {
    let registry = &cluster.registries.private;
    let (image, digest) = registry.push(&Files::default().with("motd", "by pull secret\n"), "team/pulled:1");
    cluster.secret(SECRET, crate::registry::USER.1).await;
    cluster.create(&cluster.api::<ServiceAccount>(), objects::account("puller", SECRET)).await;
    // A volume of a claim is staged before anybody knows the pod. The class has no Secret, and none is needed to
    // provision an image by its digest.
    cluster.class("composefs-csi-e2e-pulled", json!({"image": format!("{image}@{digest}")})).await;
    cluster.claim("pulled", "composefs-csi-e2e-pulled").await;
    let submit = async |name: &str, changes: Value| {
        let own = inline(json!({"image": image, "pullPolicy": "Always"}));
        let volume = if name.ends_with("claim") { claim("pulled") } else { own };
        let mut pod = Reader::new(name, volume).manifest(cluster);
        for (field, value) in changes.as_object().expect("fields") {
            pod["spec"][field] = value.clone();
        }
        cluster.create(&cluster.api::<Pod>(), pod).await;
    };
    submit("pull-secret-none", json!({})).await;
    submit("pull-secret-claim", json!({"imagePullSecrets": [{"name": SECRET}]})).await;
    submit("pull-secret-pod", json!({"imagePullSecrets": [{"name": SECRET}]})).await;
    submit("pull-secret-account", json!({"serviceAccountName": "puller"})).await;
    for pod in ["pull-secret-claim", "pull-secret-pod", "pull-secret-account"] {
        cluster.running(pod).await;
        assert_eq!(cluster.sh(pod, "cat /content/motd"), "by pull secret");
    }
    let event = cluster.event("pull-secret-none", "FailedMount").await;
    assert!(event.contains("team/pulled"), "{event}");
    cluster.api::<ServiceAccount>().delete("puller", &DeleteParams::default()).await.expect("the account");
}

/// The one that leads is killed; the other takes its lease and provisions.
async fn another_controller(cluster: &Cluster) {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), driver::NAMESPACE);
    let leader = async || {
        let lease = leases.get_opt(&driver::NAME.replace('.', "-")).await.expect("leases are readable")?;
        lease.spec?.holder_identity.filter(|holder| !holder.is_empty())
    };
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), driver::NAMESPACE);
    let first = until("a controller that leads", 60, leader).await;
    let now = DeleteParams::default().grace_period(0);
    let pod = pods.get(&first).await.expect("the lease names a pod");
    pods.delete(&pod.name_any(), &now).await.expect("the leader is killed");
    let (image, _) = cluster.registries.open.push(&Files::default().with("motd", "led\n"), "led:1");
    cluster.class("composefs-csi-e2e-led", json!({"image": image})).await;
    cluster.claim("led", "composefs-csi-e2e-led").await;
    cluster.bound("led").await;
    let second = until("another controller that leads", 60, leader).await;
    assert_ne!(first, second);
    cluster.start(&Reader::new("led", claim("led"))).await;
    assert_eq!(cluster.sh("led", "cat /content/motd"), "led");
}

impl Cluster {
    /// Whether the driver's account for a component may do something, by the API server's own word.
    fn may(&self, component: &str, verb: &str, what: &str, place: &str) -> bool {
        let account = format!("system:serviceaccount:{}:{RELEASE}-{component}", driver::NAMESPACE);
        // kubectl ends with a failure for "no".
        let question = ["auth", "can-i", verb, what, place, "--as", &account];
        self.try_kubectl_anywhere(&question).is_ok_and(|answer| answer.trim() == "yes")
    }
}
