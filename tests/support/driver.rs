//! The real program as a node plugin: its own state directory on the real disk, real mounts, a kubelet's
//! directory, and a CSI client. Whatever a test leaves mounted goes with it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use composefs_csi::csi::proto::identity_client::IdentityClient;
use composefs_csi::csi::proto::node_client::NodeClient;
use composefs_csi::csi::proto::volume_capability::access_mode::Mode;
use composefs_csi::csi::proto::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest, ProbeRequest};
use tonic::transport::Channel;

use super::csi::{capability, try_connect};
use super::registry::Running;

/// Arguments that commands do not know, each with its value behind an equals sign.
const OF_THE_RUN_MODE: [&str; 13] = [
    "--follow-interval",
    "--layout-dir",
    "--pull-wait",
    "--pull-grace",
    "--require-composefs-digest",
    "--integrity",
    "--gc-",
    "--kubernetes-events",
    "--kubeconfig",
    "--image-prefetch",
    "--stat-ahead",
    "--writable-max-size",
    "--writable-max-disk-size",
];

/// A node's directories. Lives through restarts of the plugin.
#[derive(Debug)]
pub struct Machine {
    directory: tempfile::TempDir,
    arguments: Vec<String>,
    /// The plugin's, besides this process's own.
    environment: Vec<(String, String)>,
}

/// A running plugin.
#[derive(Debug)]
pub struct Plugin {
    /// The process; dropped, it is killed.
    pub process: Running,
    /// Its Node service.
    pub node: NodeClient<Channel>,
}

/// The program under test: this build's, or the one that `COMPOSEFS_CSI_TEST_PROGRAM` names.
fn program() -> PathBuf {
    let other = std::env::var_os("COMPOSEFS_CSI_TEST_PROGRAM");
    other.map_or_else(|| env!("CARGO_BIN_EXE_composefs-csi").into(), PathBuf::from)
}

impl Machine {
    /// A fresh node. `arguments` are the plugin's, besides those that every test needs.
    pub fn new(arguments: &[&str]) -> Self {
        // Not below /tmp, which may be a tmpfs: EROFS mounts no file from there.
        let directory =
            tempfile::Builder::new().prefix("composefs-csi-").tempdir_in("/var/tmp").expect("/var/tmp");
        std::fs::create_dir_all(directory.path().join("kubelet/pods")).expect("a directory");
        let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
        Self { directory, arguments, environment: Vec::new() }
    }

    /// From now on the plugin is started with these variables.
    pub fn set_environment(&mut self, variables: &[(&str, &str)]) {
        self.environment = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    }

    /// From now on with this argument as well.
    pub fn also(&mut self, argument: &str) {
        self.arguments.push(argument.to_owned());
    }

    /// From now on with another argument in the place of one.
    pub fn replace(&mut self, argument: &str, other: &str) {
        let at = self.arguments.iter().position(|known| known == argument);
        self.arguments[at.expect("an argument of this node")] = other.to_owned();
    }

