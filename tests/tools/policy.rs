//! Policies as an operator uses them: the real program, a real registry, images signed by cosign.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::driver::Machine;
use crate::support::images::{Image, Layout};
use crate::support::program;
use crate::support::registry::{Options, Registry, run};
use crate::support::tools::debian;

/// A registry with one image, and a directory for keys, policies and programs.
struct Site {
    registry: Registry,
    directory: tempfile::TempDir,
    /// `HOST/team/app`.
    repository: String,
    digest: String,
}

impl Site {
    fn new() -> Self {
        let registry = Registry::start(Options::default());
        let mut layout = Layout::new();
        let digest =
            layout.add(&Image::new(vec![archive("greeting", b"hello")]), "latest").digest.to_string();
        registry.push(&layout.reference("latest"), "team/app:1", &["--preserve-digests"]);
        let repository = format!("{}/team/app", registry.host());
        Self { registry, directory: tempfile::tempdir().unwrap(), repository, digest }
    }

    fn image(&self) -> String {
        format!("{}:1", self.repository)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A key pair `NAME.key` and `NAME.pub`.
    fn key(&self, name: &str) -> PathBuf {
        let mut cosign = self.cosign();
        run(cosign.arg("generate-key-pair").arg("--output-key-prefix").arg(name));
        self.path(&format!("{name}.pub"))
    }

    fn cosign(&self) -> Command {
        let mut cosign = Command::new(debian("cosign", "cosign"));
        cosign.current_dir(self.directory.path()).env("COSIGN_PASSWORD", "");
        cosign
    }

    /// Signs the image as cosign 2 does (`.sig`), or as cosign 3 does (a bundle). No log is told.
    fn sign(&self, key: &str, bundle: bool) {
        let mut cosign = self.cosign();
        cosign.args([
            "sign",
            "--yes",
            "--allow-http-registry",
            "--use-signing-config=false",
            "--tlog-upload=false",
        ]);
        cosign.arg(format!("--new-bundle-format={bundle}"));
        cosign.arg("--key").arg(format!("{key}.key")).arg(format!("{}@{}", self.repository, self.digest));
        run(&mut cosign);
    }

    fn policy(&self, name: &str, policy: &Value) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, policy.to_string()).unwrap();
        path
    }

    /// Admits this registry's images by `requirements`, and nothing else.
    fn only(&self, name: &str, requirements: Value) -> PathBuf {
        let scopes = json!({ self.registry.host(): requirements });
        self.policy(name, &json!({"default": [{"type": "reject"}], "transports": {"docker": scopes}}))
    }

    fn verifier(&self, name: &str, body: &str) {
        let path = self.path("verifiers").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        program::write(&path, &format!("#!/bin/sh\n{body}\n"));
    }

    /// `policy check` with these settings: whether the image is admitted, and the explanation.
    fn check(&self, settings: &[&str]) -> (bool, Value) {
        let host = self.registry.host();
        let machine = Machine::new(&[&["--insecure-registry", &host], settings].concat());
        // Not a machine without a policy that the test driver opens.
        let output =
            machine.command(&["policy", "check", &self.image(), "--output", "json"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let explained: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
        let admitted = explained["admitted"].as_bool().unwrap();
        assert_eq!(output.status.code(), Some(i32::from(!admitted)), "{said}");
        assert_eq!(said.contains("is not admitted"), !admitted, "{said}");
        (admitted, explained)
    }
}

fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, name, content).unwrap();
    archive.into_inner().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Says every word of `words`.
fn assert_says(explained: &Value, words: &[&str]) {
    let because = explained["because"].as_str().unwrap();
    for word in words {
        assert!(because.contains(word), "{word:?} is not in: {because}");
    }
}

fn signed_by(key: &Path) -> Value {
    json!([{"type": "sigstoreSigned", "keyPath": key, "signedIdentity": {"type": "matchRepository"}}])
}

fn bundled_by(key: &Path) -> Value {
    json!([{"type": "sigstoreBundle", "keyPath": key, "ignoreTlog": true}])
}

#[test]
fn without_a_policy_the_answer_is_how_to_begin() {
    let site = Site::new();
    let (admitted, explained) = site.check(&["--without-policy", "reject"]);
    assert!(!admitted);
    assert_says(&explained, &["--policy FILE", "--without-policy accept", &site.repository]);
    assert_eq!(explained["policy"], Value::Null);
    let (admitted, explained) = site.check(&["--without-policy", "accept"]);
    assert!(admitted, "{explained}");
    // A policy that is named and not there is another thing than none.
    let missing = site.path("missing.json");
    let (admitted, explained) = site.check(&["--policy", text(&missing), "--without-policy", "accept"]);
    assert!(!admitted);
    assert_says(&explained, &["missing.json", "cannot read"]);
}

