//! A look at a node from a privileged pod that sees all its processes.

use k8s_openapi::api::core::v1::Pod;

use crate::cluster::Cluster;
use crate::objects;

/// The pod's name.
pub const INSPECTOR: &str = "inspector";

impl Cluster {
    /// Starts the inspector on the node where the first node plugin runs; returns the node's name.
    pub async fn inspect(&self) -> String {
        let plugin = self.node_plugins().await.into_iter().next().expect("a node plugin");
        let node = plugin.spec.and_then(|spec| spec.node_name).expect("a node's name");
        let object = objects::inspector(INSPECTOR, &self.settings.tools_image, &node);
        self.create(&self.api::<Pod>(), object).await;
        self.running(INSPECTOR).await;
        node
    }

    /// The node's processes whose command line, with blanks between the words, begins with a text.
    pub fn processes(&self, beginning: &str) -> Vec<u32> {
        let script =
            "for d in /proc/[0-9]*; do echo \"${d#/proc/} $(tr '\\0' ' ' <$d/cmdline 2>/dev/null)\"; done";
        let list = self.sh(INSPECTOR, script);
        let matching = list.lines().filter_map(|line| line.split_once(' '));
        let matching = matching.filter(|(_, command)| command.starts_with(beginning));
        matching.filter_map(|(pid, _)| pid.parse().ok()).collect()
    }
}
