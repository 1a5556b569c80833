//! The node plugin as a separate process, and kubelet's side of its socket.

use std::collections::HashMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use composefs_csi::csi::proto::identity_client::IdentityClient;
use composefs_csi::csi::proto::node_client::NodeClient;
use composefs_csi::csi::proto::volume_capability::{AccessMode, AccessType, MountVolume, access_mode};
use composefs_csi::csi::proto::{
    NodePublishVolumeRequest, NodeUnpublishVolumeRequest, ProbeRequest, VolumeCapability,
};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

/// A running node plugin with everything it owns below one directory.
pub struct Node {
    child: Child,
    runtime: Runtime,
    client: NodeClient<Channel>,
    base: PathBuf,
}

/// A volume in a pod, as kubelet makes it from an inline CSI volume.
#[derive(Debug, Clone)]
pub struct Volume {
    pub pod: String,
    pub namespace: String,
    pub uid: String,
    pub image: String,
}

impl Volume {
    /// The volume of pod number `number` in the namespace `default`.
    pub fn new(pod: &str, number: u32, image: &str) -> Self {
        let uid = format!("00000000-0000-4000-8000-{number:012}");
        Self { pod: pod.to_owned(), namespace: "default".to_owned(), uid, image: image.to_owned() }
    }

    fn id(&self) -> String {
        let digits: String = self.uid.chars().filter(|c| *c != '-').collect();
        format!("csi-{digits:0>64}")
    }
}

impl Node {
    /// Starts `program` with its state, socket and kubelet directory below `base`; waits until it is ready.
    pub fn start(program: &Path, base: &Path, arguments: &[&str]) -> Result<Self> {
        let (socket, log) = (base.join("csi.sock"), base.join("plugin.log"));
        fs::create_dir_all(base.join("kubelet/pods"))?;
        let child = Command::new(program)
            .arg("node")
            .arg("--endpoint")
            .arg(format!("unix://{}", socket.display()))
            .args(["--node-id", "this-machine", "--kubelet-dir"])
            .arg(base.join("kubelet"))
            .arg("--state-dir")
            .arg(base.join("state"))
            // The images are made here. Signatures matter only if the arguments name a policy.
            .args(["--without-policy", "accept"])
            .args(arguments)
            // Ctrl-C must reach only this program, which ends the plugin when everything is unmounted.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}; run: make build", program.display()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display()))?;
        let channel = {
            let _inside = runtime.enter();
            endpoint.connect_lazy()
        };
        let client = NodeClient::new(channel.clone());
        let mut node = Self { child, runtime, client, base: base.to_owned() };
        node.wait_until_ready(channel)?;
        Ok(node)
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.base.join("state")
    }

    /// Where the volume appears.
    pub fn target(&self, volume: &Volume) -> PathBuf {
        let pod = self.base.join("kubelet/pods").join(&volume.uid);
        pod.join("volumes/kubernetes.io~csi/files/mount")
    }

    /// NodePublishVolume as kubelet calls it; returns the time until the answer.
    pub fn publish(&mut self, volume: &Volume) -> Result<Duration> {
        let request = self.request(volume)?;
        let started = Instant::now();
        let answer = self.runtime.block_on(self.client.node_publish_volume(request));
        let elapsed = started.elapsed();
        answer.with_context(|| format!("cannot publish to {}", volume.pod))?;
        Ok(elapsed)
    }

    /// The same for all of these at once; returns the time until each answer.
    pub fn publish_at_once(&mut self, volumes: &[Volume]) -> Result<Vec<Duration>> {
        let requests = volumes.iter().map(|volume| self.request(volume)).collect::<Result<Vec<_>>>()?;
        let started = Instant::now();
        let calls = requests.into_iter().map(|request| {
            let mut client = self.client.clone();
            async move { client.node_publish_volume(request).await.map(|_| started.elapsed()) }
        });
        let answers = self.runtime.block_on(futures_util::future::join_all(calls));
        answers.into_iter().map(|answer| answer.context("cannot publish one of many")).collect()
    }

    fn request(&self, volume: &Volume) -> Result<NodePublishVolumeRequest> {
        let target = self.target(volume);
        fs::create_dir_all(target.parent().context("a target has a parent")?)?;
        let context = [
            ("image", volume.image.as_str()),
            ("csi.storage.k8s.io/ephemeral", "true"),
            ("csi.storage.k8s.io/pod.name", &volume.pod),
            ("csi.storage.k8s.io/pod.namespace", &volume.namespace),
            ("csi.storage.k8s.io/pod.uid", &volume.uid),
            ("csi.storage.k8s.io/serviceAccount.name", "default"),
        ];
        Ok(NodePublishVolumeRequest {
            volume_id: volume.id(),
            target_path: target.display().to_string(),
            volume_capability: Some(VolumeCapability {
                access_type: Some(AccessType::Mount(MountVolume::default())),
                access_mode: Some(AccessMode { mode: access_mode::Mode::SingleNodeWriter.into() }),
            }),
            volume_context: context.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            secrets: HashMap::new(),
            ..NodePublishVolumeRequest::default()
        })
    }

    /// NodeUnpublishVolume, and kubelet's removal of the pod's directories.
    pub fn unpublish(&mut self, volume: &Volume) -> Result<Duration> {
        let target = self.target(volume);
        let request =
            NodeUnpublishVolumeRequest { volume_id: volume.id(), target_path: target.display().to_string() };
        let started = Instant::now();
        let answer = self.runtime.block_on(self.client.node_unpublish_volume(request));
        let elapsed = started.elapsed();
        answer.with_context(|| format!("cannot unpublish from {}", volume.pod))?;
        ensure!(!target.exists(), "{} is still there after its unpublish", target.display());
        for directory in target.ancestors().skip(1).take(4) {
            fs::remove_dir(directory)?;
        }
        Ok(elapsed)
    }

    /// Peak of the plugin's resident memory so far, in bytes.
    pub fn peak(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kibibytes * 1024)
    }

    /// Asks the plugin to end and waits for it.
    pub fn stop(mut self) -> Result<ExitStatus> {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "the plugin does not end; see {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn log(&self) -> String {
        self.base.join("plugin.log").display().to_string()
    }

    fn wait_until_ready(&mut self, channel: Channel) -> Result<()> {
        let mut identity = IdentityClient::new(channel);
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(answer) = self.runtime.block_on(identity.probe(ProbeRequest {}))
                && answer.into_inner().ready != Some(false)
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(self.base.join("plugin.log"))?;
                bail!("the plugin ended with {status}:\n{log}");
            }
            ensure!(Instant::now() < deadline, "the plugin is not ready; see {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Node {
    /// The plugin is still running here only if something else failed.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
