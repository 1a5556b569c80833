//! `push` to a real registry: the same digest for the same files, only what is new on the wire, nothing visible of what was
//! killed, and a sealed image that nodes mount.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use composefs_csi::image::entry::{EntryKind, LayerEntry, Mtime};
use serde_json::Value;

use crate::support::archive::noise;
use crate::support::driver::Machine;
use crate::support::proxy::Proxy;
use crate::support::registry::{Options, Registry, Running, run};
use crate::support::unpacked;

const LARGE: usize = 34 << 20;
const FAITHFUL: &str = "dev.composefs.csi.faithful.erofs.v1.fsverity-sha256-12";

/// A tree with everything that can be pushed.
fn tree(root: &Path) {
    fs::create_dir_all(root.join("d/ü ü")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("d/ü ü/f"), noise("f", 5000)).unwrap();
    fs::write(root.join("d/small"), b"small").unwrap();
    fs::write(root.join("d/none"), b"").unwrap();
    fs::write(root.join("n".repeat(200)), noise("n", 700)).unwrap();
    fs::write(root.join("holes"), [noise("1", 5000), vec![0; 2 << 20], noise("2", 5000)].concat()).unwrap();
    fs::hard_link(root.join("holes"), root.join("same")).unwrap();
    symlink("d/small", root.join("link")).unwrap();
    fs::set_permissions(root.join("d/small"), fs::Permissions::from_mode(0o751)).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(root.join("d/small"), "user.colour", b"blue\0\xff", flags).unwrap();
}

fn site() -> (Registry, Machine, tempfile::TempDir) {
    let registry = Registry::start(Options::default());
    let machine = Machine::new(&[&format!("--insecure-registry={}", registry.host())]);
    (registry, machine, tempfile::tempdir_in("/var/tmp").unwrap())
}

fn push(machine: &Machine, root: &Path, to: &str, extra: &[&str]) -> Value {
    machine.run(&[&["push", root.to_str().unwrap(), to], extra].concat())
}

/// What a tree shows of itself, the root left out.
fn shown(root: &Path) -> BTreeMap<String, LayerEntry> {
    let entries = unpacked::entries(root).into_iter().filter(|entry| !entry.path.is_empty());
    entries.map(|entry| (String::from_utf8_lossy(&entry.path).into_owned(), entry)).collect()
}

struct Mounted<'a>(&'a Machine, tempfile::TempDir);

impl<'a> Mounted<'a> {
    fn new(machine: &'a Machine, image: &str) -> Self {
        let target = tempfile::tempdir_in("/var/tmp").unwrap();
        run(&mut machine.command(&["mount", image, target.path().to_str().unwrap()]));
        Self(machine, target)
    }

