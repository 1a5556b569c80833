//! Two tenants of one node: what one of them pulled, the other gets only by rights of his own, and no answer tells
//! him whether it is there. The program itself, a real registry with users, and registries that lie. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use composefs_csi::image::access::Rule;
use composefs_csi::image::digest::Digest;
use composefs_csi::image::platform::Platform;
use composefs_csi::image::pull::{
    Caller, ImageRequest, Images as _, Limits, PullPolicy, Puller, Ready, Watch,
};
use composefs_csi::image::source::{Credentials, SourceSettings, Sources};
use composefs_csi::image::store::{Steps, Store};
use composefs_csi::image::trust::metrics::TrustMetrics;
use composefs_csi::image::trust::{TrustGate, TrustSettings, WithoutPolicy};
use tonic::{Code, Status};

mod support {
    pub mod csi;
    pub mod driver;
    pub mod images;
    pub mod impostor;
    pub mod proxy;
    pub mod registry;
    pub mod tools;
}

use support::driver::{Machine, Plugin};
use support::images::{Image, Layout};
use support::impostor::{Answer, Impostor};
use support::proxy::Proxy;
use support::registry::{Options, Registry};

const ALICE: (&str, &str) = ("alice", "wonderland");
const BOB: (&str, &str) = ("bob", "builder");
/// What a question without content weighs at most, in bytes.
const QUESTIONS: u64 = 64 << 10;
const POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];

/// A tar archive with one file of `size` bytes that no compression shrinks.
fn tar(name: &str, size: usize) -> Vec<u8> {
    let mut seed = Digest::of(name.as_bytes());
    let mut content = Vec::with_capacity(size + 32);
    while content.len() < size {
        content.extend_from_slice(seed.as_bytes());
        seed = Digest::of(seed.as_bytes());
    }
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(size as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, &content[..size]).unwrap();
    archive.into_inner().unwrap()
}

/// A registry for alice and bob, behind a proxy.
async fn registry() -> (Registry, Proxy) {
    let registry = Registry::start(Options { user: Some(ALICE), ..Options::default() });
    registry.add_user(BOB);
    let proxy = Proxy::start(&registry.host()).await;
    (registry, proxy)
}

fn push(registry: &Registry, tars: Vec<Vec<u8>>, to: &str) {
    registry.push(&Layout::of(&Image::new(tars)).reference("latest"), to, &[]);
}

fn machine(hosts: &[&dyn std::fmt::Display], extra: &[&str]) -> Machine {
    let hosts: Vec<_> = hosts.iter().map(|host| format!("--insecure-registry={host}")).collect();
    let arguments: Vec<&str> = hosts.iter().map(String::as_str).chain(extra.iter().copied()).collect();
    Machine::new(&arguments)
}

fn config(host: &dyn std::fmt::Display, (user, password): (&str, &str)) -> String {
    format!(r#"{{"auths":{{"{host}":{{"username":"{user}","password":"{password}"}}}}}}"#)
}

/// A pod's pull secret.
fn secret(host: &dyn std::fmt::Display, who: (&str, &str)) -> HashMap<String, String> {
    HashMap::from([(".dockerconfigjson".to_owned(), config(host, who))])
}

struct Pods<'a> {
    machine: &'a Machine,
    plugin: &'a Plugin,
    started: AtomicUsize,
}

impl<'a> Pods<'a> {
    fn new(machine: &'a Machine, plugin: &'a Plugin) -> Self {
        Self { machine, plugin, started: AtomicUsize::new(0) }
    }

