//! The policy at every mount: the real engine over real signatures, in a registry whose content the test decides, and
//! the program with a policy that is revoked. Needs root.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use composefs_csi::csi::proto::NodeStageVolumeRequest;
use composefs_csi::csi::proto::volume_capability::access_mode::Mode;
use composefs_csi::image::store::Store;
use composefs_csi::kind::Kind;
use composefs_csi::oci::digest::Digest;
use composefs_csi::pull::{Images as _, PullError, PullLimits, PullPolicy, Puller, Ready};
use composefs_csi::trust::TrustSettings;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use serde_json::json;
use tonic::Code;

use crate::support::archive::archive;
use crate::support::driver::Machine;
use crate::support::images::{Image, Layout};
use crate::support::impostor::{Answer, Impostor};
use crate::support::pulling::{puller, request};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Media type and bytes by name.
type Content = Arc<Mutex<HashMap<String, (String, Vec<u8>)>>>;

/// A registry that has what it is given, by the end of the path: a tag, or a digest.
pub struct Registry {
    pub server: Impostor,
    content: Content,
}

impl Registry {
    /// With one image behind an index, tagged `1`; returns the digests of index and manifest.
    pub async fn start() -> (Self, Digest, Digest) {
        Self::with(Image::new(vec![archive(&[("file", b"hello")])])).await
    }

    /// The same with another image.
    pub async fn with(image: Image) -> (Self, Digest, Digest) {
        let content = Content::default();
        let seen = Arc::clone(&content);
        let server = Impostor::start(move |asked| {
            let name = asked.path.rsplit('/').next().unwrap_or_default();
            match seen.lock().unwrap().get(name) {
                Some((kind, body)) => {
                    Answer::body(kind, body).with("docker-content-digest", &Digest::of(body).to_string())
                }
                None => Answer::status(404),
            }
        })
        .await;
        let registry = Self { server, content };
        let mut layout = Layout::new();
        let index = layout.add_index(&[image], "1");
        let mut manifest = None;
        for entry in std::fs::read_dir(layout.path().join("blobs/sha256")).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            let document: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let kind = document["mediaType"].as_str().unwrap_or("application/octet-stream").to_owned();
            if kind == MANIFEST {
                manifest = Some(Digest::of(&bytes));
            }
            if Digest::of(&bytes) == index.digest {
                registry.put("1", &kind, &bytes);
            }
            registry.put(&Digest::of(&bytes).to_string(), &kind, &bytes);
        }
        (registry, index.digest, manifest.unwrap())
    }

    pub fn put(&self, name: &str, kind: &str, body: &[u8]) {
        self.content.lock().unwrap().insert(name.to_owned(), (kind.to_owned(), body.to_vec()));
    }

    pub fn host(&self) -> String {
        self.server.address.to_string()
    }

    pub fn image(&self) -> String {
        format!("{}/team/app:1", self.host())
    }

    /// What `cosign sign --key` of cosign 2 pushes.
    pub fn sign(&self, digest: &Digest, key: &PKey<Private>) {
        self.put_signatures(digest, vec![self.signature(digest, key, "")]);
    }

    /// A layer with a signature, and its blob; `padding` goes into what is signed.
    pub fn signature(&self, digest: &Digest, key: &PKey<Private>, padding: &str) -> serde_json::Value {
        let payload = json!({"critical": {
            "identity": {"docker-reference": format!("{}/team/app", self.host())},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        }, "optional": {"padding": padding}})
        .to_string();
        let mut signer = Signer::new(MessageDigest::sha256(), key).unwrap();
        let signature = signer.sign_oneshot_to_vec(payload.as_bytes()).unwrap();
        self.put(&Digest::of(payload.as_bytes()).to_string(), "application/octet-stream", payload.as_bytes());
        json!({
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "digest": Digest::of(payload.as_bytes()), "size": payload.len(),
            "annotations": {"dev.cosignproject.cosign/signature": STANDARD.encode(signature)},
        })
    }

    /// The manifest with these layers, under the tag where cosign 2 looks for it.
    pub fn put_signatures(&self, digest: &Digest, layers: Vec<serde_json::Value>) {
        self.put(&Digest::of(b"{}").to_string(), "application/octet-stream", b"{}");
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(b"{}"), "size": 2},
        "layers": layers});
        self.put(&format!("sha256-{}.sig", digest.hex()), MANIFEST, manifest.to_string().as_bytes());
    }
}

