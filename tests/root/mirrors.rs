//! Mirrors under a running plugin: real registries as origin and as pull-through cache, stand-ins of the peer-to-peer
//! mirrors, tenants, files that change, and helper programs.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::Code;

use crate::support::archive::{archive, noise};
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};
use crate::support::impostor::{Answer, Asked, Impostor};
use crate::support::proxy::Proxy;
use crate::support::registry::{Options, Registry};

const SIZE: usize = 2 << 20;
/// What questions without content weigh at most, in bytes.
const QUESTIONS: u64 = 64 << 10;
const ALICE: (&str, &str) = ("alice", "wonderland");

/// An image with one layer that no compression shrinks.
fn layout(name: &str) -> Layout {
    Layout::of(&Image::new(vec![archive(&[("name", &noise(name, SIZE))])]))
}

fn push(registries: &[&Registry], name: &str) {
    let layout = layout(name);
    for registry in registries {
        registry.push(&layout.reference("latest"), &format!("{name}:1"), &[]);
    }
}

/// A machine whose files about mirrors a test writes.
struct Node {
    machine: Machine,
    hosts: PathBuf,
}

impl Node {
    fn new(origin: &dyn std::fmt::Display, extra: &[&str]) -> Self {
        let insecure = format!("--insecure-registry={origin}");
        let arguments: Vec<&str> = [insecure.as_str()].into_iter().chain(extra.iter().copied()).collect();
        let mut machine = Machine::new(&arguments);
        let hosts = machine.path().join("certs.d");
        fs::create_dir(&hosts).unwrap();
        machine.also(&format!("--registry-hosts-dir={}", hosts.display()));
        Self { machine, hosts }
    }

    fn hosts(&self, registry: &dyn std::fmt::Display, text: &str) {
        let directory = self.hosts.join(registry.to_string());
        fs::create_dir_all(&directory).unwrap();
        // As editors and managers of configuration do it.
        fs::write(directory.join("hosts.tmp"), text).unwrap();
        fs::rename(directory.join("hosts.tmp"), directory.join("hosts.toml")).unwrap();
    }

    async fn publish(&self, plugin: &Plugin, image: &str) -> Result<(), tonic::Status> {
        self.publish_as(plugin, image, "a", &HashMap::new()).await
    }

    async fn publish_as(
        &self,
        plugin: &Plugin,
        image: &str,
        pod: &str,
        secrets: &HashMap<String, String>,
    ) -> Result<(), tonic::Status> {
        let pod = format!("{pod}-{}", image.rsplit('/').next().unwrap().replace([':', '@'], "-"));
        let mut request = self.machine.publish(&pod, image);
        request.secrets.clone_from(secrets);
        plugin.node.clone().node_publish_volume(request).await?;
        let content = fs::read(self.machine.target(&pod).join("name")).unwrap();
        let name = image.rsplit('/').next().unwrap().split(':').next().unwrap();
        assert!(content == noise(name, SIZE), "{image} has other content");
        Ok(())
    }
}

fn mirror(host: &dyn std::fmt::Display) -> String {
    format!("[host.\"http://{host}\"]\n")
}

