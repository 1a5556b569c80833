//! Sealed images from end to end, by the program itself: what `seal` writes, a real registry carries and the plugin
//! compares; and a store whose records somebody else has written to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tonic::Code;

mod support {
    pub mod csi;
    pub mod driver;
    pub mod images;
    pub mod registry;
    pub mod tools;
}

use support::driver::{Machine, Plugin};
use support::images::{Image, Layout};
use support::registry::{Options, Registry, run};
use support::tools::installed;

const MERGED: &str = "composefs.merged.erofs.v1.fsverity-sha256-12";
const FAITHFUL: &str = "dev.composefs.csi.faithful.erofs.v1.fsverity-sha256-12";

/// A tar of directories (names that end in a slash) and files.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mtime(1_700_000_000);
        let directory = name.ends_with('/');
        header.set_mode(if directory { 0o751 } else { 0o644 });
        header.set_entry_type(if directory { tar::EntryType::Directory } else { tar::EntryType::Regular });
        archive.append_data(&mut header, name, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// An image of two layers with a /usr, a /run with something in it, and a file that `mark` makes its own.
fn tars(mark: &str) -> Vec<Vec<u8>> {
    let common: &[(&str, &[u8])] =
        &[("usr/", b""), ("usr/common", &[7; 5000]), ("run/", b""), ("run/pid", b"not part of an image")];
    vec![
        archive(common),
        archive(&[("usr/own", mark.repeat(1000).as_bytes()), ("usr/small", mark.as_bytes())]),
    ]
}

fn image(mark: &str) -> Image {
    Image::new(tars(mark))
}

/// The manifest, or index, that a tag of a layout names.
fn document(layout: &Layout, tag: &str) -> Value {
    let index: Value = serde_json::from_slice(&fs::read(layout.path().join("index.json")).unwrap()).unwrap();
    let entries = index["manifests"].as_array().unwrap();
    let of_tag = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == tag;
    blob(layout, entries.iter().find(of_tag).unwrap_or_else(|| panic!("no tag {tag}: {index}")))
}

fn blob(layout: &Layout, descriptor: &Value) -> Value {
    let hex = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let bytes = fs::read(layout.path().join("blobs/sha256").join(hex)).unwrap();
    assert_eq!(descriptor["size"], bytes.len());
    serde_json::from_slice(&bytes).unwrap()
}

/// Runs a command that must fail and returns what it said.
fn refused(machine: &Machine, arguments: &[&str]) -> String {
    let output = machine.command(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?} should have failed");
    String::from_utf8(output.stderr).unwrap()
}

async fn publish(
    plugin: &Plugin,
    machine: &Machine,
    pod: &str,
    image: &str,
) -> Result<PathBuf, tonic::Status> {
    publish_by(plugin, machine, pod, image, "IfNotPresent").await
}

async fn publish_by(
    plugin: &Plugin,
    machine: &Machine,
    pod: &str,
    image: &str,
    policy: &str,
) -> Result<PathBuf, tonic::Status> {
    let mut request = machine.publish(pod, image);
    request.volume_context.insert("pullPolicy".to_owned(), policy.to_owned());
    plugin.node.clone().node_publish_volume(request).await?;
    Ok(machine.target(pod))
}

async fn unpublish(plugin: &Plugin, machine: &Machine, pod: &str) {
    plugin.node.clone().node_unpublish_volume(machine.unpublish(pod)).await.unwrap();
}

fn layouts(layout: &Layout) -> Vec<String> {
    vec![format!("--layout-dir={}", layout.path().display())]
}

fn machine(arguments: &[String]) -> Machine {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Machine::new(&arguments)
}

/// A machine for commands only.
fn desk() -> Machine {
    Machine::new(&[])
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_pulled_compared_and_mounted() {
    let layout = Layout::of(&image("a"));
    let reference = layout.reference("latest");
    let desk = desk();
    let canonical = desk.run(&["digest", "--rules", "canonical", &reference])["composefs"].clone();
    let sealed = desk.run(&["seal", &reference]);
    assert_eq!((&sealed["changed"], &sealed["platforms"][0]["composefs"]), (&json!(true), &canonical));
    assert_eq!(document(&layout, "latest")["annotations"][MERGED], canonical);
    let again = desk.run(&["seal", &reference]);
    assert_eq!((&again["changed"], &again["manifest"]), (&json!(false), &sealed["manifest"]), "idempotent");

    let machine = machine(&layouts(&layout));
    let plugin = machine.start().await;
    let target = publish(&plugin, &machine, "pod", &reference).await.unwrap();
    assert_eq!(fs::read(target.join("usr/own")).unwrap(), "a".repeat(1000).as_bytes());
    assert_eq!(
        fs::read_dir(target.join("run")).unwrap().count(),
        0,
        "the canonical image is the one mounted"
    );
    let record = machine.run(&["inspect", &reference]);
    assert_eq!(record["image"], canonical);
    assert_eq!((&record["sealed"], &record["rules"]), (&json!(true), &json!("canonical")));
    assert_eq!(record["manifest"], sealed["manifest"]);
    unpublish(&plugin, &machine, "pod").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_digest_is_refused_with_both_named() {
    let layout = Layout::of(&image("b"));
    let reference = layout.reference("latest");
    let desk = desk();
    let canonical = desk.run(&["digest", "--rules", "canonical", &reference])["composefs"].clone();
    // Sealed by somebody who meant another image.
    let other = Layout::of(&image("other"));
    desk.run(&["seal", &other.reference("latest")]);
    let wrong = document(&other, "latest")["annotations"][MERGED].as_str().unwrap().to_owned();
    let mut manifest = document(&layout, "latest");
    manifest["annotations"] = json!({ MERGED: wrong });
    let mut forged = Layout::new();
    for entry in fs::read_dir(layout.path().join("blobs/sha256")).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), forged.path().join("blobs/sha256").join(entry.file_name())).unwrap();
    }
    let descriptor =
        forged.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    forged.tag(&descriptor, "latest");
    let reference = forged.reference("latest");

    let machine = machine(&layouts(&forged));
    let plugin = machine.start().await;
    let status = publish(&plugin, &machine, "pod", &reference).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss, "{status}");
    for part in [&reference, &wrong, canonical.as_str().unwrap(), MERGED] {
        assert!(status.message().contains(part), "{part} is missing in {}", status.message());
    }
    assert!(!machine.target("pod").exists());
    assert_eq!(machine.run(&["ls"])["images"], json!([]), "no image was made of it");

    let complaint = refused(&desk, &["seal", &reference]);
    assert!(complaint.contains(&wrong) && complaint.contains("--force"), "{complaint}");
    assert_eq!(document(&forged, "latest")["annotations"][MERGED], wrong, "and nothing is written");
    desk.run(&["seal", "--force", &reference]);
    assert_eq!(document(&forged, "latest")["annotations"][MERGED], canonical);
    publish(&plugin, &machine, "pod", &reference).await.unwrap();
    unpublish(&plugin, &machine, "pod").await;

    // What is no digest at all is no unsealed image either.
    manifest["annotations"] = json!({ MERGED: "sha256:abc" });
    let descriptor =
        forged.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    forged.tag(&descriptor, "malformed");
    let status = publish(&plugin, &machine, "pod", &forged.reference("malformed")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains(MERGED), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_platform_of_an_index_is_sealed_in_a_registry_with_tls_and_password() {
    let platforms = ["linux/amd64", "linux/arm64"];
    let images: Vec<Image> =
        platforms.iter().map(|name| Image { platform: (*name).to_owned(), ..image(name) }).collect();
    let mut layout = Layout::new();
    layout.add_index(&images, "latest");
    let options = Options { tls: true, user: Some(("sealer", "and a secret")) };
    let registry = Registry::start(options);
    let reference = registry.push(&layout.reference("latest"), "team/app:1", &["--all"]);
    let directory = tempfile::tempdir().unwrap();
    let auth = directory.path().join("config.json");
    fs::write(&auth, registry.docker_config("and a secret")).unwrap();
    let (ca, auth) = (registry.ca_file().display().to_string(), auth.display().to_string());
    let machine = Machine::new(&["--registry-ca", &ca, "--auth-file", &auth]);

    let sealed = machine.run(&["seal", "--tag", "1-sealed", &reference]);
    assert_eq!(sealed["platforms"].as_array().unwrap().len(), 2);
    let tagged = format!("{}/team/app:1-sealed", registry.host());
    for (platform, row) in platforms.iter().zip(sealed["platforms"].as_array().unwrap()) {
        let pulled = machine.run(&["pull", "--platform", platform, &tagged]);
        assert_eq!((&pulled["image"], &pulled["sealed"]), (&row["composefs"], &json!(true)), "{platform}");
        assert_eq!(pulled["manifest"], row["manifest"]);
        let unsealed = machine.run(&["pull", "--platform", platform, &reference]);
        assert_eq!(unsealed["sealed"], json!(false), "the other tag is where it was");
        assert_ne!(unsealed["manifest"], pulled["manifest"]);
    }
    // A foreign tool finds the same index under the new tag, and all that it leads to.
    let copied = directory.path().join("copied");
    let mut skopeo = Command::new(installed("skopeo"));
    skopeo.args(["copy", "--quiet", "--all", "--src-creds=sealer:and a secret"]).arg("--src-cert-dir");
    skopeo.arg(registry.cert_dir()).arg(format!("docker://{tagged}"));
    run(skopeo.arg(format!("oci:{}:x", copied.display())));
    let index: Value = serde_json::from_slice(&fs::read(copied.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"][0]["digest"], sealed["manifest"]);

    let in_place = machine.run(&["seal", &reference]);
    assert_eq!(in_place["manifest"], sealed["manifest"], "the same documents");
    let anonymous = Machine::new(&["--registry-ca", &ca]);
    let complaint = refused(&anonymous, &["seal", &reference]);
    assert!(complaint.contains("denied") && !complaint.contains("and a secret"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_without_usr_is_sealed_for_this_driver() {
    let layout = Layout::of(&Image::new(vec![archive(&[("model/", b""), ("model/weights", &[3; 9000])])]));
    let reference = layout.reference("latest");
    let desk = desk();
    let complaint = refused(&desk, &["seal", &reference]);
    assert!(complaint.contains("/usr") && complaint.contains("--rules faithful"), "{complaint}");
    let sealed = desk.run(&["seal", "--rules", "faithful", &reference]);
    let faithful = desk.run(&["digest", "--rules", "faithful", &reference])["composefs"].clone();
    assert_eq!(document(&layout, "latest")["annotations"], json!({ FAITHFUL: faithful }));
    assert_eq!(sealed["platforms"][0]["composefs"], faithful);

    let mut arguments = layouts(&layout);
    arguments.push("--require-composefs-digest".to_owned());
    let machine = machine(&arguments);
    let plugin = machine.start().await;
    let target = publish(&plugin, &machine, "pod", &reference).await.unwrap();
    assert_eq!(fs::read(target.join("model/weights")).unwrap(), [3; 9000]);
    unpublish(&plugin, &machine, "pod").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_can_be_required() {
    let mut layout = Layout::of(&image("c"));
    let unsealed = layout.reference("latest");
    let mut sha512 = document(&layout, "latest");
    sha512["annotations"] = json!({ MERGED.replace("sha256", "sha512"): "a".repeat(128) });
    let descriptor = layout.blob("application/vnd.oci.image.manifest.v1+json", sha512.to_string().as_bytes());
    layout.tag(&descriptor, "sha512");
    let mut arguments = layouts(&layout);
    arguments.push("--require-composefs-digest".to_owned());
    let machine = machine(&arguments);
    let plugin = machine.start().await;
    for (reference, part) in [(&unsealed, MERGED), (&layout.reference("sha512"), "sha512")] {
        let status = publish(&plugin, &machine, "pod", reference).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        let message = status.message();
        assert!(
            message.contains(reference) && message.contains(part) && message.contains("seal"),
            "{message}"
        );
    }
    let layers = fs::read_dir(machine.state().join("store/blobs")).unwrap().count();
    assert_eq!(layers, 0, "the manifest tells, so no layer is fetched");
    desk().run(&["seal", &unsealed]);
    publish(&plugin, &machine, "pod", &unsealed).await.unwrap();
    unpublish(&plugin, &machine, "pod").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn either_rule_of_extended_attributes_is_found() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::create_dir(directory.path().join("usr")).unwrap();
    let file = directory.path().join("usr/file");
    fs::write(&file, [1; 100]).unwrap();
    rustix::fs::setxattr(&file, "user.kept", b"value", rustix::fs::XattrFlags::empty()).unwrap();
    let layout = support::images::layout_from_dirs(&[directory.path()]);
    let reference = layout.reference("latest");
    let desk = desk();
    let kept = desk.run(&["seal", "--rules", "canonical-user-xattrs", &reference]);
    let again = desk.run(&["seal", &reference]);
    assert_eq!((&again["changed"], &again["manifest"]), (&json!(false), &kept["manifest"]), "both are right");
    let pulled = desk.run(&["pull", &reference]);
    assert_eq!((&pulled["rules"], &pulled["sealed"]), (&json!("canonical-user-xattrs"), &json!(true)));
    let other = desk.run(&["digest", "--rules", "canonical", &reference]);
    assert_ne!(other["composefs"], pulled["image"], "the image is one on which the rules differ");
}

fn only_file(directory: &Path) -> PathBuf {
    let mut files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let file = files.next().unwrap();
    assert!(files.next().is_none(), "{}", directory.display());
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_somebody_altered_is_not_used() {
    let layout = Layout::of(&image("d"));
    let reference = layout.reference("latest");
    let machine = machine(&layouts(&layout));
    let plugin = machine.start().await;
    publish(&plugin, &machine, "pod", &reference).await.unwrap();
    unpublish(&plugin, &machine, "pod").await;
    let record = only_file(&machine.state().join("store/images"));
    let text = fs::read_to_string(&record).unwrap();
    let genuine: Value = serde_json::from_str(&text).unwrap();
    let image = genuine["image"].as_str().unwrap();
    fs::write(&record, text.replace(image, &"ab".repeat(32))).unwrap();

    let status = publish_by(&plugin, &machine, "pod", &reference, "Never").await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss, "{status}");
    for part in [record.to_str().unwrap(), genuine["manifest"].as_str().unwrap(), "not authentic"] {
        assert!(status.message().contains(part), "{part} is missing in {}", status.message());
    }
    // Where the registry may be asked, everything is verified once more.
    let target = publish(&plugin, &machine, "pod", &reference).await.unwrap();
    assert_eq!(fs::read(target.join("usr/small")).unwrap(), b"d");
    let log = machine.log();
    let error = log.lines().find(|line| line.contains("ERROR") && line.contains(record.to_str().unwrap()));
    assert!(error.is_some_and(|line| line.contains(genuine["manifest"].as_str().unwrap())), "{log}");
    assert!(record.with_extension("forged").exists());
    let now: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    assert_eq!(now["image"], genuine["image"], "the first digest still holds");
    unpublish(&plugin, &machine, "pod").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_record_that_somebody_altered_poisons_no_image() {
    let mut layout = Layout::of(&image("e"));
    layout.add(&image("f"), "second");
    let machine = machine(&layouts(&layout));
    let plugin = machine.start().await;
    publish(&plugin, &machine, "first", &layout.reference("latest")).await.unwrap();
    // The first image's layers; the second image has one of them.
    let records = machine.state().join("store/layers");
    let mut altered = Vec::new();
    for path in fs::read_dir(&records).unwrap().map(|entry| entry.unwrap().path()) {
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        altered.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    assert_eq!(altered.len(), 2);
    let status = publish(&plugin, &machine, "second", &layout.reference("second")).await.unwrap_err();
    assert_eq!(status.code(), Code::DataLoss, "{status}");
    assert!(altered.iter().any(|layer| status.message().contains(layer)), "{status}");
    // The retry that kubelet makes fetches the layer anew.
    let target = publish(&plugin, &machine, "second", &layout.reference("second")).await.unwrap();
    assert_eq!(fs::read(target.join("usr/own")).unwrap(), "f".repeat(1000).as_bytes());
    assert_eq!(fs::read(target.join("usr/common")).unwrap(), [7; 5000]);
    for pod in ["first", "second"] {
        unpublish(&plugin, &machine, pod).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_means_pulling_again_and_a_bad_one_no_start() {
    let layout = Layout::of(&image("g"));
    let reference = layout.reference("latest");
    let machine = machine(&layouts(&layout));
    let plugin = machine.start().await;
    publish(&plugin, &machine, "before", &reference).await.unwrap();
    let key = machine.state().join("node.key");
    assert_eq!(fs::metadata(&key).unwrap().len(), 32);
    drop(plugin);
    fs::remove_file(&key).unwrap();
    let plugin = machine.start().await;
    let record = machine.state().join("store/images");
    assert!(machine.log().contains("not authentic"), "{}", machine.log());
    let status = publish_by(&plugin, &machine, "after", &reference, "Never").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status}");
    let target = publish(&plugin, &machine, "after", &reference).await.unwrap();
    assert_eq!(fs::read(target.join("usr/small")).unwrap(), b"g");
    let old = machine.target("before");
    assert_eq!(fs::read(old.join("usr/small")).unwrap(), b"g", "what is mounted stays");
    assert!(fs::read_dir(record).unwrap().count() == 2, "the new record and the old one put aside");
    for pod in ["before", "after"] {
        unpublish(&plugin, &machine, pod).await;
    }
    drop(plugin);
    fs::write(&key, [1; 16]).unwrap();
    let complaint = refused(&machine, &["ls"]);
    assert!(complaint.contains(key.to_str().unwrap()) && complaint.contains("16 bytes"), "{complaint}");
    fs::remove_file(&key).unwrap();
    let inside = machine.state().join("store/key").display().to_string();
    let complaint = refused(&machine, &["--node-key", &inside, "ls"]);
    assert!(complaint.contains("inside the store"), "{complaint}");
}