    fn path(&self) -> &Path {
        self.1.path()
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        run(&mut self.0.command(&["unmount", self.1.path().to_str().unwrap()]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_files_give_the_same_digest_and_the_mount_shows_them() {
    let (registry, machine, root) = site();
    tree(root.path());
    let to = |tag: &str| format!("{}/team/data:{tag}", registry.host());
    for (compression, form) in [("zstd-chunked", "tar+zstd"), ("zstd", "tar+zstd"), ("gzip", "tar+gzip")] {
        let option = format!("--compression={compression}");
        let first = push(&machine, root.path(), &to(compression), &[&option]);
        assert!(first["sent_bytes"].as_u64().unwrap() > 0);
        // Another time and another owner of the same files, and names found in another order.
        let copy = tempfile::tempdir_in("/var/tmp").unwrap();
        run(Command::new("cp")
            .args(["-r", "--preserve=mode,links,xattr"])
            .arg(root.path().join("."))
            .arg(copy.path()));
        run(Command::new("chown").args(["-R", "1234:5678"]).arg(copy.path()));
        run(Command::new("setfattr")
            .args(["-n", "user.colour", "-v", "0x626c756500ff"])
            .arg(copy.path().join("d/small")));
        fs::set_permissions(copy.path().join("d/small"), fs::Permissions::from_mode(0o751)).unwrap();
        let again = push(&machine, copy.path(), &to("again"), &[&option]);
        assert_eq!(again["manifest"], first["manifest"], "{compression}");
        assert_eq!(again["sent_bytes"], 0, "{compression}: nothing is sent twice");
        let manifest = fs::read(registry.blob_file(&first["manifest"].as_str().unwrap()[7..])).unwrap();
        assert!(String::from_utf8(manifest).unwrap().contains(form));

        let mounted = Mounted::new(&machine, first["image"].as_str().unwrap());
        let (found, mut wanted) = (shown(mounted.path()), shown(root.path()));
        for entry in wanted.values_mut() {
            (entry.meta.uid, entry.meta.gid, entry.meta.mtime) = (0, 0, Mtime::default());
        }
        assert_eq!(found, wanted, "{compression}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn times_and_owners_are_kept_if_asked_for() {
    let (registry, machine, root) = site();
    tree(root.path());
    run(Command::new("chown").args(["-R", "1234:5678"]).arg(root.path()));
    fs::set_permissions(root.path().join("d/small"), fs::Permissions::from_mode(0o4751)).unwrap();
    run(Command::new("touch").args(["-d", "2021-03-04T05:06:07.123456789Z"]).arg(root.path().join("d/none")));
    run(Command::new("touch").args(["-d", "1965-03-04T05:06:07.5Z"]).arg(root.path().join("empty")));
    let to = format!("{}/kept:1", registry.host());
    let pushed = push(&machine, root.path(), &to, &["--keep-times", "--keep-owners"]);
    let mounted = Mounted::new(&machine, pushed["image"].as_str().unwrap());
    let (found, mut wanted) = (shown(mounted.path()), shown(root.path()));
    // What the node takes away.
    wanted.get_mut("d/small").unwrap().meta.mode = 0o751;
    for entry in wanted.values_mut().filter(|entry| entry.meta.mtime.secs < 0) {
        entry.meta.mtime = found[std::str::from_utf8(&entry.path).unwrap()].meta.mtime;
    }
    assert_eq!(found, wanted);
    let clamped = push(&machine, root.path(), &to, &["--keep-times", "--source-date-epoch=1700000000"]);
    assert_ne!(clamped["manifest"], pushed["manifest"]);
    let mounted = Mounted::new(&machine, clamped["image"].as_str().unwrap());
    let found = shown(mounted.path());
    assert_eq!(found["d/none"].meta.mtime, Mtime { secs: 1_614_834_367, nanos: 123_456_789 });
    assert_eq!(found["d/small"].meta.mtime, Mtime { secs: 1_700_000_000, nanos: 0 });
}

/// Three large files and many small ones; the second version changes one of each.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_version_sends_and_fetches_what_changed() {
    let (registry, _, root) = site();
    let proxy = Proxy::start(&registry.host()).await;
    let machine = Machine::new(&[&format!("--insecure-registry={}", proxy.address)]);
    tree(root.path());
    for number in 0..3 {
        fs::write(root.path().join(format!("{number}.safetensors")), noise(&number.to_string(), LARGE))
            .unwrap();
    }
    let to = |tag: u8| format!("{}/model:{tag}", proxy.address);
    let first = push(&machine, root.path(), &to(1), &[]);
    assert!(
        proxy.sent() > 3 * LARGE as u64 && proxy.sent() < 3 * LARGE as u64 + (3 << 20),
        "{}",
        proxy.sent()
    );
    machine.run(&["pull", &to(1)]);
    let mut changed = fs::read(root.path().join("1.safetensors")).unwrap();
    changed[LARGE / 2] ^= 1;
    fs::write(root.path().join("1.safetensors"), changed).unwrap();
    fs::write(root.path().join("d/small"), b"other").unwrap();
    let (sent, passed) = (proxy.sent(), proxy.passed());
    let second = push(&machine, root.path(), &to(2), &[]);
    let (sent, passed) = (proxy.sent() - sent, proxy.passed() - passed);
    assert_ne!(second["manifest"], first["manifest"]);
    let resent: Vec<_> =
        second["blobs"].as_array().unwrap().iter().filter(|blob| blob["sent"] == true).collect();
    assert_eq!(resent.len(), 2, "{second}");
    assert!(sent > LARGE as u64 && sent < LARGE as u64 + (1 << 20), "{sent} bytes");
    assert!(passed < 100 << 10, "{passed} bytes came back");
    // On the wire of a node that has the first: a piece of the file, and tables.
    let before = proxy.passed();
    let pulled = machine.run(&["pull", &to(2)]);
    let fetched = proxy.passed() - before;
    assert!(pulled["here_bytes"].as_u64().is_some_and(|bytes| bytes > LARGE as u64 / 2), "{pulled}");
    assert!(fetched < 3 << 20, "{fetched} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_killed_leaves_no_tag_and_is_not_sent_again() {
    let (registry, _, root) = site();
    let proxy = Proxy::start(&registry.host()).await;
    let machine = Machine::new(&[&format!("--insecure-registry={}", proxy.address)]);
    for number in 0..4 {
        fs::write(root.path().join(number.to_string()), noise(&number.to_string(), LARGE)).unwrap();
    }
    let to = format!("{}/killed:1", proxy.address);
    let arguments = ["push", root.path().to_str().unwrap(), &to, "--artifact=files"];
    let child = machine.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Two of four at a time: so much that some blob is whole, and not all are.
    let running = Running(child);
    proxy.take(5 * LARGE as u64 / 2).await;
    // Dropped, it is killed.
    drop(running);
    proxy.take_all();
    let output = machine.command(&["pull", &to]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("was not found"), "no tag");
    let pushed = machine.run(&arguments);
    let sent = pushed["blobs"].as_array().unwrap().iter().filter(|blob| blob["sent"] == true).count();
    assert!((1..4).contains(&sent), "{pushed}");
    let mounted = Mounted::new(&machine, &to);
    assert_eq!(fs::read(mounted.path().join("3")).unwrap(), noise("3", LARGE));
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_at_once_as_seal_would_have_done_and_mounted_where_a_seal_is_wanted() {
    let (registry, machine, root) = site();
    tree(root.path());
    fs::write(root.path().join("large"), noise("large", LARGE)).unwrap();
    let to = |tag: &str| format!("{}/sealed:{tag}", registry.host());
    let artifact = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::create_dir(artifact.path().join("sub")).unwrap();
    fs::write(artifact.path().join("sub/model.safetensors"), noise("m", 100_000)).unwrap();
    fs::write(artifact.path().join("run.sh"), b"#!/bin/sh\n").unwrap();
    fs::set_permissions(artifact.path().join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    for (tag, from, extra) in [
        ("image", root.path(), &[][..]),
        ("modelpack", artifact.path(), &["--artifact=modelpack"][..]),
        ("files", artifact.path(), &["--artifact=files", "--artifact-type=application/vnd.example.x"][..]),
    ] {
        let sealed = push(&machine, from, &to(tag), &[extra, &["--seal"]].concat());
        let again = machine.run(&["seal", "--rules=faithful", &to(tag)]);
        assert_eq!((&again["changed"], &again["manifest"]), (&false.into(), &sealed["manifest"]), "{tag}");
        assert_eq!(again["platforms"][0]["composefs"], sealed["composefs"], "{tag}");
        let plain = push(&machine, from, &to("plain"), extra);
        assert_ne!(plain["manifest"], sealed["manifest"]);
        let manifest = fs::read(registry.blob_file(&sealed["manifest"].as_str().unwrap()[7..])).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest["annotations"][FAITHFUL], sealed["composefs"], "{tag}");
        let node = Machine::new(&[
            &format!("--insecure-registry={}", registry.host()),
            "--require-composefs-digest",
        ]);
        let plugin = node.start().await;
        let mut client = plugin.node.clone();
        client.node_publish_volume(node.publish("pod", sealed["image"].as_str().unwrap())).await.unwrap();
        assert!(fs::read_dir(node.target("pod")).unwrap().count() > 1);
        client.node_unpublish_volume(node.unpublish("pod")).await.unwrap();
        let refused = client.node_publish_volume(node.publish("pod", plain["image"].as_str().unwrap())).await;
        assert_eq!(refused.unwrap_err().code(), tonic::Code::PermissionDenied, "{tag}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_keep_what_their_kind_says() {
    let (registry, machine, root) = site();
    fs::create_dir(root.path().join("sub")).unwrap();
    fs::write(root.path().join("model.safetensors"), noise("m", 100_000)).unwrap();
    fs::write(root.path().join("sub/copy.safetensors"), noise("m", 100_000)).unwrap();
    fs::write(root.path().join("sub/empty"), b"").unwrap();
    fs::write(root.path().join("run.sh"), b"#!/bin/sh\n").unwrap();
    fs::set_permissions(root.path().join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let blobs = tempfile::tempdir().unwrap();
    fs::write(blobs.path().join("0123"), b"of a cache").unwrap();
    symlink(blobs.path().join("0123"), root.path().join("config.json")).unwrap();
    let to = |tag: &str| format!("{}/artifact:{tag}", registry.host());
    let refused = machine.command(&["push", root.path().to_str().unwrap(), &to("1"), "--artifact=files"]);
    let said = { refused }.output().unwrap();
    assert!(!said.status.success());
    let said = String::from_utf8(said.stderr).unwrap();
    assert!(said.contains("config.json is a symbolic link") && said.contains("--follow-links"), "{said}");
    for (kind, program) in [("modelpack", 0o555), ("files", 0o444)] {
        let pushed =
            push(&machine, root.path(), &to(kind), &[&format!("--artifact={kind}"), "--follow-links"]);
        assert_eq!(pushed["blobs"].as_array().unwrap().len(), 5);
        let mounted = Mounted::new(&machine, pushed["image"].as_str().unwrap());
        let found = shown(mounted.path());
        let names: Vec<_> = found
            .iter()
            .filter(|(_, entry)| entry.kind != EntryKind::Directory)
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(
            names,
            ["config.json", "model.safetensors", "run.sh", "sub/copy.safetensors", "sub/empty"]
        );
        assert_eq!(fs::read(mounted.path().join("config.json")).unwrap(), b"of a cache");
        assert_eq!(fs::read(mounted.path().join("sub/copy.safetensors")).unwrap(), noise("m", 100_000));
        assert_eq!(found["run.sh"].meta.mode, program);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_repository_of_the_registry_gives_its_blobs_and_credentials_are_used() {
    let registry = Registry::start(Options { tls: true, user: Some(("team", "and a secret")) });
    let directory = tempfile::tempdir().unwrap();
    let auth = directory.path().join("config.json");
    fs::write(&auth, registry.docker_config("and a secret")).unwrap();
    let (ca, auth) = (registry.ca_file().display().to_string(), auth.display().to_string());
    let machine = Machine::new(&["--registry-ca", &ca, "--auth-file", &auth]);
    let root = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::write(root.path().join("model.safetensors"), noise("m", 3 << 20)).unwrap();
    let to = |name: &str| format!("{}/{name}:1", registry.host());
    let first = push(&machine, root.path(), &to("base/model"), &["--artifact=modelpack"]);
    let second =
        push(&machine, root.path(), &to("tuned/model"), &["--artifact=modelpack", "--mount-from=base/model"]);
    assert_eq!(second["manifest"], first["manifest"]);
    assert_eq!((&first["sent_bytes"], &second["sent_bytes"]), (&(3 << 20).into(), &0.into()));
    let stranger = Machine::new(&["--registry-ca", &ca]);
    let refused = stranger.command(&["push", root.path().to_str().unwrap(), &to("x")]).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("denied access"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_pushed_is_named() {
    let (registry, machine, root) = site();
    let to = format!("{}/refused:1", registry.host());
    fs::write(root.path().join("file"), b"x").unwrap();
    let refused = |arguments: &[&str]| {
        let output = machine.command(&[&["push"], arguments].concat()).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let at = root.path().to_str().unwrap();
    let digest = format!("{}/x@sha256:{}", registry.host(), "0".repeat(64));
    assert!(refused(&[at, &digest]).contains("names a digest"));
    assert!(refused(&[at, "oci:/tmp/x:1"]).contains("push writes to registries"));
    let missing = root.path().join("missing").display().to_string();
    assert!(refused(&[&missing, &to]).contains("missing cannot be read"));
    assert!(refused(&[at, &to, "--mount-from=UPPER"]).contains("--mount-from"));
    assert!(refused(&[at, &to, "--artifact=files", "--artifact-type=model"]).contains("is not a media type"));
    assert!(refused(&[at, &to, "--seal", "--rules=canonical"]).contains("/usr"));
    fs::write(root.path().join(".wh.gone"), b"").unwrap();
    assert!(refused(&[at, &to]).contains(".wh.gone begins with .wh."));
    fs::remove_file(root.path().join(".wh.gone")).unwrap();
    run(Command::new("mkfifo").arg(root.path().join("pipe")));
    assert!(refused(&[at, &to]).contains("pipe is a named pipe"));
}
