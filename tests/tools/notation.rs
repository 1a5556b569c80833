//! Debian's notation behind the verifier directory: what it has signed in a real registry is mounted, and nothing
//! else, by the program itself with the script that operators copy. Needs root.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use composefs_csi::oci::digest::Digest;
use serde_json::{Value, json};
use tonic::Code;

use crate::support::driver::Machine;
use crate::support::images::{Image, Layout};
use crate::support::program;
use crate::support::registry::{Options, Registry, run};
use crate::support::tools::debian;

const SCRIPT: &str = include_str!("../../examples/verifiers/notation.sh");

/// A registry, somebody who signs, and a verifier directory that trusts the certificate `team` in `HOST/team/app`.
struct Site {
    registry: Registry,
    notation: PathBuf,
    directory: tempfile::TempDir,
}

/// An image in the registry.
struct Target {
    repository: String,
    tag: &'static str,
    digest: Digest,
}

impl Target {
    fn by_tag(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }

    fn by_digest(&self) -> String {
        format!("{}@{}", self.repository, self.digest)
    }
}

impl Site {
    fn new() -> Self {
        let site = Self {
            registry: Registry::start(Options::default()),
            notation: debian("notation", "notation"),
            directory: tempfile::tempdir().unwrap(),
        };
        for name in ["team", "other"] {
            site.notation(&["cert", "generate-test", name]);
        }
        let config = site.config();
        fs::create_dir_all(config.join("truststore/x509/ca/team")).unwrap();
        let trust_policy = json!({"version": "1.0", "trustPolicies": [{
            "name": "team",
            "registryScopes": [format!("{}/team/app", site.registry.host())],
            "signatureVerification": {"level": "strict"},
            "trustStores": ["ca:team"],
            "trustedIdentities": ["x509.subject: C=US, ST=WA, L=Seattle, O=Notary, CN=team"],
        }]});
        fs::write(config.join("trustpolicy.json"), trust_policy.to_string()).unwrap();
        let insecure = json!({"insecureRegistries": [site.registry.host()]});
        fs::write(config.join("config.json"), insecure.to_string()).unwrap();
        site.trust("team");
        let bin = site.verifiers().join(".notation/bin");
        fs::create_dir_all(&bin).unwrap();
        symlink(&site.notation, bin.join("notation")).unwrap();
        site.install();
        site
    }

    fn verifiers(&self) -> PathBuf {
        self.directory.path().join("verifiers")
    }

    /// The node's configuration of notation.
    fn config(&self) -> PathBuf {
        self.verifiers().join(".notation/.config/notation")
    }

    /// Makes the certificate `name` the only one of the node's trust store.
    fn trust(&self, name: &str) {
        let from = self.signer().join(".config/notation/localkeys").join(name).with_extension("crt");
        fs::copy(from, self.config().join("truststore/x509/ca/team/signer.crt")).unwrap();
    }

    /// Puts the script there, anew: a verdict counts for the program that gave it.
    fn install(&self) {
        let path = self.verifiers().join("notation.sh");
        program::write(&path, SCRIPT);
    }

    /// The home of those who sign. Their keys are not on the node.
    fn signer(&self) -> PathBuf {
        self.directory.path().join("signer")
    }

    fn notation(&self, arguments: &[&str]) {
        let mut notation = Command::new(&self.notation);
        run(notation.env("HOME", self.signer()).env_remove("XDG_CONFIG_HOME").args(arguments));
    }

    fn sign(&self, target: &Target, key: &str) {
        self.notation(&["sign", "--insecure-registry", "--key", key, &target.by_digest()]);
    }

    fn push(&self, repository: &str, tag: &'static str, content: &[u8]) -> Target {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, "file", content).unwrap();
        let mut layout = Layout::new();
        let digest = layout.add(&Image::new(vec![archive.into_inner().unwrap()]), "latest").digest;
        let to = format!("{repository}:{tag}");
        self.registry.push(&layout.reference("latest"), &to, &["--preserve-digests"]);
        Target { repository: format!("{}/{repository}", self.registry.host()), tag, digest }
    }

    /// What refers to `from`, where registries without the referrers API keep it, is said to refer to `to`.
    fn copy_referrers(&self, from: &Target, to: &Target) {
        let tags = self.registry.storage().join("docker/registry/v2/repositories/team/app/_manifests/tags");
        let of = |target: &Target| tags.join(format!("sha256-{}", target.digest.hex()));
        assert!(!of(to).exists());
        run(Command::new("cp").arg("-r").arg(of(from)).arg(of(to)));
    }

