//! The steps of the demonstration, and their explanations.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::images::{self, Version, digest_of};
use super::interrupt;
use super::screen::{bar, bytes, count, heading, line, time};
use crate::support::frames;
use crate::support::mounts;
use crate::support::node::{Node, Volume};

/// The whole demonstration, with everything it makes below `base`.
pub fn tell(program: &Path, base: &Path) -> Result<()> {
    heading("1. Two versions of an image, made of this machine's own files");
    let versions = images::make(base)?;
    describe(&versions);
    interrupt::check()?;

    heading("2. The node plugin runs, and kubelet asks it for the volumes of three pods");
    let layouts = base.join("images").display().to_string();
    let mut node = Node::start(program, base, &["--layout-dir", &layouts])?;
    let [old, new] = &versions;
    let pods = [("web-0", old), ("web-1", old), ("web-2", new)];
    let mut volumes = Vec::new();
    for (number, (pod, version)) in (0..).zip(pods) {
        let volume = Volume::new(pod, number, &version.reference);
        let elapsed = node.publish(&volume)?;
        let what = match number {
            0 => "fetched, checked, stored, mounted",
            1 => "the mount was there already: cloned",
            _ => "only files that 1.0 lacks were stored",
        };
        line(&format!("{pod}  app:{}  published in {:>9}   {what}", tag(version), time(elapsed)));
        volumes.push((volume, version));
        interrupt::check()?;
    }
    for version in &versions {
        let answer = ask(program, &node, &["digest", &version.reference])?;
        line(&format!(
            "app:{}  composefs digest {}",
            tag(version),
            answer["composefs"].as_str().unwrap_or("none")
        ));
    }
    line(match ask(program, &node, &["ls"])?["integrity"].as_str() {
        Some("read") => "every file's digest is checked by the kernel whenever a pod reads it (fs-verity)",
        Some("mount") => {
            "digests were checked when fetched, and again before the first mount (no fs-verity here)"
        }
        _ => "digests were checked when fetched; with fs-verity on this disk, they would be at every read",
    });

    heading("3. The pods read their files");
    for (volume, version) in &volumes {
        read_everything(&node, volume, version)?;
        interrupt::check()?;
    }

    heading("4. One copy on disk");
    disk(&node, &versions)?;

    heading("5. One copy in memory (page frames of every file, as the kernel counts them)");
    memory(&node, &volumes)?;
    interrupt::check()?;

    heading("6. The pods go");
    for (volume, _) in &volumes {
        let elapsed = node.unpublish(volume)?;
        line(&format!("{}  unpublished in {:>9}", volume.pod, time(elapsed)));
    }
    leave(node, base)
}

fn tag(version: &Version) -> &str {
    version.reference.rsplit(':').next().unwrap_or_default()
}

fn describe(versions: &[Version; 2]) {
    for version in versions {
        let image = &version.image;
        let (files, size) = (count(image.files), bytes(image.content));
        line(&format!("app:{}  {files} files  {size}  manifest {}", tag(version), image.manifest_digest));
    }
    line("1.1 is a rebuild: all layers differ, 39 of 40 files have the same content under other names,");
    line("owners and times. Sharing by layer would share nothing.");
}

/// The output of an operator's command that runs beside the plugin.
fn ask(program: &Path, node: &Node, command: &[&str]) -> Result<Value> {
    let state = node.state();
    let output = Command::new(program)
        .arg("--state-dir")
        .arg(state)
        .args(["--output", "json"])
        .args(command)
        .output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Compares every file with what went into the image.
fn read_everything(node: &Node, volume: &Volume, version: &Version) -> Result<()> {
    let target = node.target(volume);
    let started = std::time::Instant::now();
    for (path, digest) in &version.contents {
        let file = target.join(path);
        let found =
            digest_of(File::open(&file)).with_context(|| format!("cannot read {}", file.display()))?;
        ensure!(found == *digest, "{} is not what the image holds", file.display());
    }
    let files = count(version.contents.len() as u64);
    let refused = File::create(target.join("try")).err().context("the volume let itself be written to")?;
    ensure!(refused.raw_os_error() == Some(rustix::io::Errno::ROFS.raw_os_error()), "writing: {refused}");
    line(&format!(
        "{}  {files} files, each as in its image (sha256), in {}; writing is refused",
        volume.pod,
        time(started.elapsed())
    ));
    Ok(())
}

fn disk(node: &Node, versions: &[Version; 2]) -> Result<()> {
    let unpacked = versions.iter().map(|version| version.image.blocks).sum();
    let store = on_disk(&node.state())?;
    bar("both versions unpacked", unpacked, unpacked);
    bar("the store, all included", store, unpacked);
    Ok(())
}

/// Bytes allocated for everything below `directory`.
fn on_disk(directory: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let device = directory.metadata()?.dev();
    let (mut sum, mut left) = (0, vec![directory.to_owned()]);
    while let Some(next) = left.pop() {
        for entry in std::fs::read_dir(&next)? {
            let entry = entry?;
            let metadata = entry.path().symlink_metadata()?;
            // The private mounts of images are here too, and take no space.
            if metadata.dev() != device {
                continue;
            }
            sum += metadata.blocks() * 512;
            if metadata.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(sum)
}

fn memory(node: &Node, volumes: &[(Volume, &Version)]) -> Result<()> {
    let page = rustix::param::page_size() as u64;
    let mut groups: HashMap<[u8; 32], Vec<(usize, PathBuf)>> = HashMap::new();
    for (number, (volume, version)) in volumes.iter().enumerate() {
        let target = node.target(volume);
        for (path, digest) in &version.contents {
            groups.entry(*digest).or_default().push((number, target.join(path)));
        }
    }
    let count = frames::count(volumes.len(), groups.into_values())?;
    let copies = count.seen.iter().sum::<u64>() * page;
    bar("three copies would take", copies, copies);
    for (number, ((volume, _), added)) in volumes.iter().zip(&count.added).enumerate() {
        let label = if number == 0 { volume.pod.clone() } else { format!("and {} as well", volume.pod) };
        bar(&label, added * page, copies);
    }
    Ok(())
}

/// Ends the plugin and looks for anything that it should have removed.
fn leave(node: Node, base: &Path) -> Result<()> {
    let status = node.stop()?;
    ensure!(status.success(), "the plugin ended with {status}");
    let pods = base.join("kubelet");
    let mounts = mounts::below(&pods)?;
    ensure!(mounts.is_empty(), "mounts are left: {mounts:?}");
    let left = std::fs::read_dir(pods.join("pods"))?.count();
    ensure!(left == 0, "{left} pod directories are left");
    line("no mount, no directory and no process of them is left");
    Ok(())
}
