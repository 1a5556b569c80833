//! A policy that is replaced while an image that it admitted is cached and mounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use composefs_csi::image::store::{NodeKey, Options, Store};
use composefs_csi::kind::Kind;
use composefs_csi::node::mount::Mounter as _;
use composefs_csi::oci::digest::Digest;
use composefs_csi::pull::{Images as _, PullError, PullLimits, PullPolicy, Puller, Ready};
use composefs_csi::trust::TrustSettings;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use serde_json::json;

use crate::disk::drop_caches;
use crate::guest::{LENGTH, bench, start, whole};
use crate::support::archive::archive;
use crate::support::images::{Image, Layout};
use crate::support::mount::content;
use crate::support::pulling::{puller, request};

const REPOSITORY: &str = "registry.test/team/app";

fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

/// What `cosign sign --key` of cosign 2 adds to a layout.
fn sign(layout: &mut Layout, digest: &Digest, key: &PKey<Private>) {
    let payload = json!({"critical": {
        "identity": {"docker-reference": REPOSITORY},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }, "optional": null})
    .to_string();
    let mut signer = Signer::new(MessageDigest::sha256(), key).unwrap();
    let signature = STANDARD.encode(signer.sign_oneshot_to_vec(payload.as_bytes()).unwrap());
    let mut layer =
        json!(layout.blob("application/vnd.dev.cosign.simplesigning.v1+json", payload.as_bytes()));
    layer["annotations"] = json!({"dev.cosignproject.cosign/signature": signature});
    let config = layout.blob("application/vnd.oci.image.config.v1+json", b"{}");
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer]});
    let manifest = layout.blob(media_type, manifest.to_string().as_bytes());
    layout.tag(&manifest, &format!("sha256-{}.sig", digest.hex()));
}

fn signed_by(key: &PKey<Private>) -> String {
    let identity = json!({"type": "exactRepository", "dockerRepository": REPOSITORY});
    let key = STANDARD.encode(key.public_key_to_pem().unwrap());
    let requirement = json!({"type": "sigstoreSigned", "keyData": key, "signedIdentity": identity});
    json!({ "default": [requirement] }).to_string()
}

struct Node {
    puller: Puller,
    policy: PathBuf,
    image: String,
}

impl Node {
    fn new(store: &Path, policy: PathBuf, image: String) -> Self {
        let store = Store::open(store, Options::new(NodeKey::from_bytes(&[42; 32]))).unwrap();
        let trust = TrustSettings { policy: Some(policy.clone()), ..TrustSettings::default() };
        let puller = puller(&Arc::new(store), &[], &trust, PullLimits::default());
        Self { puller, policy, image }
    }

    /// Replaces the policy as an editor does, and waits until it must have been seen.
    fn write_policy(&self, text: &str) {
        let new = self.policy.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &self.policy).unwrap();
        std::thread::sleep(Duration::from_millis(1500));
    }

    fn ensure(&self, policy: PullPolicy) -> Result<Ready, PullError> {
        let request = request(&self.image, policy);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(self.puller.ensure(&request))
    }

    /// Refused whether or not the source is asked; the error names the image and the policy's file.
    fn refused(&self, why: &str) {
        for policy in [PullPolicy::Never, PullPolicy::IfNotPresent, PullPolicy::Always] {
            let error = self.ensure(policy).unwrap_err();
            assert_eq!(error.kind(), Kind::Unsupported, "{error}");
            let said = error.to_string();
            for words in ["not admitted", why, &self.image, self.policy.to_str().unwrap()] {
                assert!(said.contains(words), "{words:?} is not in: {said}");
            }
        }
    }
}

/// Cached and mounted under one policy; refused under those that take its place; admitted again by the first.
pub fn replaced() -> String {
    let bench = bench("policy");
    fs::remove_dir_all(bench.store()).unwrap();
    fs::create_dir_all(std::env::temp_dir()).unwrap();
    let (text, mine) = (content(90, LENGTH), key());
    let mut layout = Layout::new();
    let manifest = layout.add(&Image::new(vec![archive(&[("file", &text)])]), "latest").digest;
    sign(&mut layout, &manifest, &mine);
    let node = Node::new(&bench.store(), bench.root.join("policy.json"), layout.reference("latest"));
    let good = signed_by(&mine);
    node.write_policy(&good);
    let ready = node.ensure(PullPolicy::IfNotPresent).unwrap();
    assert!(ready.admission.unwrap().by.contains("sigstoreSigned"));
    let mounter = start(&bench);
    let earlier = bench.target("earlier");
    mounter.mount(&whole(ready.record.image), &earlier).unwrap();

    let reject = json!({"default": [{"type": "reject"}]}).to_string();
    for (policy, why) in [
        (reject, "reject"),
        (good[..good.len() - 2].to_owned(), "line 1"),
        (signed_by(&key()), "does not verify with key"),
    ] {
        node.write_policy(&policy);
        node.refused(why);
        drop_caches();
        assert_eq!(fs::read(earlier.join("file")).unwrap(), text, "who has it keeps it");
    }
    node.write_policy(&good);
    for policy in [PullPolicy::Never, PullPolicy::IfNotPresent] {
        assert_eq!(node.ensure(policy).unwrap().record.image, ready.record.image);
    }
    let later = bench.target("later");
    mounter.mount(&whole(ready.record.image), &later).unwrap();
    assert_eq!(fs::read(later.join("file")).unwrap(), text);
    "reject, garbage and another key refuse; the earlier mount stays".into()
}
