//! Pods that read a volume, and what they say.

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use crate::cluster::{Cluster, until};
use crate::objects;
pub use crate::objects::{claim, inline};

/// A pod with one volume at /content; it runs a shell command.
#[derive(Debug, Clone)]
pub struct Reader {
    /// Its name.
    pub name: String,
    /// The volume as in a pod's `volumes`, without its name.
    pub volume: Value,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// The node it must run on.
    pub node: Option<String>,
}

impl Reader {
    /// A pod that does nothing but wait to be asked.
    pub fn new(name: &str, volume: Value) -> Self {
        Self { name: name.into(), volume, command: vec!["sleep".into(), "1000000".into()], node: None }
    }

    /// The same with another command.
    pub fn running(self, command: &[&str]) -> Self {
        Self { command: command.iter().map(|word| (*word).to_owned()).collect(), ..self }
    }

    /// The same on a certain node.
    pub fn on(self, node: &str) -> Self {
        Self { node: Some(node.into()), ..self }
    }

    /// The pod's manifest.
    pub fn manifest(&self, cluster: &Cluster) -> Value {
        let image = &cluster.settings.tools_image;
        objects::reader(&self.name, image, &self.command, self.node.as_deref(), &self.volume)
    }
}

impl Cluster {
    /// Starts a pod and waits until it runs.
    pub async fn start(&self, reader: &Reader) {
        self.submit(reader).await;
        self.running(&reader.name).await;
    }

    /// Creates a pod and does not wait.
    pub async fn submit(&self, reader: &Reader) {
        self.create(&self.api::<Pod>(), reader.manifest(self)).await;
    }

    /// Waits until a pod runs.
    pub async fn running(&self, name: &str) {
        until(&format!("pod {name} running"), 120, async || {
            let pod = self.api::<Pod>().get(name).await.expect("the pod exists");
            let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
            assert_ne!(phase, "Failed", "pod {name} has failed: {}", self.kubectl(&["logs", name]));
            (phase == "Running").then_some(())
        })
        .await;
    }

    /// Runs a shell command in a pod and returns its output without the last line break.
    pub fn sh(&self, pod: &str, script: &str) -> String {
        self.kubectl(&["exec", pod, "--", "sh", "-c", script]).trim_end().to_owned()
    }

    /// The same for a command that must fail; returns what it said.
    pub fn sh_fails(&self, pod: &str, script: &str) -> String {
        let outcome = self.try_kubectl(&["exec", pod, "--", "sh", "-c", script]);
        outcome.expect_err("the command in the pod fails")
    }
}
