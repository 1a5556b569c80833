//! The plugin in a mount namespace of its own, as in a container.

use std::time::{Duration, Instant};

use crate::support::archive::archive;
use crate::support::driver::Machine;
use crate::support::images::{Image, Layout};

/// As a container runtime does it: a mount namespace, and the directory of kubelet's volumes as a mount in it, with this
/// propagation of its own.
fn container(machine: &Machine, propagation: &str) -> Vec<String> {
    let pods = machine.path().join("kubelet/pods").display().to_string();
    let make = format!(
        "mount --bind {pods} {pods} && mount --make-shared {pods} && mount --make-{propagation} {pods}"
    );
    let script = format!("{make} && exec \"$@\"");
    ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
}

#[test]
fn a_plugin_whose_mounts_nobody_sees_does_not_serve() {
    for propagation in ["private", "slave"] {
        let machine = Machine::new(&[]);
        let mut process = machine.spawn_by(&container(&machine, propagation));
        let deadline = Instant::now() + Duration::from_secs(120);
        let status = loop {
            if let Some(status) = process.0.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it goes on, and says:\n{}", machine.log());
            std::thread::sleep(Duration::from_millis(50));
        };
        let log = machine.log();
        assert_eq!(status.code(), Some(1), "{log}");
        let pods = machine.path().join("kubelet/pods");
        let message = format!("mounts below {} stay in this container", pods.display());
        assert!(log.contains(&message) && log.contains("`mountPropagation: Bidirectional`"), "{log}");
        assert!(!log.contains("serving volumes"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_whose_mounts_are_shared_serves() {
    let layout = Layout::of(&Image::new(vec![archive(&[("a", b"text")])]));
    let machine = Machine::new(&[&format!("--layout-dir={}", layout.path().display())]);
    let mut plugin = machine.start_by(&container(&machine, "shared")).await;
    let published = plugin.node.node_publish_volume(machine.publish("a", &layout.reference("latest"))).await;
    published.unwrap();
}
