//! Registries in the cluster, one for everybody and one with a password, on ports of one node.
//!
//! They use the node's network: that address is known before the driver is installed, which must be told that it
//! is plain http, and every node reaches it. Images get there through a port forward, as skopeo runs here.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use composefs_csi::oci::digest::Digest;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;

use crate::cluster::{NAMESPACE, program, until};
use crate::images::Files;
use crate::objects;
use crate::settings::Settings;
use crate::support::registry::{Running, run};

/// The user of the registry with a password, and the password.
///
/// They are those of examples/private-registry.yaml.
pub const USER: (&str, &str) = ("user", "secret");

/// Both registries.
pub struct Registries {
    /// Asks for nothing.
    pub open: Registry,
    /// Asks for [`USER`].
    pub private: Registry,
}

/// A registry, as the nodes and as this machine reach it.
pub struct Registry {
    /// `ADDRESS:PORT` for the nodes.
    pub host: String,
    local: String,
    user: Option<(&'static str, &'static str)>,
    _forward: Running,
}

impl Registries {
    /// Starts both and waits until images can be pushed.
    pub async fn start(client: &Client, settings: &Settings) -> Self {
        let open = Registry::start(client, settings, "registry-open", 5050, None).await;
        let private = Registry::start(client, settings, "registry-private", 5051, Some(USER)).await;
        Self { open, private }
    }

    /// Their addresses, which the driver must know to speak plain http.
    pub fn hosts(&self) -> [&str; 2] {
        [&self.open.host, &self.private.host]
    }
}

impl Registry {
    async fn start(
        client: &Client,
        settings: &Settings,
        name: &str,
        port: u16,
        user: Option<(&'static str, &'static str)>,
    ) -> Self {
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        let files = serde_json::from_value(files(name, port, user)).expect("a config map");
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        maps.create(&PostParams::default(), &files).await.expect("the registry's configuration");
        let pod = serde_json::from_value(objects::registry(name, &settings.registry_image)).expect("a pod");
        pods.create(&PostParams::default(), &pod).await.expect("the registry's pod");
        let address = until(&format!("pod {name} running"), 180, async || {
            let status = pods.get(name).await.expect("the pod").status?;
            (status.phase.as_deref() == Some("Running")).then_some(status.host_ip?)
        })
        .await;
        let (forward, local) = forward(settings, name, port);
        Self { host: format!("{address}:{port}"), local, user, _forward: forward }
    }

    /// `ADDRESS:PORT` for programs on this machine.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// Pushes an image under `NAME:TAG`; returns the reference for volumes, by tag, and the manifest's digest.
    pub fn push(&self, image: &Files, to: &str) -> (String, Digest) {
        let layout = image.layout();
        let mut skopeo = Command::new(program("skopeo"));
        skopeo.args(["copy", "--quiet", "--dest-tls-verify=false"]);
        if let Some((user, password)) = self.user {
            skopeo.arg(format!("--dest-creds={user}:{password}"));
        }
        run(skopeo.arg(layout.reference("latest")).arg(format!("docker://{}/{to}", self.local)));
        let mut inspect = Command::new(program("skopeo"));
        inspect.args(["inspect", "--raw"]).arg(layout.reference("latest"));
        (format!("{}/{to}", self.host), Digest::of(&run(&mut inspect)))
    }
}

fn files(name: &str, port: u16, user: Option<(&str, &str)>) -> serde_json::Value {
    let mut config = json!({
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": true}},
        "storage": {"filesystem": {"rootdirectory": "/data"}, "delete": {"enabled": true}},
        "http": {"addr": format!(":{port}"), "secret": "only-for-uploads-in-tests"},
    });
    let mut data = json!({});
    if let Some((user, password)) = user {
        config["auth"] = json!({"htpasswd": {"realm": "tests", "path": "/config/htpasswd"}});
        let line = run(Command::new(program("htpasswd")).args(["-Bbn", user, password]));
        data["htpasswd"] = json!(String::from_utf8(line).expect("text"));
    }
    // YAML reads JSON.
    data["config.yml"] = json!(config.to_string());
    objects::registry_files(name, data)
}

/// A port of this machine that leads to the pod's; open as long as the process lives.
fn forward(settings: &Settings, pod: &str, port: u16) -> (Running, String) {
    let mut command = Command::new(program("kubectl"));
    command.arg("--kubeconfig").arg(&settings.kubeconfig).args(["--namespace", NAMESPACE, "port-forward"]);
    command.arg(format!("pod/{pod}")).arg(format!(":{port}")).stdout(Stdio::piped());
    let mut process = Running(command.spawn().expect("kubectl runs"));
    let mut lines = BufReader::new(process.0.stdout.take().expect("its output")).lines();
    // "Forwarding from 127.0.0.1:38911 -> 5050"
    let line = lines.next().expect("kubectl says where it listens").expect("a line");
    let local = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:"));
    let local = local.unwrap_or_else(|| panic!("kubectl port-forward said: {line}")).to_owned();
    // It goes on to write a line for each connection, which somebody must read.
    std::thread::spawn(move || lines.for_each(drop));
    (process, local)
}
