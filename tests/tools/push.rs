//! What `push` writes, read by other people's tools: podman and skopeo unpack the image, oras the artifact, and cosign's
//! signature of a sealed one is what a node's policy asks for.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::archive::noise;
use crate::support::disk::SmallDisk;
use crate::support::driver::Machine;
use crate::support::proxy::Proxy;
use crate::support::registry::{Options, Registry, run};
use crate::support::tools::{debian, debian_set, installed};
use crate::support::unpacked;

fn tree(root: &Path) {
    fs::create_dir_all(root.join("usr/share/日本語")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("usr/share/日本語/f"), noise("f", 70_000)).unwrap();
    fs::write(root.join("large"), noise("large", 40 << 20)).unwrap();
    fs::write(root.join("holes"), [noise("1", 5000), vec![0; 2 << 20], noise("2", 5000)].concat()).unwrap();
    fs::write(root.join("n".repeat(220)), b"long").unwrap();
    fs::write(root.join("none"), b"").unwrap();
    fs::hard_link(root.join("large"), root.join("same")).unwrap();
    symlink("usr/share", root.join("link")).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(root.join("none"), "user.colour", b"blue\0\xff", flags).unwrap();
}

fn machine(registry: &Registry, extra: &[&str]) -> Machine {
    let host = format!("--insecure-registry={}", registry.host());
    Machine::new(&[&[host.as_str()], extra].concat())
}

/// Both trees, without the root: what it is depends on the tool.
fn assert_same(found: &Path, wanted: &Path) {
    let entries = |root: &Path| {
        let mut all = unpacked::entries(root);
        all.retain(|entry| !entry.path.is_empty());
        all
    };
    let (found, wanted) = (entries(found), entries(wanted));
    for (found, wanted) in found.iter().zip(&wanted) {
        assert_eq!(found, wanted, "{}", String::from_utf8_lossy(&wanted.path));
    }
    assert_eq!(found.len(), wanted.len());
}

