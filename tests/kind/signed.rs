//! A policy that asks for a signature: cosign signs, the node plugin judges.

use std::path::PathBuf;
use std::process::Command;

use composefs_csi::oci::digest::Digest;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::images::Files;
use crate::pods::{Reader, inline};
use crate::registry::{Registries, Registry};
use crate::support::registry::run;
use crate::support::tools;

/// Below this path of the open registry, images must be signed.
const SIGNED: &str = "signed";
/// Who the signed images say they are. The registry has one address for nodes and another here, and a signature
/// must not depend on either.
const IDENTITY: &str = "suite.example.com/signed";

/// A key pair and cosign.
pub struct Signer {
    directory: tempfile::TempDir,
}

impl Signer {
    /// Makes the keys.
    pub fn new() -> Self {
        let signer = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        run(signer.cosign().arg("generate-key-pair"));
        signer
    }

    /// The chart's values for `policy`: nothing by default, all of the suite's registries, signatures for a part.
    pub fn policy(&self, registries: &Registries) -> Value {
        let key = std::fs::read_to_string(self.directory.path().join("cosign.pub")).expect("the public key");
        let accept = json!([{"type": "insecureAcceptAnything"}]);
        let signature = json!([{
            "type": "sigstoreSigned",
            "keyPath": "/etc/composefs-csi/keys/suite.pub",
            "signedIdentity": {"type": "exactRepository", "dockerRepository": IDENTITY},
        }]);
        let scopes = json!({
            &registries.open.host: accept,
            &registries.private.host: accept,
            format!("{}/{SIGNED}", registries.open.host): signature,
        });
        let json = json!({"default": [{"type": "reject"}], "transports": {"docker": scopes}});
        json!({"withoutPolicy": "reject", "json": json, "keys": {"suite.pub": key}})
    }

    /// Signs an image of a registry.
    fn sign(&self, registry: &Registry, repository: &str, digest: &Digest) {
        let image = format!("{}/{repository}@{digest}", registry.local());
        let mut cosign = self.cosign();
        cosign.args(["sign", "--key", "cosign.key", "--yes", "--allow-http-registry", "--tlog-upload=false"]);
        cosign.args(["--use-signing-config=false", "--new-bundle-format=false"]);
        run(cosign.args(["--sign-container-identity", IDENTITY, &image]));
    }

    fn cosign(&self) -> Command {
        let program: PathBuf = tools::debian("cosign", "cosign");
        let mut command = Command::new(program);
        command.current_dir(self.directory.path()).env("COSIGN_PASSWORD", "");
        command
    }
}

/// Without a signature the pod does not start and its Events say why; with one it reads.
pub async fn or_refused(cluster: &Cluster) {
    let registry = &cluster.registries.open;
    let repository = format!("{SIGNED}/app");
    let (image, digest) =
        registry.push(&Files::default().with("motd", "signed\n"), &format!("{repository}:1"));
    let volume = || inline(json!({"image": image, "pullPolicy": "Always"}));
    cluster.submit(&Reader::new("unsigned", volume())).await;
    // kubelet's FailedMount says it as well, as it says everything; this is the one to search for.
    let refusal = cluster.own_event("unsigned", "Refused").await;
    let scope = format!("transports.docker[\"{}/{SIGNED}\"]", registry.host);
    for part in [
        &image,
        "is not admitted by policy /etc/composefs-csi/",
        &scope,
        "no signature of",
        "let it be signed by",
    ] {
        assert!(refusal.contains(part), "{part:?} is missing in {refusal:?}");
    }

    cluster.signer.sign(registry, &repository, &digest);
    cluster.start(&Reader::new("signed", volume())).await;
    assert_eq!(cluster.sh("signed", "cat /content/motd"), "signed");
}
