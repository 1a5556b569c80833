//! What no policy admits is not asked for: a registry that counts connections sees none. Needs root.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use composefs_csi::csi::proto::NodeStageVolumeRequest;
use composefs_csi::csi::proto::volume_capability::access_mode::Mode;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::support::driver::{Machine, Plugin};

/// A port that counts who connects, and hangs up.
pub struct Port {
    pub host: String,
    connections: Arc<AtomicUsize>,
}

impl Port {
    pub async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let connections = Arc::<AtomicUsize>::default();
        let seen = Arc::clone(&connections);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                seen.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { host, connections }
    }

    fn image(&self) -> String {
        format!("{}/team/app:1", self.host)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

pub fn write(directory: &Path, name: &str, policy: &Value) -> String {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, policy.to_string()).unwrap();
    path.display().to_string()
}

async fn stage(machine: &Machine, plugin: &Plugin, image: &str) -> Result<(), Status> {
    let staging = machine.path().join("kubelet/staging");
    std::fs::create_dir_all(&staging).unwrap();
    let request = NodeStageVolumeRequest {
        volume_id: "pv-1".to_owned(),
        staging_target_path: staging.display().to_string(),
        volume_capability: Some(crate::support::csi::capability(Mode::MultiNodeReaderOnly)),
        volume_context: crate::support::csi::context(&[("image", image)]),
        ..Default::default()
    };
    plugin.node.clone().node_stage_volume(request).await.map(drop)
}

pub async fn publish(machine: &Machine, plugin: &Plugin, namespace: &str, image: &str) -> Result<(), Status> {
    let mut request = machine.publish(&format!("pod-{namespace}"), image);
    request.volume_context.insert("csi.storage.k8s.io/pod.namespace".to_owned(), namespace.to_owned());
    plugin.node.clone().node_publish_volume(request).await.map(drop)
}

pub fn refused(result: Result<(), Status>) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().contains("is not admitted"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_reference_is_not_connected_to() {
    let (port, directory) = (Port::open().await, tempfile::tempdir().unwrap());
    let accept = json!([{"type": "insecureAcceptAnything"}]);
    let policy = write(
        directory.path(),
        "policy.json",
        &json!({"default": [{"type": "reject"}], "transports": {"docker": {"r.example": accept}}}),
    );
    let machine = Machine::new(&["--policy", &policy, &format!("--insecure-registry={}", port.host)]);
    let plugin = machine.start().await;
    refused(publish(&machine, &plugin, "shop", &port.image()).await);
    refused(stage(&machine, &plugin, &port.image()).await);
    let pulled = machine.command(&["pull", &port.image()]).output().unwrap();
    assert!(!pulled.status.success());
    assert!(String::from_utf8_lossy(&pulled.stderr).contains("is not admitted"), "{pulled:?}");
    assert_eq!(port.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn staging_asks_where_some_namespace_could_be_admitted() {
    let (port, directory) = (Port::open().await, tempfile::tempdir().unwrap());
    let reject = json!({"default": [{"type": "reject"}]});
    let policy = write(directory.path(), "policy.json", &reject);
    let own = directory.path().join("own");
    write(&own, "shop.json", &reject);
    let machine = Machine::new(&[
        "--policy",
        &policy,
        &format!("--policy-dir={}", own.display()),
        &format!("--insecure-registry={}", port.host),
    ]);
    let plugin = machine.start().await;
    refused(stage(&machine, &plugin, &port.image()).await);
    assert_eq!(port.connections(), 0);
    // Not a namespace's: what no pod's policy can be is not asked.
    write(&own, "Not-A-Namespace.json", &json!({"default": [{"type": "insecureAcceptAnything"}]}));
    refused(stage(&machine, &plugin, &port.image()).await);
    assert_eq!(port.connections(), 0);
    write(&own, "lab.json", &json!({"default": [{"type": "insecureAcceptAnything"}]}));
    let status = stage(&machine, &plugin, &port.image()).await.unwrap_err();
    assert!(!status.message().contains("is not admitted"), "{status:?}");
    assert!(port.connections() > 0);
    // The pod of another namespace is refused all the same, and connects to nothing.
    let before = port.connections();
    refused(publish(&machine, &plugin, "shop", &port.image()).await);
    refused(publish(&machine, &plugin, "other", &port.image()).await);
    assert_eq!(port.connections(), before);
}
