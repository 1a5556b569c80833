//! Images to seal, and pods that mount them.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::archive::archive;
use crate::support::driver::{Machine, Plugin};
use crate::support::images::{Image, Layout};

pub const MERGED: &str = "composefs.merged.erofs.v1.fsverity-sha256-12";
pub const FAITHFUL: &str = "dev.composefs.csi.faithful.erofs.v1.fsverity-sha256-12";

/// An image of two layers with a /usr, a /run with something in it, and a file that `mark` makes its own.
pub fn tars(mark: &str) -> Vec<Vec<u8>> {
    let common: &[(&str, &[u8])] =
        &[("usr/", b""), ("usr/common", &[7; 5000]), ("run/", b""), ("run/pid", b"not part of an image")];
    vec![
        archive(common),
        archive(&[("usr/own", mark.repeat(1000).as_bytes()), ("usr/small", mark.as_bytes())]),
    ]
}

pub fn image(mark: &str) -> Image {
    Image::new(tars(mark))
}

/// The manifest, or index, that a tag of a layout names.
pub fn document(layout: &Layout, tag: &str) -> Value {
    let index: Value = serde_json::from_slice(&fs::read(layout.path().join("index.json")).unwrap()).unwrap();
    let entries = index["manifests"].as_array().unwrap();
    let of_tag = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == tag;
    blob(layout, entries.iter().find(of_tag).unwrap_or_else(|| panic!("no tag {tag}: {index}")))
}

pub fn blob(layout: &Layout, descriptor: &Value) -> Value {
    let hex = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let bytes = fs::read(layout.path().join("blobs/sha256").join(hex)).unwrap();
    assert_eq!(descriptor["size"], bytes.len());
    serde_json::from_slice(&bytes).unwrap()
}

/// Runs a command that must fail and returns what it said.
pub fn refused(machine: &Machine, arguments: &[&str]) -> String {
    let output = machine.command(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?} should have failed");
    String::from_utf8(output.stderr).unwrap()
}

pub async fn publish(
    plugin: &Plugin,
    machine: &Machine,
    pod: &str,
    image: &str,
) -> Result<PathBuf, tonic::Status> {
    publish_by(plugin, machine, pod, image, "IfNotPresent").await
}

pub async fn publish_by(
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

pub async fn unpublish(plugin: &Plugin, machine: &Machine, pod: &str) {
    plugin.node.clone().node_unpublish_volume(machine.unpublish(pod)).await.unwrap();
}

pub fn layouts(layout: &Layout) -> Vec<String> {
    vec![format!("--layout-dir={}", layout.path().display())]
}

pub fn machine(arguments: &[String]) -> Machine {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Machine::new(&arguments)
}

/// A machine for commands only.
pub fn desk() -> Machine {
    Machine::new(&[])
}