    fn machine(&self) -> Machine {
        let arguments = ["--without-policy=accept".to_owned(), "--verifier-timeout=60".to_owned()];
        let registry = format!("--insecure-registry={}", self.registry.host());
        let verifiers = format!("--verifier-dir={}", self.verifiers().display());
        Machine::new(&[&arguments[0], &arguments[1], &registry, &verifiers])
    }

    /// `policy check`: whether the image is admitted, and what is said about it.
    fn check(&self, image: &str) -> (bool, String) {
        let output =
            self.machine().command(&["policy", "check", image, "--output", "json"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let explained: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
        let admitted = explained["admitted"].as_bool().unwrap();
        assert_eq!(output.status.success(), admitted, "{said}");
        assert_eq!(explained["verifiers"][0]["name"], "notation.sh");
        (admitted, explained["because"].as_str().unwrap().to_owned())
    }

    fn refused(&self, image: &str, why: &str) {
        let (admitted, because) = self.check(image);
        assert!(!admitted && because.contains(why), "{image}: {because}; expected: {why}");
    }

    fn admitted(&self, image: &str) {
        let (admitted, because) = self.check(image);
        assert!(admitted && because.contains("verifier notation.sh"), "{image}: {because}");
    }
}

fn read(target: &Path) -> Vec<u8> {
    fs::read(target.join("file")).unwrap()
}

#[test]
fn the_documentation_has_the_script_that_is_tested() {
    let documented = format!("```sh\n{SCRIPT}```\n");
    assert!(include_str!("../../docs/policies.md").contains(&documented), "docs/policies.md differs");
}

#[test]
fn an_image_is_admitted_by_a_certificate_of_the_trust_store_in_a_repository_of_the_trust_policy() {
    let site = Site::new();
    let (app, next) = (site.push("team/app", "1", b"app"), site.push("team/app", "2", b"next"));
    site.refused(&app.by_tag(), "no signature");
    site.sign(&app, "other");
    site.refused(&app.by_tag(), "for all the signatures associated");
    site.sign(&app, "team");
    for image in [app.by_tag(), app.by_digest(), format!("{}@{}", app.by_tag(), app.digest)] {
        site.admitted(&image);
    }
    site.refused(&next.by_tag(), "no signature");
    site.copy_referrers(&app, &next);
    site.refused(&next.by_tag(), "for all the signatures associated");
    let elsewhere = site.push("team/elsewhere", "1", b"elsewhere");
    site.sign(&elsewhere, "team");
    site.refused(&elsewhere.by_tag(), "no applicable trust policy");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_get_what_notation_admits_for_as_long_as_it_does() {
    let site = Site::new();
    let (app, next) = (site.push("team/app", "1", b"app"), site.push("team/app", "2", b"next"));
    site.sign(&app, "team");
    site.sign(&next, "other");
    let machine = site.machine();
    let refused = machine.command(&["pull", &next.by_tag()]).output().unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("not admitted") && said.contains(&next.by_tag()), "{said}");
    machine.run(&["pull", &app.by_tag()]);

    let plugin = machine.start().await;
    let mut node = plugin.node.clone();
    node.node_publish_volume(machine.publish("first", &app.by_tag())).await.unwrap();
    assert_eq!(read(&machine.target("first")), b"app");
    let mut refusals = vec![node.node_publish_volume(machine.publish("second", &next.by_tag())).await];
    // Another certificate takes the place of the one that has signed what is cached and mounted.
    site.trust("other");
    site.install();
    refusals.push(node.node_publish_volume(machine.publish("third", &app.by_tag())).await);
    for (refused, image) in refusals.into_iter().zip([&next, &app]) {
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        for words in ["not admitted", "verifier notation.sh", &image.by_tag()] {
            assert!(status.message().contains(words), "{words}: {status:?}");
        }
    }
    assert_eq!(machine.published(), [machine.target("first")]);
    assert_eq!(read(&machine.target("first")), b"app", "who has it keeps it");
    site.trust("team");
    site.install();
    node.node_publish_volume(machine.publish("fourth", &app.by_tag())).await.unwrap();
    assert_eq!(read(&machine.target("fourth")), b"app");
}