    /// A new pod with this secret wants the image.
    async fn start(
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
    async fn refusal(&self, image: &str, policy: &str, secrets: &HashMap<String, String>) -> (Code, String) {
        let before = self.machine.published().len();
        let status = self.start(image, policy, secrets).await.expect_err(&format!("{image} was given"));
        assert!(self.machine.published().len() <= before + 1, "one other pod may come meanwhile");
        (status.code(), status.message().to_owned())
    }
}

/// What a stranger is told, for each way to ask.
async fn told(pods: &Pods<'_>, image: &str, strangers: &[HashMap<String, String>]) -> Vec<(Code, String)> {
    let mut told = Vec::new();
    for policy in POLICIES {
        for stranger in strangers {
            told.push(pods.refusal(image, policy, stranger).await);
        }
    }
    told
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_without_rights_is_told_the_same_before_during_and_after() {
    let (registry, proxy) = registry().await;
    push(&registry, vec![tar("a", 2 << 20), tar("b", 2 << 20)], "team/app:1");
    let image = format!("{}/team/app:1", proxy.address);
    let machine = machine(&[&proxy.address], &[]);
    let plugin = machine.start().await;
    let pods = Pods::new(&machine, &plugin);
    let strangers = [
        HashMap::new(),
        secret(&proxy.address, ("alice", "guess")),
        secret(&proxy.address, ("mallory", "wonderland")),
    ];

    let before = told(&pods, &image, &strangers).await;
    for (code, message) in &before {
        assert_eq!(*code, Code::PermissionDenied, "{message}");
        assert!(!message.contains("sha256:"), "{message}");
    }
    let alice = secret(&proxy.address, ALICE);
    proxy.throttle(256 << 10);
    let begun = proxy.passed();
    let (given, during) = tokio::join!(pods.start(&image, "IfNotPresent", &alice), async {
        until("the pull", || proxy.passed() > begun + (256 << 10)).await;
        let during = told(&pods, &image, &strangers).await;
        assert!(machine.published().is_empty(), "the pull was still under way");
        proxy.throttle(0);
        during
    });
    given.unwrap();
    assert_eq!(during, before);
    let asked = proxy.passed();
    assert_eq!(told(&pods, &image, &strangers).await, before);
    assert!(proxy.passed() > asked, "nobody is refused without asking the registry");
    assert_eq!(machine.published().len(), 1);
    for (_, message) in before {
        assert!(!machine.log().contains("wonderland"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_anybody_may_read_is_everybodys_even_when_the_registry_is_away() {
    let registry = Registry::start(Options::default());
    push(&registry, vec![tar("a", 1000)], "public/app:1");
    let host = registry.host();
    let machine = machine(&[&host], &["--access-ttl=0"]);
    let plugin = machine.start().await;
    let image = format!("{host}/public/app:1");
    Pods::new(&machine, &plugin).start(&image, "IfNotPresent", &HashMap::new()).await.unwrap();
    drop(registry);
    drop(plugin);
    let plugin = machine.start().await;
    let pods = Pods::new(&machine, &plugin);
    pods.started.store(1, SeqCst);
    for policy in ["IfNotPresent", "Never"] {
        pods.start(&image, policy, &HashMap::new()).await.unwrap();
        pods.start(&image, policy, &secret(&host, BOB)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_counts_for_a_time_and_over_a_restart() {
    let (registry, proxy) = registry().await;
    push(&registry, vec![tar("a", 1 << 20)], "team/app:1");
    let image = format!("{}/team/app:1", proxy.address);
    let (alice, bob) = (secret(&proxy.address, ALICE), secret(&proxy.address, BOB));
    let machine = machine(&[&proxy.address], &["--access-ttl=4"]);
    let mut plugin = machine.start().await;
    Pods::new(&machine, &plugin).start(&image, "IfNotPresent", &alice).await.unwrap();
    plugin.process.0.kill().unwrap();
    plugin.process.0.wait().unwrap();
    let plugin = machine.start().await;
    let pods = Pods::new(&machine, &plugin);
    pods.started.store(1, SeqCst);

    let before = proxy.passed();
    pods.start(&image, "IfNotPresent", &alice).await.unwrap();
    assert_eq!(proxy.passed(), before, "the record outlives the process");
    pods.start(&image, "IfNotPresent", &bob).await.unwrap();
    let checked = Instant::now();
    assert!(proxy.passed() > before, "another credential is shown to the registry");
    assert!(proxy.passed() < before + QUESTIONS, "and the image is not fetched again");
    tokio::time::sleep(Duration::from_millis(5500)).await;
    let before = proxy.passed();
    pods.start(&image, "IfNotPresent", &bob).await.unwrap();
    assert!(
        proxy.passed() > before && proxy.passed() < before + QUESTIONS,
        "after its time it is asked again"
    );
    assert!(checked.elapsed() < Duration::from_secs(9), "this machine is too slow for the rest");

    drop(registry);
    for policy in ["IfNotPresent", "Never"] {
        pods.start(&image, policy, &bob).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(5500)).await;
    let late = pods.refusal(&image, "IfNotPresent", &bob).await;
    assert_eq!(late.0, Code::Unavailable, "{late:?}");
    let other = self::machine(&[&proxy.address], &[]);
    let elsewhere = other.start().await;
    let absent = Pods::new(&other, &elsewhere).refusal(&image, "IfNotPresent", &bob).await;
    // How a connection breaks is a matter of microseconds.
    let beginning = |text: &str| text.split(" failed: ").next().unwrap_or_default().to_owned();
    assert_eq!(absent.0, Code::Unavailable);
    assert_eq!(beginning(&late.1), beginning(&absent.1), "as where the image has never been");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_of_the_attackers_gets_no_layer_out_of_the_store() {
    let (registry, proxy) = registry().await;
    push(&registry, vec![tar("secret", 100_000)], "team/app:1");
    let image = format!("{}/team/app:1", proxy.address);
    let storage =
        registry.storage().join("docker/registry/v2/repositories/team/app/_manifests/tags/1/current/link");
    let manifest: Digest = std::fs::read_to_string(storage).unwrap().parse().unwrap();
    let bytes = std::fs::read(registry.blob_file(&manifest.hex())).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let config: Digest = document["config"]["digest"].as_str().unwrap().parse().unwrap();
    let config_bytes = std::fs::read(registry.blob_file(&config.hex())).unwrap();
    let media_type = document["mediaType"].as_str().unwrap().to_owned();
    // He knows manifest and config, and claims to have everything.
    let evil = Impostor::start(move |asked| {
        if asked.path.contains("/manifests/") {
            Answer::body(&media_type, &bytes).with("docker-content-digest", &manifest.to_string())
        } else if asked.path.ends_with(&config.to_string()) {
            Answer::body("application/octet-stream", &config_bytes)
        } else {
            Answer::status(404)
        }
    })
    .await;
    let machine = machine(&[&proxy.address, &evil.address], &[]);
    let plugin = machine.start().await;
    let pods = Pods::new(&machine, &plugin);
    let asks = [
        format!("{}/evil/x:1", evil.address),
        format!("{}/evil/x@{manifest}", evil.address),
        // The victim's own repository name, too.
        format!("{}/team/app:1", evil.address),
    ];
    let mut before = Vec::new();
    for ask in &asks {
        before.push(told(&pods, ask, &[HashMap::new(), secret(&evil.address, BOB)]).await);
    }
    pods.start(&image, "IfNotPresent", &secret(&proxy.address, ALICE)).await.unwrap();
    for (ask, before) in asks.iter().zip(&before) {
        let fetched = evil.asked("/blobs/");
        let after = told(&pods, ask, &[HashMap::new(), secret(&evil.address, BOB)]).await;
        assert_eq!(&after, before);
        assert!(evil.asked("/blobs/") > fetched, "the bytes themselves are asked for");
    }
    assert_eq!(machine.published().len(), 1, "alice's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_is_fetched_by_each_credential_once() {
    let (registry, proxy) = registry().await;
    let shared = tar("base", 2 << 20);
    for (name, own) in [("one", "1"), ("two", "2"), ("three", "3")] {
        push(&registry, vec![shared.clone(), tar(own, 1000)], &format!("team/{name}:1"));
    }
    let image = |name: &str| format!("{}/team/{name}:1", proxy.address);
    let machine = machine(&[&proxy.address], &["--image-credential-policy=AlwaysVerify"]);
    let plugin = machine.start().await;
    let pods = Pods::new(&machine, &plugin);
    let (alice, bob) = (secret(&proxy.address, ALICE), secret(&proxy.address, BOB));
    for (who, name, whole, why) in [
        (&alice, "one", true, "nothing is here yet"),
        (&bob, "two", true, "alice's fetch proves nothing about bob"),
        (&alice, "three", false, "alice has fetched the layer herself"),
        (&bob, "three", false, "the registry that had the image gives it to bob"),
    ] {
        let before = proxy.passed();
        pods.start(&image(name), "IfNotPresent", who).await.unwrap();
        let passed = proxy.passed() - before;
        assert_eq!(passed > 1 << 20, whole, "{passed} bytes: {why}");
        assert!(passed > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_joins_a_pull_does_not_share_its_refusal() {
    let layout = Layout::of(&Image::new(vec![tar("a", 1000)]));
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(layout.path().join("index.json")).unwrap()).unwrap();
    let media_type = index["manifests"][0]["mediaType"].as_str().unwrap().to_owned();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let blob = {
        let directory = layout.path().join("blobs/sha256");
        move |digest: &str| std::fs::read(directory.join(digest.trim_start_matches("sha256:"))).unwrap()
    };
    let document: serde_json::Value = serde_json::from_slice(&blob(&manifest)).unwrap();
    let layer = document["layers"][0]["digest"].as_str().unwrap().to_owned();
    let refused = layer.clone();
    // Alice may read the manifest and not the layer, and is told so slowly.
    let registry = Impostor::start(move |asked| {
        let Some(user) = &asked.user else {
            return Answer::status(401).with("www-authenticate", "Basic realm=\"test\"");
        };
        let name = asked.path.rsplit('/').next().unwrap_or_default();
        if asked.path.contains("/manifests/") {
            Answer::body(&media_type, &blob(&manifest)).with("docker-content-digest", &manifest)
        } else if name == refused && user == ALICE.0 {
            Answer { after: Duration::from_secs(2), ..Answer::status(403) }
        } else {
            Answer::body("application/octet-stream", &blob(name))
        }
    })
    .await;
    let machine = machine(&[&registry.address], &[]);
    let plugin = machine.start().await;
    let pods = Pods::new(&machine, &plugin);
    let image = format!("{}/team/app:1", registry.address);
    let (alice, bob) = tokio::join!(
        async { pods.refusal(&image, "IfNotPresent", &secret(&registry.address, ALICE)).await },
        async {
            until("alice's pull", || registry.asked(&layer) > 0).await;
            pods.start(&image, "IfNotPresent", &secret(&registry.address, BOB)).await
        }
    );
    assert_eq!(alice.0, Code::PermissionDenied, "{alice:?}");
    bob.unwrap();
    let again = pods.refusal(&image, "IfNotPresent", &HashMap::new()).await;
    assert_eq!(again.0, Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_pulls_is_everybodys_unless_all_is_verified() {
    let (registry, proxy) = registry().await;
    push(&registry, vec![tar("a", 1000)], "team/app:1");
    let image = format!("{}/team/app:1", proxy.address);
    let mut machine = machine(&[&proxy.address], &[]);
    let auth = machine.path().join("auth.json");
    std::fs::write(&auth, config(&proxy.address, ALICE)).unwrap();
    machine.run(&["pull", &image, "--auth-file", auth.to_str().unwrap()]);
    {
        let plugin = machine.start().await;
        let pods = Pods::new(&machine, &plugin);
        let before = proxy.passed();
        pods.start(&image, "IfNotPresent", &HashMap::new()).await.unwrap();
        assert_eq!(proxy.passed(), before);
    }
    machine.also("--image-credential-policy=AlwaysVerify");
    let plugin = machine.start().await;
    let pods = Pods::new(&machine, &plugin);
    pods.started.store(1, SeqCst);
    let (code, message) = pods.refusal(&image, "IfNotPresent", &HashMap::new()).await;
    assert_eq!(code, Code::PermissionDenied, "{message}");
    pods.start(&image, "IfNotPresent", &secret(&proxy.address, BOB)).await.unwrap();
}

/// One who pulls with the library, on a disk that may fail.
async fn ensure(
    store: &Arc<Store>,
    image: &str,
    host: &str,
    who: Option<(&str, &str)>,
) -> Result<Ready, String> {
    let settings = SourceSettings {
        insecure_registries: [host.to_owned()].into(),
        proxy_from_environment: false,
        ..SourceSettings::default()
    };
    let sources = Sources::new(&settings).unwrap();
    let trust = TrustSettings { without_policy: WithoutPolicy::Accept, ..TrustSettings::default() };
    let gate = Arc::new(TrustGate::new(&trust, TrustMetrics::default()));
    let puller = Puller::new(Arc::clone(store), sources, gate, Rule::default(), Limits::default());
    let credentials =
        who.map_or_else(Credentials::none, |who| Credentials::parse(config(&host, who).as_bytes()).unwrap());
    let request = ImageRequest {
        reference: image.parse().unwrap(),
        policy: PullPolicy::IfNotPresent,
        platform: Platform::host(),
        caller: Caller::Pod { namespace: None },
        pinned: None,
        credentials,
        watch: Watch::default(),
    };
    puller.ensure(&request).await.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_any_two_steps_nobody_gets_more_than_his_own() {
    let (registry, _proxy) = registry().await;
    push(&registry, vec![tar("a", 5000)], "team/app:1");
    let host = registry.host();
    let image = format!("{host}/team/app:1");
    // In memory: thousands of syncs are none of the point.
    let directory = || tempfile::tempdir_in("/dev/shm").unwrap();
    let empty = directory();
    let open = |directory: &std::path::Path, steps: Steps| {
        Store::open(
            directory,
            composefs_csi::image::store::Options { steps, ..support::csi::store_options() },
        )
    };
    let stranger = ensure(&Arc::new(open(empty.path(), Steps::default()).unwrap()), &image, &host, None)
        .await
        .unwrap_err();
    let mut kills = 0;
    for last in 0.. {
        let directory = directory();
        let taken = AtomicUsize::new(0);
        let steps = Steps::new(move |doing| {
            if taken.fetch_add(1, SeqCst) < last { Ok(()) } else { Err(std::io::Error::other(doing)) }
        });
        if let Ok(store) = open(directory.path(), steps)
            && ensure(&Arc::new(store), &image, &host, Some(ALICE)).await.is_ok()
        {
            break;
        }
        kills += 1;
        let store = Arc::new(open(directory.path(), Steps::default()).unwrap());
        assert_eq!(ensure(&store, &image, &host, None).await.unwrap_err(), stranger, "after {last} steps");
        let bob = ensure(&store, &image, &host, Some(BOB)).await.unwrap();
        assert_eq!(bob.record.names, std::slice::from_ref(&image));
        assert!(ensure(&store, &image, &host, Some(ALICE)).await.is_ok(), "after {last} steps");
        assert_eq!(ensure(&store, &image, &host, None).await.unwrap_err(), stranger, "after {last} steps");
    }
    assert!(kills > 30, "{kills} steps are too few to be all of them");
}
