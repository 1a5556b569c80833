//! The plugin with only the chart's mounts visible, as in its container: what it concludes from paths that it cannot see.
//! Needs root.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use composefs_csi::csi::proto::identity_client::IdentityClient;
use composefs_csi::csi::proto::node_client::NodeClient;
use composefs_csi::csi::proto::{NodeStageVolumeRequest, NodeUnstageVolumeRequest, ProbeRequest};
use serde_json::Value;

use crate::support::archive::archive;
use crate::support::chart::{documents, items, only, repository, text};
use crate::support::csi::try_connect;
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};
use crate::support::registry::{Options, Registry, Running};

const STAGING: &str = "staging";

/// What a container runtime does: a root of its own with what every program needs, the program, and mounts. Its
/// arguments: the root, the program, a file with the commands that mount, and the program's arguments.
const CONTAINER: &str = r#"
set -e
root=$1 program=$2 mounts=$3
shift 3
mount --make-private /
mkdir -p "$root"
mount -t tmpfs root "$root"
for name in bin lib lib64 sbin; do [ ! -L /$name ] || cp -a /$name "$root/"; done
for name in usr bin lib lib64 sbin etc dev proc; do
    [ ! -d /$name ] || [ -L /$name ] || { mkdir "$root/$name"; mount --rbind /$name "$root/$name"; }
done
. "$mounts"
: > "$root/program"
mount --bind "$program" "$root/program"
mkdir "$root/old"
cd "$root"
pivot_root . old
mount --make-rslave /old
umount -l /old
exec /program "$@"
"#;

/// A node as the chart of `manifests/` sees it.
struct Node {
    machine: Machine,
    registry: Registry,
    /// Volumes that the container has, by the chart or by an older one.
    without: &'static str,
}

impl Node {
    fn new(without: &'static str) -> Self {
        let machine = Machine::new(&[]);
        let pods = machine.path().join("kubelet/pods");
        // A node's directories are shared, which this machine's need not be.
        for arguments in [["--bind", pods.to_str().unwrap()], ["--make-shared", ""]] {
            let [how, from] = arguments;
            let arguments = [how, from].into_iter().filter(|argument| !argument.is_empty());
            assert!(Command::new("mount").args(arguments).arg(&pods).status().unwrap().success());
        }
        Self { machine, registry: Registry::start(Options::default()), without }
    }

    /// Where a path of the chart is on this machine.
    fn place(&self, path: &str) -> PathBuf {
        let (kubelet, state) = (self.machine.path().join("kubelet"), self.machine.state());
        for (prefix, place) in [("/var/lib/kubelet", kubelet), ("/var/lib/composefs-csi", state)] {
            if let Some(rest) = path.strip_prefix(prefix) {
                return place.join(rest.trim_start_matches('/'));
            }
        }
        PathBuf::from(path)
    }

    /// The commands that mount the driver's volumes of the host below `$root`.
    fn mounts(&self) -> String {
        let manifests = std::fs::read_to_string(repository().join("manifests/composefs-csi.yaml")).unwrap();
        let objects = documents(&manifests);
        let pod = &only(&objects, "DaemonSet", "-node")["spec"]["template"]["spec"];
        let driver =
            items(pod, "/containers").iter().find(|container| container["name"] == "driver").unwrap();
        let mut commands = String::new();
        for mount in items(driver, "/volumeMounts") {
            let volume: &Value =
                items(pod, "/volumes").iter().find(|volume| volume["name"] == mount["name"]).unwrap();
            let Some(from) = volume.pointer("/hostPath/path").and_then(Value::as_str) else { continue };
            if text(mount, "/name") == self.without {
                continue;
            }
            let (from, to) = (self.place(from), self.place(text(mount, "/mountPath")));
            // As kubelet does for DirectoryOrCreate.
            std::fs::create_dir_all(&from).unwrap();
            let (from, to) = (from.display(), to.display());
            commands += &format!("mkdir -p \"$root{to}\"\nmount --rbind {from} \"$root{to}\"\n");
            commands += &match text(mount, "/mountPropagation") {
                "Bidirectional" => String::new(),
                _ => format!("mount --make-rprivate \"$root{to}\"\n"),
            };
            if mount["readOnly"] == true {
                commands += &format!("mount -o remount,bind,ro \"$root{to}\"\n");
            }
        }
        commands
    }