/// A new key.
pub fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

/// A policy file in `directory` that admits what `key` has signed, or everything, or nothing.
pub fn write_policy(directory: &Path, requirement: &serde_json::Value) -> PathBuf {
    let path = directory.join("policy.json");
    let policy = json!({"default": [requirement]}).to_string();
    // As an editor or a ConfigMap does it.
    std::fs::write(path.with_extension("new"), policy).unwrap();
    std::fs::rename(path.with_extension("new"), &path).unwrap();
    path
}

/// A requirement of signatures by `key`, whose public half it writes to `directory`.
pub fn signed_by(directory: &Path, key: &PKey<Private>) -> serde_json::Value {
    let path = directory.join("key.pub");
    std::fs::write(&path, key.public_key_to_pem().unwrap()).unwrap();
    json!({"type": "sigstoreSigned", "keyPath": path, "signedIdentity": {"type": "matchRepository"}})
}

struct Node {
    puller: Puller,
    store: Arc<Store>,
    directory: tempfile::TempDir,
}

impl Node {
    fn new(registry: &Registry, requirement: impl FnOnce(&Path) -> serde_json::Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let requirement = requirement(directory.path());
        let policy = write_policy(directory.path(), &requirement);
        let store =
            Store::open(&directory.path().join("store"), crate::support::csi::store_options()).unwrap();
        let store = Arc::new(store);
        let trust = TrustSettings { policy: Some(policy), ..TrustSettings::default() };
        let puller = puller(&store, &[registry.host()], &trust, PullLimits::default());
        Self { puller, store, directory }
    }

    fn policy(&self, requirement: &serde_json::Value) {
        write_policy(self.directory.path(), requirement);
        // Times of files tell policies apart.
        std::thread::sleep(Duration::from_millis(1100));
    }

    async fn ensure(&self, image: &str, policy: PullPolicy) -> Result<Ready, PullError> {
        self.puller.ensure(&request(image, policy)).await
    }

    async fn refused(&self, image: &str, policy: PullPolicy) -> String {
        let error = self.ensure(image, policy).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        assert!(error.to_string().contains("not admitted"), "{error}");
        error.to_string()
    }
}