#[test]
fn an_image_is_admitted_by_the_signature_that_the_policy_names() {
    let site = Site::new();
    let (team, other) = (site.key("team"), site.key("other"));
    let policy = site.only("policy.json", signed_by(&team));
    let settings = ["--policy", text(&policy)];

    let (admitted, explained) = site.check(&settings);
    assert!(!admitted);
    assert_eq!(explained["signatures_found"], 0);
    assert_says(&explained, &["no signature of", &site.digest, "team.pub"]);

    site.sign("other", false);
    let (admitted, explained) = site.check(&settings);
    assert!(!admitted);
    assert_eq!(explained["signatures_found"], 1);
    assert_says(&explained, &["1 signature was found", "team.pub"]);

    // A bundle names no repository, so sigstoreSigned does not take it, and says what does.
    site.sign("team", true);
    let (admitted, explained) = site.check(&settings);
    assert!(!admitted);
    assert_eq!(explained["signatures_found"], 2);
    assert_says(&explained, &["sigstoreBundle"]);
    let bundles = site.only("bundles.json", bundled_by(&team));
    let (admitted, explained) = site.check(&["--policy", text(&bundles)]);
    assert!(admitted, "{explained}");
    assert!(!site.check(&["--policy", text(&site.only("other.json", bundled_by(&site.key("third"))))]).0);

    site.sign("team", false);
    let (admitted, explained) = site.check(&settings);
    assert!(admitted, "{explained}");
    let requirement = &explained["requirements"][0];
    assert_eq!(requirement["name"], "sigstoreSigned");
    assert_eq!(requirement["at"], format!("transports.docker[{:?}][0]", site.registry.host()));
    assert_says(&explained, &["sigstoreSigned by", &site.digest]);

    // All requirements count.
    let both = json!([signed_by(&team)[0], signed_by(&other)[0]]);
    assert!(site.check(&["--policy", text(&site.only("both.json", both))]).0);
    let more = json!([signed_by(&team)[0], {"type": "composefs", "requireDigest": true}]);
    let (admitted, explained) = site.check(&["--policy", text(&site.only("more.json", more))]);
    assert!(!admitted);
    assert_says(&explained, &["composefs-csi seal"]);
    // What cosign writes carries no tag, and the default identity asks for one.
    let strict = json!([{"type": "sigstoreSigned", "keyPath": team}]);
    let (admitted, explained) = site.check(&["--policy", text(&site.only("strict.json", strict))]);
    assert!(!admitted);
    assert_says(&explained, &["matchRepository"]);
}

/// A team changes from a key to bundles by another one, and tries a third policy before it refuses anything.
#[test]
fn one_of_several_signatures_is_enough_and_a_policy_can_be_tried() {
    let site = Site::new();
    let (old, new, third) = (site.key("old"), site.key("new"), site.key("third"));
    let either = json!({"type": "anyOf", "requirements": [signed_by(&old)[0], bundled_by(&new)[0]]});
    let policy = site.only("either.json", json!([either]));
    let settings = ["--policy", text(&policy)];
    let (admitted, explained) = site.check(&settings);
    assert!(!admitted);
    assert_says(&explained, &["anyOf", "none of its alternatives holds", "old.pub", "new.pub"]);
    site.sign("new", true);
    let (admitted, explained) = site.check(&settings);
    assert!(admitted, "{explained}");
    assert_says(&explained, &["anyOf (sigstoreBundle) by"]);
    let other = Site::new();
    assert!(!other.check(&settings).0, "the scope is another registry's, and the default rejects");

    let strict = site.only("strict.json", signed_by(&third));
    let settings = ["--policy", text(&strict)];
    assert!(!site.check(&settings).0);
    let (admitted, explained) = site.check(&[&settings[..], &["--policy-mode", "warn"]].concat());
    assert!(admitted, "{explained}");
    assert!(explained["warning"].as_str().unwrap().contains("third.pub"), "{explained}");
    assert_eq!(explained["requirements"][0]["holds"], false);
    assert_eq!(explained["requirements"][0]["only_warns"], true);
    assert!(
        !other.check(&[&settings[..], &["--policy-mode", "warn"]].concat()).0,
        "a reject is not softened"
    );
    let warns = json!([{"type": "warnOnly"}, signed_by(&third)[0]]);
    let (admitted, explained) = site.check(&["--policy", text(&site.only("warns.json", warns))]);
    assert!(admitted && explained["warning"].is_string(), "{explained}");
    // By the key that was wanted there is nothing to warn of.
    site.sign("third", false);
    let (admitted, explained) = site.check(&[&settings[..], &["--policy-mode", "warn"]].concat());
    assert!(admitted && explained["warning"].is_null(), "{explained}");
}