    /// Everything of this node is below.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The plugin's state directory.
    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// The program on this node's state, with the arguments of the test.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.arg("--state-dir").arg(self.state()).args(arguments).args(self.trust()).args(
            // Those of the run mode are not for commands.
            self.arguments.iter().filter(|a| !OF_THE_RUN_MODE.iter().any(|flag| a.starts_with(flag))),
        );
        command
    }

    /// Nothing is mounted without a policy. A test that has none of its own is not about trust.
    fn trust(&self) -> &'static [&'static str] {
        let about = ["--policy", "--without-policy", "--verifier-dir"];
        let own = self.arguments.iter().any(|a| about.iter().any(|flag| a.starts_with(flag)));
        if own { &[] } else { &["--without-policy", "accept"] }
    }

    /// Runs a command to its end and returns what it printed as JSON.
    pub fn run(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.command(arguments).args(["--output", "json"]).output().expect("the program");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} failed: {complaint}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}"))
    }

    /// Starts the plugin and waits until it is ready.
    pub async fn start(&self) -> Plugin {
        let process = self.spawn_by(&[]);
        self.plugin(process, true).await
    }

    /// Starts the plugin and waits until it answers.
    pub async fn start_unready(&self) -> Plugin {
        let process = self.spawn_by(&[]);
        self.plugin(process, false).await
    }

    /// Starts the plugin by a program that runs the one in its arguments, such as unshare(1), and waits until it is ready.
    pub async fn start_by(&self, wrapper: &[String]) -> Plugin {
        let process = self.spawn_by(wrapper);
        self.plugin(process, true).await
    }

    async fn plugin(&self, process: Running, ready: bool) -> Plugin {
        let channel = self.connect(&self.path().join("csi.sock"), ready).await;
        Plugin { process, node: NodeClient::new(channel) }
    }

    /// The same without waiting.
    pub fn spawn_by(&self, wrapper: &[String]) -> Running {
        let socket = self.path().join("csi.sock");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path().join("log"))
            .expect("a log");
        let program = program();
        let mut words = wrapper.iter().map(OsStr::new).chain([program.as_os_str()]);
        let child = Command::new(words.next().expect("a program"))
            .args(words)
            .arg("node")
            .arg("--state-dir")
            .arg(self.state())
            .arg("--kubelet-dir")
            .arg(self.path().join("kubelet"))
            .arg(format!("--endpoint=unix://{}", socket.display()))
            .args(["--node-id", "node-1"])
            .args(self.trust())
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the plugin starts");
        Running(child)
    }

    async fn connect(&self, socket: &Path, ready: bool) -> Channel {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            if let Ok(channel) = try_connect(socket).await {
                let probed = IdentityClient::new(channel.clone()).probe(ProbeRequest {}).await;
                if probed.is_ok_and(|answer| !ready || answer.into_inner().ready == Some(true)) {
                    return channel;
                }
            }
            assert!(Instant::now() < deadline, "the plugin is not ready:\n{}", self.log_tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the plugin has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    /// Its last lines, each as far as it says something.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<String> = log.lines().map(|line| line.chars().take(300).collect()).collect();
        format!("the plugin's log ends with\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
    }

    /// Where kubelet wants a pod's volume.
    pub fn target(&self, pod: &str) -> PathBuf {
        let volumes = self.path().join("kubelet/pods").join(pod).join("volumes/kubernetes.io~csi/image");
        std::fs::create_dir_all(&volumes).expect("kubelet makes the parent");
        volumes.join("mount")
    }

    /// An inline volume of a pod.
    pub fn publish(&self, pod: &str, image: &str) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: format!("csi-{pod}"),
            target_path: self.target(pod).display().to_string(),
            volume_capability: Some(capability(Mode::SingleNodeWriter)),
            volume_context: HashMap::from([
                ("csi.storage.k8s.io/ephemeral".to_owned(), "true".to_owned()),
                ("csi.storage.k8s.io/pod.name".to_owned(), pod.to_owned()),
                ("csi.storage.k8s.io/pod.uid".to_owned(), pod.to_owned()),
                ("image".to_owned(), image.to_owned()),
            ]),
            readonly: true,
            ..NodePublishVolumeRequest::default()
        }
    }

    /// The end of it.
    pub fn unpublish(&self, pod: &str) -> NodeUnpublishVolumeRequest {
        NodeUnpublishVolumeRequest {
            volume_id: format!("csi-{pod}"),
            target_path: self.target(pod).display().to_string(),
        }
    }

    /// The mount points below this node's directories, base mounts and their parent left out.
    pub fn published(&self) -> Vec<PathBuf> {
        let pods = self.path().join("kubelet/pods");
        mounts_below(&pods)
    }

    /// Nothing of any volume is left: no mount, no target, no record, no base mount.
    pub fn assert_nothing_published(&self) {
        assert_eq!(self.published(), Vec::<PathBuf>::new());
        let bases = mounts_below(&self.state().join("mounts/"));
        assert_eq!(bases, Vec::<PathBuf>::new(), "base mounts");
        for pod in std::fs::read_dir(self.path().join("kubelet/pods")).expect("pods") {
            let target = pod.expect("a pod").path().join("volumes/kubernetes.io~csi/image/mount");
            assert!(!target.exists(), "{}", target.display());
        }
        let records = std::fs::read_dir(self.state().join("store/volumes")).expect("records");
        let records: Vec<_> =
            records.map(|r| r.expect("a record").file_name()).filter(|name| name != "boot").collect();
        assert!(records.is_empty(), "{records:?}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The deepest first. A failing test must not leave its mounts to the next one.
        let mut left = mounts_below(self.path());
        left.reverse();
        for point in left {
            let _ = rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH);
        }
        if std::thread::panicking() {
            eprintln!("the plugin's log:\n{}", self.log());
        }
    }
}

/// Mount points strictly below `directory`, in the order of the mount table.
pub fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(directory) && point != directory).collect()
}

/// A program that runs another as root with the capabilities that the manifests give the plugin, and `more`.
pub fn with_the_charts_rights(more: &[&str]) -> Vec<String> {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/composefs-csi.yaml");
    let text = std::fs::read_to_string(manifests).expect("the manifests");
    let list =
        text.split_once("add: [SYS_ADMIN").and_then(|(_, list)| list.split_once(']')).expect("a list").0;
    let rights =
        std::iter::once("SYS_ADMIN").chain(list.split(',').map(str::trim)).chain(more.iter().copied());
    let rights = rights.filter(|right| !right.is_empty()).map(|right| format!(",+{}", right.to_lowercase()));
    vec!["setpriv".to_owned(), format!("--bounding-set=-all{}", rights.collect::<String>())]
}