pub fn reject() -> serde_json::Value {
    json!({"type": "reject"})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_refused_costs_no_bytes_and_one_that_is_signed_is_judged_offline_from_then_on() {
    let (registry, index, _) = Registry::start().await;
    let (mine, image) = (key(), registry.image());
    let node = Node::new(&registry, |directory| signed_by(directory, &mine));
    node.refused(&image, PullPolicy::IfNotPresent).await;
    registry.sign(&index, &key());
    node.refused(&image, PullPolicy::IfNotPresent).await;
    let only_payloads = registry.server.asked("/blobs/");
    assert!(node.store.images().list().unwrap().images.is_empty());
    assert_eq!(std::fs::read_dir(node.store.root().join("blobs")).unwrap().count(), 0);
    assert!(only_payloads <= 2, "{only_payloads} blobs: no layer and no config");

    registry.sign(&index, &mine);
    let ready = node.ensure(&image, PullPolicy::IfNotPresent).await.unwrap();
    assert!(ready.admission.unwrap().by.contains("sigstoreSigned"));
    // From here on nothing is asked: the index that is signed, and the signature, are here.
    registry.content.lock().unwrap().clear();
    let asked = registry.server.asked("/");
    for policy in [PullPolicy::IfNotPresent, PullPolicy::Never] {
        node.ensure(&image, policy).await.unwrap();
    }
    assert_eq!(registry.server.asked("/"), asked);
    // Another policy judges what is here, and finds it wanting.
    let other = signed_by(node.directory.path(), &key());
    node.policy(&other);
    let why = node.refused(&image, PullPolicy::IfNotPresent).await;
    assert!(why.contains("no newer signatures"), "{why}");
    node.refused(&image, PullPolicy::Never).await;
    let again = signed_by(node.directory.path(), &mine);
    node.policy(&again);
    node.ensure(&image, PullPolicy::Never).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_was_signed_after_it_was_pulled_is_found() {
    let (registry, _, manifest) = Registry::start().await;
    let (mine, image) = (key(), registry.image());
    let node = Node::new(&registry, |_| json!({"type": "insecureAcceptAnything"}));
    node.ensure(&image, PullPolicy::IfNotPresent).await.unwrap();
    let signed = signed_by(node.directory.path(), &mine);
    node.policy(&signed);
    node.refused(&image, PullPolicy::Never).await;
    node.refused(&image, PullPolicy::IfNotPresent).await;
    registry.sign(&manifest, &mine);
    node.refused(&image, PullPolicy::Never).await;
    node.ensure(&image, PullPolicy::IfNotPresent).await.unwrap();
    node.ensure(&image, PullPolicy::Never).await.unwrap();
    // What is stored is only believed as far as it can be verified.
    for file in std::fs::read_dir(node.store.root().join("dossiers").join(manifest.hex())).unwrap() {
        std::fs::write(file.unwrap().path(), "{}").unwrap();
    }
    node.refused(&image, PullPolicy::Never).await;
    node.ensure(&image, PullPolicy::IfNotPresent).await.unwrap();
    node.ensure(&image, PullPolicy::Never).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn judging_what_is_here_asks_nobody() {
    let (registry, index, _) = Registry::start().await;
    let (mine, image) = (key(), registry.image());
    let node = Node::new(&registry, |directory| signed_by(directory, &mine));
    registry.sign(&index, &mine);
    node.ensure(&image, PullPolicy::IfNotPresent).await.unwrap();
    let asked = registry.server.asked("/");
    let mut times = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        node.ensure(&image, PullPolicy::IfNotPresent).await.unwrap();
        times.push(begun.elapsed());
    }
    times.sort();
    // `make bench` measures what a policy costs.
    eprintln!("a warm request, access and policy included: p50 {:?}, p99 {:?}", times[100], times[198]);
    assert_eq!(registry.server.asked("/"), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_revoked_while_a_volume_is_staged_keeps_the_next_pod_out() {
    let (registry, _, _) = Registry::start().await;
    let directory = tempfile::tempdir().unwrap();
    let accept = json!({"type": "insecureAcceptAnything"});
    let policy = write_policy(directory.path(), &accept);
    let machine = Machine::new(&[
        &format!("--insecure-registry={}", registry.host()),
        &format!("--policy={}", policy.display()),
    ]);
    let plugin = machine.start().await;
    let mut node = plugin.node.clone();
    let staging = machine.path().join("kubelet/staging");
    std::fs::create_dir_all(&staging).unwrap();
    let stage = NodeStageVolumeRequest {
        volume_id: "pv-1".to_owned(),
        staging_target_path: staging.display().to_string(),
        volume_capability: Some(crate::support::csi::capability(Mode::MultiNodeReaderOnly)),
        volume_context: crate::support::csi::context(&[("image", &registry.image())]),
        ..Default::default()
    };
    node.node_stage_volume(stage.clone()).await.unwrap();
    let publish = |pod: &str| {
        let mut request = machine.publish(pod, &registry.image());
        request.volume_id = "pv-1".to_owned();
        request.volume_capability = stage.volume_capability.clone();
        request.volume_context.remove("csi.storage.k8s.io/ephemeral");
        request
    };
    node.node_publish_volume(publish("first")).await.unwrap();
    write_policy(directory.path(), &reject());
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut refused = 0;
    for pod in 0.. {
        let Err(status) = node.node_publish_volume(publish(&format!("pod-{pod}"))).await else {
            assert!(Instant::now() < deadline, "the policy is not read again");
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        assert!(status.message().contains("not admitted"), "{status:?}");
        refused += 1;
        break;
    }
    assert_eq!(refused, 1);
    assert_eq!(
        std::fs::read(machine.target("first").join("file")).unwrap(),
        b"hello",
        "what is mounted stays"
    );
    node.node_publish_volume(publish("first")).await.unwrap();
    write_policy(directory.path(), &accept);
    let deadline = Instant::now() + Duration::from_secs(120);
    while node.node_publish_volume(publish("last")).await.is_err() {
        assert!(Instant::now() < deadline, "the policy is not read again");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