fn secret(host: &dyn std::fmt::Display, (user, password): (&str, &str)) -> HashMap<String, String> {
    let json = format!(r#"{{"auths":{{"{host}":{{"username":"{user}","password":"{password}"}}}}}}"#);
    HashMap::from([(".dockerconfigjson".to_owned(), json)])
}

/// Files are looked at once a second.
async fn noticed() {
    tokio::time::sleep(Duration::from_millis(1100)).await;
}

/// As kubelet tries again: files are looked at once a second.
async fn soon<T, F: Future<Output = Option<T>>>(what: &str, ask: impl Fn() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} does not happen");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_through_cache_serves_and_its_end_is_no_end() {
    let registry = Registry::start(Options::default());
    push(&[&registry], "first");
    push(&[&registry], "second");
    let cache = Registry::mirror_of(&registry.host());
    // What the plugin itself asks of the registry goes through here.
    let origin = Proxy::start(&registry.host()).await;
    let node = Node::new(&origin.address, &[]);
    node.hosts(&origin.address, &mirror(&cache.host()));
    let plugin = node.machine.start().await;
    node.publish(&plugin, &format!("{}/first:1", origin.address)).await.unwrap();
    assert!(origin.passed() < QUESTIONS, "{} bytes came from the registry itself", origin.passed());
    drop(cache);
    node.publish(&plugin, &format!("{}/second:1", origin.address)).await.unwrap();
    assert!(origin.passed() > SIZE as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_with_certificates_headers_and_a_path_is_reached_by_its_file() {
    let registry = Registry::start(Options::default());
    push(&[&registry], "one");
    let certified = Registry::start_for_certified();
    let origin = Proxy::start(&registry.host()).await;
    // skopeo has no client certificate there: the mirror has the files of the registry.
    copy(&registry.storage(), &certified.storage());
    let node = Node::new(&origin.address, &[]);
    let (certificate, key) = certified.client_files();
    let text = |client: &str| {
        format!("[host.\"https://{}\"]\nca = {:?}\n{client}", certified.host(), certified.ca_file())
    };
    node.hosts(&origin.address, &text(&format!("client = [[{certificate:?}, {key:?}]]\n")));
    let plugin = node.machine.start().await;
    node.publish(&plugin, &format!("{}/one:1", origin.address)).await.unwrap();
    assert!(origin.passed() < QUESTIONS, "{} bytes; {}", origin.passed(), node.machine.log());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_without_rights_gets_nothing_and_learns_nothing_by_a_mirror() {
    let registry = Registry::start(Options { user: Some(ALICE), ..Options::default() });
    let open = Registry::start(Options::default());
    push(&[&registry, &open], "secret");
    let (origin, mirrored) = (Proxy::start(&registry.host()).await, Proxy::start(&open.host()).await);
    let image = format!("{}/secret:1", origin.address);
    let stranger = secret(&origin.address, ("mallory", "guess"));
    let strangers = [HashMap::new(), stranger];

    let plain = Node::new(&origin.address, &[]);
    let plugin = plain.machine.start().await;
    let mut without = Vec::new();
    for secrets in &strangers {
        let status = plain.publish_as(&plugin, &image, "s", secrets).await.unwrap_err();
        without.push((status.code(), status.message().to_owned()));
    }
    drop(plugin);

    let node = Node::new(&origin.address, &[]);
    node.hosts(&origin.address, &mirror(&mirrored.address));
    let told = async |plugin: &Plugin| {
        let mut told = Vec::new();
        for secrets in &strangers {
            let status = node.publish_as(plugin, &image, "s", secrets).await.unwrap_err();
            told.push((status.code(), status.message().to_owned()));
        }
        told
    };
    let plugin = node.machine.start().await;
    assert_eq!(told(&plugin).await, without);
    assert_eq!(mirrored.passed(), 0, "the mirror was not even asked");
    let asked = origin.passed();
    node.publish_as(&plugin, &image, "alice", &secret(&origin.address, ALICE)).await.unwrap();
    assert!(mirrored.passed() > SIZE as u64, "her image came from the mirror");
    assert!(origin.passed() - asked < QUESTIONS);
    let before = mirrored.passed();
    assert_eq!(told(&plugin).await, without, "also now that the node has it");
    assert_eq!(mirrored.passed(), before);

    // What was proven is on record after a kill; what was not, is not.
    drop(plugin);
    let plugin = node.machine.start().await;
    let pod = format!("alice2-{}", "secret-1");
    let mut request = node.machine.publish(&pod, &image);
    request.secrets = secret(&origin.address, ALICE);
    plugin.node.clone().node_publish_volume(request).await.unwrap();
    assert_eq!(mirrored.passed(), before);
    assert_eq!(told(&plugin).await, without);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_mirrors_prove_is_no_proof_once_the_registry_must() {
    let registry = Registry::start(Options { user: Some(ALICE), ..Options::default() });
    let open = Registry::start(Options::default());
    push(&[&registry, &open], "secret");
    let origin = registry.host();
    let image = format!("{origin}/secret:1");
    let mut node = Node::new(&origin, &["--mirror-proof=mirror"]);
    node.hosts(&origin, &mirror(&open.host()));
    let plugin = node.machine.start().await;
    node.publish(&plugin, &image).await.unwrap();
    drop(plugin);
    node.machine.replace("--mirror-proof=mirror", "--mirror-proof=origin");
    let plugin = node.machine.start().await;
    let status = node.publish_as(&plugin, &image, "c", &HashMap::new()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    node.publish_as(&plugin, &image, "d", &secret(&origin, ALICE)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_or_blocking_file_refuses_until_it_is_repaired() {
    let registry = Registry::start(Options::default());
    for name in ["before", "while", "blocked"] {
        push(&[&registry], name);
    }
    let origin = registry.host();
    let mut node = Node::new(&origin, &[]);
    let conf = node.machine.path().join("registries.conf");
    fs::write(&conf, "").unwrap();
    node.machine.also(&format!("--registries-conf={}", conf.display()));
    let image = |name: &str| format!("{origin}/{name}:1");
    let plugin = node.machine.start().await;
    node.publish(&plugin, &image("before")).await.unwrap();

    node.hosts(&origin, "[host.\"http://m.local\"]\ncapabilities = [\"pul\"]\n");
    noticed().await;
    let refused = node.publish(&plugin, &image("while")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let said = refused.message();
    assert!(said.contains("hosts.toml, line 2") && said.contains("\"pul\""), "{said}");
    assert!(node.machine.log().contains("the pulls that it concerns are refused"), "{}", node.machine.log());
    // The public image that is here needs nobody's word.
    node.publish_as(&plugin, &image("before"), "again", &HashMap::new()).await.unwrap();
    node.hosts(&origin, "");
    soon("the repair", async || node.publish(&plugin, &image("while")).await.ok()).await;

    fs::write(&conf, format!("[[registry]]\nlocation = \"{origin}\"\nblocked = true\n")).unwrap();
    noticed().await;
    let refused = node.publish(&plugin, &image("blocked")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("registries.conf, line 1"), "{refused}");
    // A plugin that starts with it is as strict, and starts.
    drop(plugin);
    let plugin = node.machine.start().await;
    let refused = node.publish(&plugin, &image("blocked")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    fs::write(&conf, "").unwrap();
    soon("the repair", async || node.publish(&plugin, &image("blocked")).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_that_change_in_a_pull_serve_the_next_one() {
    let registry = Registry::start(Options::default());
    let (first, second) = (Registry::start(Options::default()), Registry::start(Options::default()));
    for name in ["one", "two"] {
        push(&[&registry, &first, &second], name);
    }
    let (a, b) = (Proxy::start(&first.host()).await, Proxy::start(&second.host()).await);
    let origin = registry.host();
    let node = Node::new(&origin, &[]);
    node.hosts(&origin, &mirror(&a.address));
    let plugin = node.machine.start().await;
    a.throttle(512 << 10);
    let image = |name: &str| format!("{origin}/{name}:1");
    let (one, two) = (image("one"), image("two"));
    let pulled = tokio::join!(node.publish(&plugin, &one), async {
        soon("the pull", async || (a.passed() > 256 << 10).then_some(())).await;
        node.hosts(&origin, &mirror(&b.address));
        noticed().await;
        node.publish(&plugin, &two).await
    });
    pulled.0.unwrap();
    pulled.1.unwrap();
    assert!(a.passed() > SIZE as u64 && b.passed() > SIZE as u64, "{} {}", a.passed(), b.passed());
    assert!(a.passed() < 2 * SIZE as u64 && b.passed() < 2 * SIZE as u64);
}

/// The blobs of a layout, as a registry of any name would serve them.
fn blobs(layout: &Layout) -> impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + use<> {
    let directory = layout.path().join("blobs/sha256");
    let files = fs::read_dir(directory).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        (format!("sha256:{}", path.file_name().unwrap().to_str().unwrap()), fs::read(&path).unwrap())
    });
    let files: HashMap<_, _> = files.collect();
    move |digest| files.get(digest).cloned()
}

/// The last part of the path, and the value of `ns`.
fn wanted(asked: &Asked) -> (String, String) {
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    let namespace = query.split('&').find_map(|pair| pair.strip_prefix("ns=")).unwrap_or_default();
    (path.rsplit('/').next().unwrap_or_default().to_owned(), namespace.replace("%3A", ":"))
}

/// A manifest by its digest. A mirror of this kind states the media type that the document has.
fn manifest(bytes: &[u8]) -> Answer {
    let document: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    Answer::body(
        document["mediaType"].as_str().unwrap_or("application/vnd.oci.image.manifest.v1+json"),
        bytes,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_a_mirror_alters_comes_from_the_next_place() {
    let registry = Registry::start(Options::default());
    let layout = layout("one");
    registry.push(&layout.reference("latest"), "one:1", &[]);
    let honest = blobs(&layout);
    let liar = Impostor::start(move |asked| {
        let (name, _) = wanted(asked);
        let Some(mut bytes) = honest(&name) else { return Answer::status(404) };
        if asked.path.contains("/manifests/") {
            return manifest(&bytes);
        }
        // Somewhere in the middle, where nothing but the digest tells.
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Answer::body("application/octet-stream", &bytes)
    })
    .await;
    let origin = registry.host();
    let node = Node::new(&origin, &[]);
    node.hosts(&origin, &mirror(&liar.address));
    let plugin = node.machine.start().await;
    node.publish(&plugin, &format!("{origin}/one:1")).await.unwrap();
    assert!(liar.asked("/blobs/") > 0);
    assert!(node.machine.log().contains("fetched from another place"), "{}", node.machine.log());
}

/// Spegel: another node's containerd, by digest and registry. It answers 404 for what no node has, also for tags if it is
/// set so, and to requests that do not say for which registry.
#[tokio::test(flavor = "multi_thread")]
async fn spegel_serves_what_nodes_have_and_the_registry_the_rest() {
    let registry = Registry::start(Options::default());
    let layout = layout("one");
    registry.push(&layout.reference("latest"), "one:1", &[]);
    let origin = Proxy::start(&registry.host()).await;
    let (has, of) = (Arc::new(blobs(&layout)), origin.address.to_string());
    let lacks_layers = {
        let (has, of) = (Arc::clone(&has), of.clone());
        move |asked: &Asked| {
            let (name, namespace) = wanted(asked);
            match has(&name).filter(|_| namespace == of) {
                Some(bytes) if asked.path.contains("/manifests/") => manifest(&bytes),
                Some(bytes) if bytes.len() < SIZE => Answer::body("application/octet-stream", &bytes),
                _ => Answer::status(404),
            }
        }
    };
    let spegel = Impostor::start(lacks_layers).await;
    let node = Node::new(&origin.address, &[]);
    node.hosts(&origin.address, &mirror(&spegel.address));
    let plugin = node.machine.start().await;
    node.publish(&plugin, &format!("{}/one:1", origin.address)).await.unwrap();
    assert_eq!(spegel.asked("/blobs/"), 2, "config and layer, each once");
    assert!(origin.passed() > SIZE as u64);
    assert_eq!(spegel.asked("ns="), spegel.asked("/"), "every request says for which registry");
}

/// Dragonfly: a proxy that fetches from the registry what no peer has, and answers 5xx when that fails.
#[tokio::test(flavor = "multi_thread")]
async fn dragonfly_that_fails_to_fetch_leads_to_the_registry() {
    let registry = Registry::start(Options::default());
    let layout = layout("one");
    registry.push(&layout.reference("latest"), "one:1", &[]);
    let origin = Proxy::start(&registry.host()).await;
    let (has, of) = (blobs(&layout), origin.address.to_string());
    let dragonfly = Impostor::start(move |asked| {
        let (name, namespace) = wanted(asked);
        if namespace != of {
            return Answer::status(400);
        }
        match has(&name) {
            Some(bytes) if asked.path.contains("/manifests/") => manifest(&bytes),
            Some(_) => Answer::status(502),
            None => Answer::status(500),
        }
    })
    .await;
    let node = Node::new(&origin.address, &[]);
    let registry_header = format!(
        "{}[host.\"http://{}\".header]\nX-Dragonfly-Registry = \"http://{}\"\n",
        mirror(&dragonfly.address),
        dragonfly.address,
        origin.address
    );
    node.hosts(&origin.address, &registry_header);
    let plugin = node.machine.start().await;
    let began = Instant::now();
    node.publish(&plugin, &format!("{}/one:1", origin.address)).await.unwrap();
    assert_eq!(dragonfly.asked("/blobs/"), 2, "no place is asked twice while there is another");
    assert!(origin.passed() > SIZE as u64);
    println!("with a failing mirror: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_helper_gives_the_nodes_credential() {
    let registry = Registry::start(Options { user: Some(ALICE), ..Options::default() });
    for name in ["one", "two"] {
        push(&[&registry], name);
    }
    let origin = registry.host();
    let node = Node::new(&origin, &[]);
    let helpers = node.machine.path().join("helpers");
    fs::create_dir(&helpers).unwrap();
    let helper = helpers.join("docker-credential-vault");
    let script = |password: &str| {
        format!(
            "#!/bin/sh\nread server\n[ \"$server\" = {origin} ] || exit 1\necho '{{\"Username\":\"alice\",\"Secret\":\"{password}\"}}'\n"
        )
    };
    fs::write(&helper, script("wrong-s3cret")).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let config = node.machine.path().join("config.json");
    fs::write(&config, format!(r#"{{"credHelpers": {{"{origin}": "vault"}}}}"#)).unwrap();
    let mut node = node;
    node.machine.also(&format!("--auth-file={}", config.display()));
    node.machine.also(&format!("--credential-helper-dir={}", helpers.display()));
    let plugin = node.machine.start().await;
    let image = |name: &str| format!("{origin}/{name}:1");
    let refused = node.publish(&plugin, &image("one")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    drop(plugin);
    fs::write(&helper, script(ALICE.1)).unwrap();
    let plugin = node.machine.start().await;
    node.publish(&plugin, &image("one")).await.unwrap();
    // A pod's own secret goes first, and names no program.
    let json = format!(r#"{{"credHelpers": {{"{origin}": "vault"}}}}"#);
    let own = HashMap::from([(".dockerconfigjson".to_owned(), json)]);
    let refused = node.publish_as(&plugin, &image("two"), "own", &own).await.unwrap_err();
    assert!(refused.message().contains("for the node's own config only"), "{refused}");
    let log = node.machine.log();
    assert!(!log.contains("s3cret") && !log.contains(ALICE.1), "{log}");
}
