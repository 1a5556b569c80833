//! Alice, Bob, their registry, and pods that show their credentials.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tonic::{Code, Status};

use crate::support::archive::{archive, noise};
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};
use crate::support::proxy::Proxy;
use crate::support::registry::{Options, Registry};

pub const ALICE: (&str, &str) = ("alice", "wonderland");
pub const BOB: (&str, &str) = ("bob", "builder");
/// What a question without content weighs at most, in bytes.
pub const QUESTIONS: u64 = 64 << 10;
pub const POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];

/// A layer with one file of `size` bytes that no compression shrinks.
pub fn layer(name: &str, size: usize) -> Vec<u8> {
    archive(&[(name, &noise(name, size))])
}

/// A registry for alice and bob, behind a proxy.
pub async fn registry() -> (Registry, Proxy) {
    let registry = Registry::start(Options { user: Some(ALICE), ..Options::default() });
    registry.add_user(BOB);
    let proxy = Proxy::start(&registry.host()).await;
    (registry, proxy)
}

pub fn push(registry: &Registry, tars: Vec<Vec<u8>>, to: &str) {
    registry.push(&Layout::of(&Image::new(tars)).reference("latest"), to, &[]);
}

pub fn machine(hosts: &[&dyn std::fmt::Display], extra: &[&str]) -> Machine {
    let hosts: Vec<_> = hosts.iter().map(|host| format!("--insecure-registry={host}")).collect();
    let arguments: Vec<&str> = hosts.iter().map(String::as_str).chain(extra.iter().copied()).collect();
    Machine::new(&arguments)
}

pub fn config(host: &dyn std::fmt::Display, (user, password): (&str, &str)) -> String {
    format!(r#"{{"auths":{{"{host}":{{"username":"{user}","password":"{password}"}}}}}}"#)
}

/// A pod's pull secret.
pub fn secret(host: &dyn std::fmt::Display, who: (&str, &str)) -> HashMap<String, String> {
    HashMap::from([(".dockerconfigjson".to_owned(), config(host, who))])
}

pub struct Pods<'a> {
    machine: &'a Machine,
    plugin: &'a Plugin,
    pub started: AtomicUsize,
}

impl<'a> Pods<'a> {
    pub fn new(machine: &'a Machine, plugin: &'a Plugin) -> Self {
        Self { machine, plugin, started: AtomicUsize::new(0) }
    }

    /// A new pod with this secret wants the image.
    pub async fn start(
        &self,
        image: &str,
        policy: &str,
        secrets: &HashMap<String, String>,
    ) -> Result<String, Status> {
        let pod = format!("{policy}-{}", self.started.fetch_add(1, SeqCst)).to_lowercase();
        let mut request = self.machine.publish(&pod, image);
        request.secrets.clone_from(secrets);
        request.volume_context.insert("pullPolicy".to_owned(), policy.to_owned());
        self.plugin.node.clone().node_publish_volume(request).await?;
        assert!(std::fs::read_dir(self.machine.target(&pod)).unwrap().count() > 0);
        Ok(pod)
    }

    /// The answer to a pod that may not have the image, code and message.
    pub async fn refusal(
        &self,
        image: &str,
        policy: &str,
        secrets: &HashMap<String, String>,
    ) -> (Code, String) {
        let before = self.machine.published().len();
        let status = self.start(image, policy, secrets).await.expect_err(&format!("{image} was given"));
        assert!(self.machine.published().len() <= before + 1, "one other pod may come meanwhile");
        (status.code(), status.message().to_owned())
    }
}

/// What a stranger is told, for each way to ask.
pub async fn told(
    pods: &Pods<'_>,
    image: &str,
    strangers: &[HashMap<String, String>],
) -> Vec<(Code, String)> {
    let mut told = Vec::new();
    for policy in POLICIES {
        for stranger in strangers {
            told.push(pods.refusal(image, policy, stranger).await);
        }
    }
    told
}