/// umoci reads layers as the specification says, after skopeo has compared every digest.
#[test]
fn skopeo_and_umoci_unpack_what_was_pushed() {
    let registry = Registry::start(Options::default());
    let (root, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tree(root.path());
    for compression in ["gzip", "zstd", "zstd-chunked"] {
        let to = format!("{}/data:{compression}", registry.host());
        let option = format!("--compression={compression}");
        let keep = ["--keep-times", "--keep-owners"];
        machine(&registry, &[])
            .run(&[&["push", root.path().to_str().unwrap(), &to, &option], &keep[..]].concat());
        let (layout, bundle) =
            (out.path().join(compression), out.path().join(format!("{compression}-bundle")));
        let mut skopeo = Command::new(debian("containers", "skopeo"));
        skopeo.args(["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false"]);
        // Bookworm's umoci knows no zstd.
        skopeo.args(["--dest-compress-format=gzip", "--dest-force-compress-format"]);
        run(skopeo.arg(format!("docker://{to}")).arg(format!("oci:{}:x", layout.display())));
        let image = format!("{}:x", layout.display());
        run(Command::new(installed("umoci")).args(["raw", "unpack", "--image", &image]).arg(&bundle));
        assert_same(&bundle, root.path());
    }
}

/// podman with partial pulls, whose storage is below a directory.
struct Podman {
    at: PathBuf,
}

impl Podman {
    fn new(at: &Path) -> Self {
        let options = "[storage]\ndriver = \"overlay\"\n[storage.options]\npull_options = {enable_partial_images = \"true\", use_hard_links = \"false\"}\n";
        fs::write(at.join("storage.conf"), options).unwrap();
        fs::write(at.join("policy.json"), r#"{"default": [{"type": "insecureAcceptAnything"}]}"#).unwrap();
        // It looks for its helpers at its start, whatever it is to do.
        let helpers = debian_set("containers").join("root/usr/lib/podman");
        fs::write(at.join("containers.conf"), format!("[engine]\nhelper_binaries_dir = [{helpers:?}]\n"))
            .unwrap();
        Self { at: at.to_owned() }
    }

    /// What it printed, and what it said meanwhile.
    fn run(&self, arguments: &[&str]) -> (String, String) {
        let mut podman = Command::new(debian("containers", "podman"));
        podman.env("CONTAINERS_STORAGE_CONF", self.at.join("storage.conf"));
        podman.env("CONTAINERS_CONF", self.at.join("containers.conf"));
        podman.arg("--root").arg(self.at.join("root")).arg("--runroot").arg(self.at.join("run"));
        let output = podman.args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    }

    /// Pulls an image by its tables, and reads a file of it.
    fn file_of(&self, image: &str, file: &str) -> Vec<u8> {
        let policy = format!("--signature-policy={}", self.at.join("policy.json").display());
        let said = self.run(&["--log-level=debug", "pull", "--tls-verify=false", &policy, image]).1;
        assert!(said.contains("Retrieved partial blob"), "it fetched the layers whole:\n{said}");
        let mounted = PathBuf::from(self.run(&["image", "mount", image]).0.trim());
        let read = fs::read(mounted.join(file));
        self.run(&["image", "unmount", image]);
        read.unwrap()
    }
}

/// The tree, and then with some bytes put into its large file: two tags, and what the file is in each.
fn two_versions(registry: &Registry) -> [(&'static str, Vec<u8>); 2] {
    let root = tempfile::tempdir().unwrap();
    tree(root.path());
    let push = |tag: &str| {
        let to = format!("{}/data:{tag}", registry.host());
        let root = root.path().to_str().unwrap();
        machine(registry, &[]).run(&["push", root, &to, "--keep-times", "--keep-owners"]);
    };
    push("1");
    let mut large = noise("large", 40 << 20);
    large.splice(9 << 20..9 << 20, *b"fourteen bytes");
    fs::write(root.path().join("large"), &large).unwrap();
    push("2");
    [("1", noise("large", 40 << 20)), ("2", large)]
}

/// podman fetches a zstd:chunked image file by file, by our tables: positions, table of contents, tar-split with its
/// checksums, and what it compares between them.
#[test]
fn podman_pulls_by_the_table_of_contents() {
    let registry = Registry::start(Options::default());
    let at = tempfile::tempdir_in("/var/tmp").unwrap();
    let podman = Podman::new(at.path());
    for (tag, same) in two_versions(&registry) {
        let image = format!("{}/data:{tag}", registry.host());
        assert!(podman.file_of(&image, "same") == same, "{image}");
    }
}

/// Of a file that changed, podman fetches the pieces that changed, as from layers of its own, where its storage has reflinks.
/// On other filesystems it fetches such files whole, whoever wrote the layer (podman-container-tools/container-libs#892).
#[tokio::test(flavor = "multi_thread")]
async fn podman_takes_unchanged_pieces_from_what_it_has() {
    let registry = Registry::start(Options::default());
    let at = tempfile::tempdir_in("/var/tmp").unwrap();
    let disk = SmallDisk::mount_xfs(&at.path().join("xfs"), 1024);
    let podman = Podman::new(&at.path().join("xfs"));
    let proxy = Proxy::start(&registry.host()).await;
    let mut passed = Vec::new();
    for (tag, same) in two_versions(&registry) {
        let before = proxy.passed();
        let image = format!("{}/data:{tag}", proxy.address);
        // The proxy runs on other threads.
        assert!(podman.file_of(&image, "same") == same, "{image}");
        passed.push(proxy.passed() - before);
    }
    assert!(passed[0] > 40 << 20 && passed[1] < 4 << 20, "{passed:?} bytes came");
    drop(disk);
}

#[test]
fn oras_gets_the_files_of_an_artifact_back() {
    let registry = Registry::start(Options::default());
    let (root, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(root.path().join("sub")).unwrap();
    fs::write(root.path().join("model.safetensors"), noise("m", 9 << 20)).unwrap();
    fs::write(root.path().join("sub/é.txt"), b"text").unwrap();
    for kind in ["files", "modelpack"] {
        let to = format!("{}/model:{kind}", registry.host());
        let option = format!("--artifact={kind}");
        machine(&registry, &[]).run(&["push", root.path().to_str().unwrap(), &to, &option]);
        let at = out.path().join(kind);
        run(Command::new(debian("oras", "oras")).args(["pull", "--plain-http", &to, "--output"]).arg(&at));
        assert_eq!(fs::read(at.join("model.safetensors")).unwrap(), noise("m", 9 << 20));
        assert_eq!(fs::read(at.join("sub/é.txt")).unwrap(), b"text");
    }
}

/// Two commands of a team, push and sign, and one of a node.
#[test]
fn a_signed_seal_is_what_a_policy_asks_for() {
    let registry = Registry::start(Options::default());
    let (root, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/var/tmp").unwrap());
    fs::write(root.path().join("weights.gguf"), noise("w", 100_000)).unwrap();
    let to = format!("{}/team/model:1", registry.host());
    let policy = at.path().join("policy.json");
    let requirement = json!([
        {"type": "sigstoreSigned", "keyPath": at.path().join("cosign.pub"), "signedIdentity": {"type": "matchRepository"}},
        {"type": "composefs", "requireDigest": true},
    ]);
    let scopes =
        json!({"default": [{"type": "reject"}], "transports": {"docker": {(registry.host()): requirement}}});
    fs::write(&policy, scopes.to_string()).unwrap();
    let cosign = |arguments: &[&str]| {
        let mut cosign = Command::new(debian("cosign", "cosign"));
        run(cosign.current_dir(at.path()).env("COSIGN_PASSWORD", "").args(arguments));
    };
    cosign(&["generate-key-pair"]);
    let node = machine(&registry, &["--policy", policy.to_str().unwrap()]);
    let target = at.path().join("mnt");
    fs::create_dir(&target).unwrap();
    let mount = |image: &str| node.command(&["mount", image, target.to_str().unwrap()]).output().unwrap();
    let push = ["push", root.path().to_str().unwrap(), &to, "--artifact=modelpack"];
    let sign = |image: &str| {
        let options =
            ["sign", "--yes", "--allow-http-registry", "--use-signing-config=false", "--tlog-upload=false"];
        cosign(&[&options[..], &["--new-bundle-format=false", "--key=cosign.key", image]].concat());
    };
    let desk = machine(&registry, &[]);
    let unsealed = desk.run(&push)["image"].as_str().unwrap().to_owned();
    sign(&unsealed);
    assert!(!mount(&unsealed).status.success(), "signed, but not sealed");
    let sealed = desk.run(&[&push[..], &["--seal"]].concat())["image"].as_str().unwrap().to_owned();
    assert!(!mount(&sealed).status.success(), "sealed, but not signed");
    sign(&sealed);
    let mounted = mount(&sealed);
    assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
    let read = fs::read(target.join("weights.gguf"));
    run(&mut node.command(&["unmount", target.to_str().unwrap()]));
    assert_eq!(read.unwrap(), noise("w", 100_000));
}

/// One command of a team. The same files with the same key are signed once, and another key's signature stays.
#[test]
fn what_push_signs_cosign_and_a_policy_verify() {
    let registry = Registry::start(Options::default());
    let (root, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/var/tmp").unwrap());
    fs::write(root.path().join("weights.gguf"), noise("w", 100_000)).unwrap();
    let to = format!("{}/team/model:1", registry.host());
    let openssl = |arguments: &[&str]| {
        run(Command::new(installed("openssl")).current_dir(at.path()).args(arguments));
    };
    for name in ["one", "two"] {
        let (key, public) = (format!("{name}.pem"), format!("{name}.pub"));
        let encrypted = ["-aes-256-cbc", "-pass", "pass:a word"];
        let options = ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &key];
        openssl(&[&options[..], if name == "one" { &encrypted[..] } else { &[] }].concat());
        openssl(&["pkey", "-in", &key, "-passin", "pass:a word", "-pubout", "-out", &public]);
    }
    let desk = machine(&registry, &[]);
    let push = |name: &str| {
        let key = at.path().join(format!("{name}.pem"));
        let mut push = desk.command(&[
            "push",
            root.path().to_str().unwrap(),
            &to,
            "--artifact=modelpack",
            "--seal",
            "--output=json",
        ]);
        push.arg("--key").arg(key).env("COSIGN_PASSWORD", "a word");
        let output = push.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let first = push("one");
    let image = first["image"].as_str().unwrap().to_owned();
    assert_eq!(push("one")["signature"], first["signature"], "it is signed already");
    let verified = |set: &str, name: &str| {
        let mut cosign = Command::new(debian(set, "cosign"));
        cosign.current_dir(at.path()).env("HOME", at.path());
        cosign.args(["verify", "--allow-http-registry", "--insecure-ignore-tlog", "--key"]);
        cosign.arg(format!("{name}.pub")).arg(&image);
        if set == "cosign" {
            cosign.arg("--new-bundle-format=false");
        }
        cosign.output().unwrap().status.success()
    };
    for set in ["cosign", "cosign-2"] {
        assert!(verified(set, "one") && !verified(set, "two"), "{set}");
    }
    assert_ne!(push("two")["signature"], first["signature"]);
    for set in ["cosign", "cosign-2"] {
        assert!(verified(set, "one") && verified(set, "two"), "{set}");
    }
    let policy = at.path().join("policy.json");
    let requirement = json!([
        {"type": "sigstoreSigned", "keyPath": at.path().join("one.pub"), "signedIdentity": {"type": "matchRepository"}},
        {"type": "composefs", "requireDigest": true},
    ]);
    let scopes =
        json!({"default": [{"type": "reject"}], "transports": {"docker": {(registry.host()): requirement}}});
    fs::write(&policy, scopes.to_string()).unwrap();
    let node = machine(&registry, &["--policy", policy.to_str().unwrap()]);
    let target = at.path().join("mnt");
    fs::create_dir(&target).unwrap();
    run(&mut node.command(&["mount", &to, target.to_str().unwrap()]));
    let read = fs::read(target.join("weights.gguf"));
    run(&mut node.command(&["unmount", target.to_str().unwrap()]));
    assert_eq!(read.unwrap(), noise("w", 100_000));

    // A key that only cosign reads says so before anything is sent.
    run(Command::new(debian("cosign", "cosign"))
        .current_dir(at.path())
        .env("COSIGN_PASSWORD", "")
        .arg("generate-key-pair"));
    let other = to.replace("model:1", "other:1");
    let key = format!("--key={}", at.path().join("cosign.key").display());
    let refused = desk.command(&["push", root.path().to_str().unwrap(), &other, &key]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("cosign's own form"), "{said}");
}