#[test]
fn people_get_the_same_in_words() {
    let site = Site::new();
    let policy = site.only("policy.json", signed_by(&site.key("team")));
    let machine = Machine::new(&["--insecure-registry", &site.registry.host(), "--policy", text(&policy)]);
    let output = machine.command(&["policy", "check", &site.image()]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for words in [&site.image(), &site.digest, text(&policy), "sigstoreSigned", "fails", "refused"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(output.status.code(), Some(1));
    assert!(!machine.state().exists(), "a question changes nothing on the node");
}

#[test]
fn a_namespace_may_have_its_own_policy() {
    let site = Site::new();
    let node = site.policy("policy.json", &json!({"default": [{"type": "reject"}]}));
    site.policy("namespaces/team-a.json", &json!({"default": [{"type": "insecureAcceptAnything"}]}));
    site.policy("namespaces/team-b.json", &json!({"default": [{"type": "accept"}]}));
    let directory = site.path("namespaces");
    let check = |namespace: &[&str]| {
        site.check(&[&["--policy", text(&node), "--policy-dir", text(&directory)], namespace].concat())
    };
    assert!(!check(&[]).0);
    assert!(!check(&["--namespace", "default"]).0);
    let (admitted, explained) = check(&["--namespace", "team-a"]);
    assert!(admitted, "{explained}");
    assert_eq!(explained["namespace"], "team-a");
    let (admitted, explained) = check(&["--namespace", "team-b"]);
    assert!(!admitted, "a broken policy is not the node's instead");
    assert_says(&explained, &["team-b.json", "default[0].type", "\"accept\" is not known"]);
    let (admitted, explained) = check(&["--namespace", "../policy"]);
    assert!(!admitted);
    assert_says(&explained, &["DNS label"]);
}

#[test]
fn verifier_programs_must_agree_with_the_policy() {
    let site = Site::new();
    let directory = site.path("verifiers");
    let settings =
        ["--without-policy", "accept", "--verifier-dir", text(&directory), "--verifier-timeout", "2"];
    let (admitted, explained) = site.check(&settings);
    assert!(!admitted);
    assert_says(&explained, &["verifier directory", "No such file"]);

    site.verifier("a-allows", "echo signed by the team");
    let (admitted, explained) = site.check(&settings);
    assert!(admitted, "{explained}");
    let answer = json!({"name": "a-allows", "at": null, "holds": true, "only_warns": false, "because": "signed by the team"});
    assert_eq!(explained["verifiers"], json!([answer]));

    let seen = site.path("seen");
    site.verifier("b-looks", &format!("{{ echo \"$@\"; cat; }} >{}; exit 7", text(&seen)));
    let (admitted, explained) = site.check(&settings);
    assert!(!admitted);
    assert_says(&explained, &["b-looks refused with exit code 7"]);
    let seen = fs::read_to_string(seen).unwrap();
    let (arguments, descriptor) = seen.split_once('\n').unwrap();
    assert_eq!(
        arguments,
        format!(
            "-name {} -digest {} -stdin-media-type application/vnd.oci.descriptor.v1+json",
            site.image(),
            site.digest
        )
    );
    let descriptor: Value = serde_json::from_str(descriptor).unwrap();
    assert_eq!(descriptor["digest"], site.digest);
    assert_eq!(descriptor["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert!(descriptor["size"].as_u64().unwrap() > 100);

    // Longer than the test suite has.
    site.verifier("b-looks", "sleep 100000");
    let (admitted, explained) = site.check(&settings);
    assert!(!admitted);
    assert_says(&explained, &["b-looks did not answer within 2 seconds"]);

    program::write(&directory.join("b-looks"), "not a program");
    assert_says(&site.check(&settings).1, &["b-looks", "cannot be run"]);
    fs::set_permissions(directory.join("b-looks"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_says(&site.check(&settings).1, &["b-looks", "chmod +x"]);
    // The policy's no is enough.
    fs::remove_file(directory.join("b-looks")).unwrap();
    let policy = site.policy("policy.json", &json!({"default": [{"type": "reject"}]}));
    assert!(!site.check(&["--policy", text(&policy), "--verifier-dir", text(&directory)]).0);
}
