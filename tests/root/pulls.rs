//! Pulls as the operator sees them: listed, ended by command, and ended when nobody waits.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use composefs_csi::csi::proto::NodePublishVolumeRequest;
use serde_json::Value;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::support::archive::{archive, noise};
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};
use crate::support::proxy::Proxy;
use crate::support::registry::{Options, Registry};

const PASSWORD: &str = "correct-horse-battery";

/// A plugin beside a registry that sends 128 KiB/s of an image with a small layer and a large one.
pub struct Slow {
    pub machine: Machine,
    pub plugin: Plugin,
    pub proxy: Proxy,
    pub image: String,
    _registry: Registry,
}

impl Slow {
    pub async fn start(arguments: &[&str]) -> Self {
        let layer = |name: &str, size| archive(&[(name, &noise(name, size))]);
        let layout = Layout::of(&Image::new(vec![layer("small", 32 << 10), layer("large", 16 << 20)]));
        let registry = Registry::start(Options::default());
        registry.push(&layout.reference("latest"), "team/app:1", &[]);
        let proxy = Proxy::start(&registry.host()).await;
        proxy.throttle(128 << 10);
        let mut machine = Machine::new(&["--insecure-registry", &proxy.address.to_string()]);
        arguments.iter().for_each(|argument| machine.also(argument));
        let plugin = machine.start().await;
        let image = format!("{}/team/app:1", proxy.address);
        Self { machine, plugin, proxy, image, _registry: registry }
    }

    pub fn publish(&self, pod: &str) -> JoinHandle<Result<(), Status>> {
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("user:{PASSWORD}"));
        let config = format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, self.proxy.address);
        let request = NodePublishVolumeRequest {
            secrets: HashMap::from([(".dockerconfigjson".to_owned(), config)]),
            ..self.machine.publish(pod, &self.image)
        };
        let mut node = self.plugin.node.clone();
        tokio::spawn(async move { node.node_publish_volume(request).await.map(drop) })
    }

    pub fn pulls(&self) -> Vec<Value> {
        self.machine.run(&["pulls"]).as_array().expect("a list").clone()
    }

    /// Waits until the list of pulls is as wanted.
    pub async fn until(&self, what: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        loop {
            let pulls = self.pulls();
            if what(&pulls) {
                return pulls;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn layer(pulls: &[Value], number: usize) -> &str {
    pulls.first().and_then(|pull| pull["layers"][number]["state"].as_str()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_is_listed_ended_by_command_and_goes_on_where_it_was() {
    let slow = Slow::start(&[]).await;
    assert_eq!(slow.pulls(), Vec::<Value>::new());
    let (waiting, second) = (slow.publish("a"), slow.publish("b"));
    let pulls = slow
        .until(|pulls| {
            layer(pulls, 0) == "done"
                && pulls[0]["waiting"] == 2
                && pulls[0]["bytes_per_second"].as_u64() > Some(0)
        })
        .await;
    assert_eq!((pulls.len(), &pulls[0]["image"]), (1, &slow.image.clone().into()));
    assert_eq!((layer(&pulls, 1), &pulls[0]["building"]), ("fetching", &false.into()));
    assert!(pulls[0]["done_bytes"].as_u64() < pulls[0]["total_bytes"].as_u64());

    let refused = slow.machine.command(&["pulls", "cancel", "r.io/another:1"]).output().unwrap();
    assert!(!refused.status.success());
    let digest = pulls[0]["digest"].as_str().unwrap();
    let ended = slow.machine.run(&["pulls", "cancel", digest]);
    assert_eq!(ended[0]["image"], slow.image.as_str());
    for waiting in [waiting, second] {
        let status = waiting.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("pulls cancel"), "{status}");
    }
    slow.until(<[Value]>::is_empty).await;

    // Who asks again starts it anew, with what is complete.
    let again = slow.publish("a");
    slow.until(|pulls| layer(pulls, 0) == "reused" && layer(pulls, 1) == "fetching").await;
    slow.proxy.throttle(0);
    again.await.unwrap().unwrap();
    assert_eq!(std::fs::read(slow.machine.target("a").join("large")).unwrap(), noise("large", 16 << 20));
    let text = slow.machine.command(&["pulls"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&text.stdout), "no image is being pulled\n");

    // Nobody but root, and nothing of the credentials anywhere.
    use std::os::unix::fs::PermissionsExt as _;
    let socket = std::fs::metadata(slow.machine.state().join("plugin.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("user:{PASSWORD}"));
    for shown in [format!("{pulls:?}"), ended.to_string(), slow.machine.log()] {
        assert!(!shown.contains(PASSWORD) && !shown.contains(&encoded), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_nobody_waits_for_ends_unless_its_image_is_pinned() {
    let slow = Slow::start(&["--pull-grace=1"]).await;
    let waiting = slow.publish("a");
    let pulls = slow.until(|pulls| layer(pulls, 0) == "done").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(slow.pulls().len(), 1, "somebody waits");
    waiting.abort();
    slow.until(<[Value]>::is_empty).await;
    assert!(slow.machine.log().contains("nobody waits for it"), "{}", slow.machine.log());
    let before = slow.proxy.passed();
    tokio::time::sleep(Duration::from_secs(1)).await;
    // What lies in the sockets' buffers still passes.
    assert!(slow.proxy.passed() - before < 64 << 10, "nothing more is fetched");

    // A pin is an empty file named by the manifest.
    let digest = pulls[0]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    std::fs::write(slow.machine.state().join("store/pins").join(digest), "").unwrap();
    let waiting = slow.publish("b");
    slow.until(|pulls| layer(pulls, 0) == "reused" && layer(pulls, 1) == "fetching").await;
    waiting.abort();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(slow.pulls().len(), 1, "it is pinned");
    slow.proxy.throttle(0);
    slow.until(<[Value]>::is_empty).await;
    slow.publish("c").await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_plugin_the_command_says_so() {
    let machine = Machine::new(&[]);
    let output = machine.command(&["pulls"]).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && complaint.contains("no node plugin answers"), "{complaint}");
    // What a killed plugin has left is replaced.
    let mut plugin = machine.start().await;
    plugin.process.0.kill().unwrap();
    plugin.process.0.wait().unwrap();
    assert!(machine.state().join("plugin.sock").exists());
    assert!(!machine.command(&["pulls"]).output().unwrap().status.success());
    let _plugin = machine.start().await;
    assert_eq!(machine.run(&["pulls"]), serde_json::json!([]));
}
