//! The driver as helm installs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::CSINode;
use kube::Api;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use crate::cluster::{Cluster, program, until};
use crate::support::registry::run;

pub use crate::objects::DRIVER as NAME;

/// The release's namespace.
pub const NAMESPACE: &str = "composefs-csi";
/// The release's name, which is also the chart's: its objects' names begin with it.
pub const RELEASE: &str = "composefs-csi";

/// The chart's directory.
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/composefs-csi")
}

impl Cluster {
    /// Installs or upgrades the release and waits until it is rolled out. `extra` are helm's own arguments.
    pub fn helm_upgrade(&self, extra: &[&str]) {
        let mut command = self.helm("upgrade");
        command.args(["--install", "--create-namespace", "--wait", "--timeout", "4m", RELEASE]).arg(chart());
        run(command.args(self.chart_values()).args(extra));
    }

    /// Removes the release.
    pub fn helm_uninstall(&self) {
        run(self.helm("uninstall").args([RELEASE, "--ignore-not-found", "--wait", "--timeout", "3m"]));
    }

    /// helm with a command, for this cluster and the driver's namespace.
    pub fn helm(&self, command: &str) -> Command {
        let mut helm = Command::new(program("helm"));
        helm.arg(command).arg("--kubeconfig").arg(&self.settings.kubeconfig);
        helm.args(["--namespace", NAMESPACE]);
        helm
    }

    /// The values of this suite, as helm's arguments.
    pub fn chart_values(&self) -> Vec<String> {
        let (repository, tag) = self.settings.driver_image.rsplit_once(':').expect("REPOSITORY:TAG");
        let mut arguments = vec![
            "--set-json".into(),
            format!("registries.insecure={}", json!(self.registries.hosts())),
            "--set-json".into(),
            format!("image={}", json!({"repository": repository, "tag": tag})),
            "--set-json".into(),
            format!("policy={}", self.signer.policy(&self.registries)),
            "--set-json".into(),
            // Secrets of the suite's namespace, for claims on a private registry.
            format!("controller.secrets.namespaces={}", json!([crate::cluster::NAMESPACE])),
        ];
        if let Some(file) = &self.settings.values {
            arguments.extend(["--values".into(), file.to_string_lossy().into_owned()]);
        }
        arguments
    }

    /// The node plugin's pods.
    pub async fn node_plugins(&self) -> Vec<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let which = ListParams::default().labels("app.kubernetes.io/component=node");
        pods.list(&which).await.expect("the driver's pods").items
    }

    /// The node plugin's pods by name and unique id, in no order that means anything.
    pub async fn node_plugin_ids(&self) -> Vec<String> {
        self.node_plugins().await.iter().map(|pod| pod.uid().unwrap_or_default()).collect()
    }

    /// Waits until the node plugin runs on every node, kubelet knows it, and the controller runs.
    pub async fn driver_ready(&self) {
        let sets: Api<DaemonSet> = Api::namespaced(self.client.clone(), NAMESPACE);
        let controllers: Api<Deployment> = Api::namespaced(self.client.clone(), NAMESPACE);
        until("the driver on every node", 180, async || {
            let set = sets.get(&format!("{RELEASE}-node")).await.expect("the DaemonSet");
            let status = set.status?;
            let all = status.desired_number_scheduled;
            let ready = status.number_ready == all && status.updated_number_scheduled == Some(all);
            (ready && all > 0 && status.observed_generation == set.metadata.generation).then_some(())
        })
        .await;
        until("the driver's controller", 180, async || {
            let deployment = controllers.get(&format!("{RELEASE}-controller")).await.expect("the Deployment");
            let ready = deployment.status?.ready_replicas?;
            (ready > 0).then_some(())
        })
        .await;
        until("the driver in every CSINode", 60, async || self.registered().await.then_some(())).await;
    }

    /// Runs a command of the program in a node plugin's container; what it printed, or why it failed.
    pub fn in_plugin(&self, plugin: &str, arguments: &[&str]) -> Result<String, String> {
        let before = ["--namespace", NAMESPACE, "exec", plugin, "-c", "driver", "--", "composefs-csi"];
        self.try_kubectl_anywhere(&[&before[..], arguments].concat())
    }

    /// Kills every node plugin without notice, and waits for the next ones.
    pub async fn kill_node_plugins(&self) {
        let before = self.node_plugin_ids().await;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        for pod in self.node_plugins().await {
            let now = DeleteParams::default().grace_period(0);
            pods.delete(&pod.name_any(), &now).await.expect("the driver's pod is killed");
        }
        until("another node plugin", 60, async || {
            let now = self.node_plugin_ids().await;
            (!now.is_empty() && now.iter().all(|id| !before.contains(id))).then_some(())
        })
        .await;
        self.driver_ready().await;
    }

    /// Takes back the last change of the release.
    pub async fn helm_rollback(&self) {
        run(self.helm("rollback").args([RELEASE, "--wait", "--timeout", "4m"]));
        self.driver_ready().await;
    }

    /// Whether kubelet has registered the driver on every node.
    pub async fn registered(&self) -> bool {
        let nodes = self.all::<CSINode>().list(&ListParams::default()).await.expect("CSINodes");
        nodes.iter().all(|node| node.spec.drivers.iter().any(|driver| driver.name == NAME))
    }

    /// Whether any kubelet still knows the driver.
    pub async fn any_registered(&self) -> bool {
        let nodes = self.all::<CSINode>().list(&ListParams::default()).await.expect("CSINodes");
        nodes.iter().any(|node| node.spec.drivers.iter().any(|driver| driver.name == NAME))
    }

    /// The sum of a metric over all node plugins. `series` is its name with all of its labels, or the beginning.
    pub async fn metric(&self, series: &str) -> f64 {
        let mut sum = 0.0;
        for pod in self.node_plugins().await {
            let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{}:9809/proxy/metrics", pod.name_any());
            let text = self.kubectl(&["get", "--raw", &path]);
            let values = text.lines().filter(|line| line.starts_with(series));
            let values = values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
            sum += values.sum::<f64>();
        }
        sum
    }
}
