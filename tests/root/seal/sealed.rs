//! What `seal` writes, a registry carries and the plugin compares.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tonic::Code;

use super::fixture::*;
use crate::support::archive::archive;
use crate::support::driver::Machine;
use crate::support::images::{Image, Layout, layout_from_dirs};
use crate::support::registry::{Options, Registry, run};
use crate::support::tools::installed;

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
    let layout = layout_from_dirs(&[directory.path()]);
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
