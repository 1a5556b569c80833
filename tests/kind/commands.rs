//! What an operator types: commands in the plugin's container, and `helm test`.

use crate::cluster::Cluster;
use crate::driver;
use crate::images::Files;
use kube::ResourceExt as _;

/// `kubectl exec` gives a command the container's environment and nothing else; with that it must know the plugin's
/// registries, policy and store.
pub async fn know_the_settings(cluster: &Cluster) {
    let registry = &cluster.registries.open;
    let files = Files::default().with("motd", "by command\n");
    let (image, digest) = registry.push(&files, "commands:1");
    let (unsigned, _) = registry.push(&files, "signed/commands:1");
    let plugin = cluster.node_plugins().await.into_iter().next().expect("a node plugin").name_any();
    let exec = |arguments: &[&str]| cluster.in_plugin(&plugin, arguments);
    let says = |arguments: &[&str]| exec(arguments).unwrap_or_else(|said| panic!("{arguments:?}: {said}"));
    let explained = says(&["policy", "check", &image]);
    assert!(explained.contains("/etc/composefs-csi/policy/policy.json"), "{explained}");
    let refused = exec(&["policy", "check", &unsigned]).expect_err("an image without a signature");
    assert!(refused.contains("is not admitted"), "{refused}");
    says(&["pull", &image]);
    let listed = says(&["--output", "json", "ls"]);
    assert!(listed.contains(&digest.to_string()), "{listed}");
    for command in ["inspect", "digest", "verify", "pin", "unpin"] {
        says(&[command, &image]);
    }
    for command in [&["probe"][..], &["status"], &["pulls"], &["prune", "--dry-run"]] {
        says(command);
    }
}

/// The test of the release passes where its image may be mounted. Only the test is another then: no pod of the driver
/// is replaced.
pub async fn test_of_the_release(cluster: &Cluster) {
    let (image, _) = cluster.registries.open.push(&Files::default().with("motd", "tested\n"), "tested:1");
    let before = cluster.node_plugin_ids().await;
    cluster.helm_upgrade(&["--set", &format!("helmTest.image={image}")]);
    crate::support::registry::run(cluster.helm("test").args([driver::RELEASE, "--timeout", "3m"]));
    assert_eq!(cluster.node_plugin_ids().await, before, "helmTest.image has replaced pods of the driver");
}