    async fn start(&self) -> Plugin {
        let path = self.machine.path();
        let mounts = path.join("mounts");
        std::fs::write(&mounts, self.mounts()).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path.join("log")).unwrap();
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "unchanged", "sh", "-c", CONTAINER, "sh"])
            .args([&path.join("root"), Path::new(env!("CARGO_BIN_EXE_composefs-csi")), &mounts])
            .args(["node", "--node-id=node-1", "--endpoint=unix:///csi/csi.sock", "--without-policy=accept"])
            .arg(format!("--insecure-registry={}", self.registry.host()))
            .arg(format!("--state-dir={}", self.machine.state().display()))
            .arg(format!("--kubelet-dir={}", path.join("kubelet").display()))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let process = Running(child);
        let socket = self.place("/var/lib/kubelet/plugins/csi.composefs.dev/csi.sock");
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            if let Ok(channel) = try_connect(&socket).await {
                let probed = IdentityClient::new(channel.clone()).probe(ProbeRequest {}).await;
                if probed.is_ok_and(|answer| answer.into_inner().ready == Some(true)) {
                    return Plugin { process, node: NodeClient::new(channel) };
                }
            }
            assert!(Instant::now() < deadline, "the plugin is not ready:\n{}", self.machine.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Another plugin, which puts the records in order before it is ready.
    async fn restart(&self, mut plugin: Plugin) -> Plugin {
        plugin.process.0.kill().unwrap();
        plugin.process.0.wait().unwrap();
        self.start().await
    }

    fn image(&self) -> String {
        format!("{}/team/app:latest", self.registry.host())
    }

    fn push(&self, content: &str) {
        let layout = Layout::of(&Image::new(vec![archive(&[("file", content.as_bytes())])]));
        self.registry.push(&layout.reference("latest"), "team/app:latest", &[]);
    }

    fn staging(&self) -> PathBuf {
        self.place("/var/lib/kubelet/plugins/kubernetes.io/csi/csi.composefs.dev/0123abcd/globalmount")
    }

    /// What a pod sees of a volume that is staged.
    async fn shown(&self, plugin: &Plugin) -> String {
        plugin.node.clone().node_publish_volume(self.machine.publish("a", &self.image())).await.unwrap();
        let shown = std::fs::read_to_string(self.machine.target("a").join("file")).unwrap();
        plugin.node.clone().node_unpublish_volume(self.machine.unpublish("a")).await.unwrap();
        shown
    }

    async fn stage(&self, plugin: &Plugin) {
        std::fs::create_dir_all(self.staging()).unwrap();
        let published = self.machine.publish("a", &self.image());
        let request = NodeStageVolumeRequest {
            volume_id: published.volume_id,
            staging_target_path: self.staging().display().to_string(),
            volume_capability: published.volume_capability,
            volume_context: published.volume_context,
            ..NodeStageVolumeRequest::default()
        };
        plugin.node.clone().node_stage_volume(request).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_staged_volume_stays_what_it_is_until_its_directories_go() {
    let node = Node::new("");
    node.push("one");
    let plugin = node.start().await;
    node.stage(&plugin).await;
    node.push("two");
    assert_eq!(node.shown(&plugin).await, "one");
    let plugin = node.restart(plugin).await;
    assert_eq!(node.shown(&plugin).await, "one", "{}", node.machine.log());
    // Kubelet has forgotten the volume, and never unstages it.
    std::fs::remove_dir_all(node.staging().parent().unwrap()).unwrap();
    let plugin = node.restart(plugin).await;
    node.machine.assert_nothing_published();
    assert_eq!(node.shown(&plugin).await, "two");
    node.machine.assert_nothing_published();
}

/// The manifests of an earlier release, and kubelets that stage elsewhere (before Kubernetes 1.24).
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_seen_is_not_taken_for_gone() {
    let node = Node::new(STAGING);
    node.push("one");
    let plugin = node.start().await;
    node.stage(&plugin).await;
    node.push("two");
    let plugin = node.restart(plugin).await;
    assert_eq!(node.shown(&plugin).await, "one", "{}", node.machine.log());
    let volume_id = node.machine.unpublish("a").volume_id;
    let staging_target_path = node.staging().display().to_string();
    let request = NodeUnstageVolumeRequest { volume_id, staging_target_path };
    plugin.node.clone().node_unstage_volume(request).await.unwrap();
    node.machine.assert_nothing_published();
    assert_eq!(node.shown(&plugin).await, "two");
    node.machine.assert_nothing_published();
}
