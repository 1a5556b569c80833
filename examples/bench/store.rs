//! A collection of most of a large store, beside which an image that stays is published.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::report::Report;
use super::stats::percentile;
use crate::support::layout::{Layer, Layout};
use crate::support::node::{Node, Volume};
use crate::support::tarball::{Kind, Member};

/// Images; all have the first layer, and each has one of its own.
const IMAGES: usize = 200;
/// The part of all objects that the common layer has.
const COMMON: usize = 5;
/// Publishes while nothing else happens.
const IDLE: u32 = 300;

/// What was measured.
#[derive(Debug)]
pub struct Collection {
    objects: usize,
    /// Milliseconds of a publish while nothing else happens.
    idle: Vec<f64>,
    /// While images are collected.
    beside: Vec<f64>,
    /// Seconds of the collection.
    seconds: f64,
    /// Objects that went.
    removed: u64,
}

/// Fills a store with `objects` objects in [`IMAGES`] images, and collects all but one, which is published meanwhile.
pub fn measure(program: &Path, base: &Path, objects: usize) -> Result<Collection> {
    let layout = base.join("layout");
    make(&layout, objects)?;
    let image = |number: usize| format!("oci:{}:image{number}", layout.display());
    let mut node = Node::start(program, base, &["--layout-dir=/", "--gc-interval=86400"])?;
    let command = |arguments: &[&str]| {
        let mut command = Command::new(program);
        command.arg("--state-dir").arg(base.join("state")).args(["--without-policy=accept", "--output=json"]);
        command.args(arguments);
        command
    };
    for number in 0..IMAGES {
        let pulled = command(&["pull", &image(number)]).stdout(Stdio::null()).status()?;
        ensure!(pulled.success(), "an image could not be pulled");
    }
    let image = image(0);
    let keeper = Volume::new("keeper", 0, &image);
    node.publish(&keeper)?;
    let mut number = 0;
    let mut publish = |node: &mut Node| {
        number += 1;
        let volume = Volume::new("pod", number, &image);
        let elapsed = node.publish(&volume)?;
        node.unpublish(&volume)?;
        Ok::<f64, anyhow::Error>(elapsed.as_secs_f64() * 1e3)
    };
    let idle = (0..IDLE).map(|_| publish(&mut node)).collect::<Result<_>>()?;
    let (begun, mut beside) = (Instant::now(), Vec::new());
    let mut prune = command(&["prune"]).stdout(Stdio::piped()).spawn()?;
    let output = std::thread::spawn(move || -> Result<Vec<u8>> {
        let mut stdout = prune.stdout.take().context("it has an output")?;
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut stdout, &mut text)?;
        ensure!(prune.wait()?.success(), "the collection failed");
        Ok(text)
    });
    while !output.is_finished() {
        beside.push(publish(&mut node)?);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let text = output.join().map_err(|_| anyhow::anyhow!("the thread ended"))??;
    let pruned: serde_json::Value = serde_json::from_slice(&text)?;
    node.unpublish(&keeper)?;
    node.stop()?;
    fs::remove_dir_all(&layout)?;
    let removed = pruned["objects"].as_u64().unwrap_or_default();
    Ok(Collection { objects, idle, beside, seconds, removed })
}

fn make(layout: &Path, objects: usize) -> Result<()> {
    let mut made = Layout::create(layout)?;
    let (common, own) = (objects / COMMON, (objects - objects / COMMON) / IMAGES);
    let common = layer(&made, "common", common)?;
    for image in 0..IMAGES {
        let layers = [common.clone(), layer(&made, &format!("own{image}"), own)?];
        made.image(&format!("image{image}"), &layers)?;
    }
    Ok(())
}

/// Files that are no one else's, too large to be inline.
fn layer(layout: &Layout, name: &str, files: usize) -> Result<Layer> {
    let mut layer = layout.layer()?;
    let member = |path: String, kind, size| Member {
        path: path.into_bytes(),
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: 0,
        kind,
        size,
    };
    layer.append(&member(name.to_owned(), Kind::Directory, 0), std::io::empty())?;
    for number in 0..files {
        let content = format!("{name} {number} ").repeat(20).into_bytes();
        let path = format!("{name}/{number}");
        layer.append(&member(path, Kind::File, content.len() as u64), &content[..])?;
    }
    Ok(layer.finish()?)
}

impl Report<'_> {
    /// Publishes beside a collection.
    pub fn collection(&mut self, measured: &Collection) {
        let Collection { objects, idle, beside, seconds, removed } = measured;
        self.add(&format!(
            "\n## A collection of a large store\n\n{objects} objects in {IMAGES} images, which share a layer; `prune` removes all \
             but one ({removed} objects, {seconds:.1} s), and that one is published and unpublished all the while.\n\n\
             | | publishes | p50, ms | p99, ms |\n|---|---|---|---|"
        ));
        for (name, times) in [("nothing else happens", idle), ("beside the collection", beside)] {
            let (p50, p99) = (percentile(times, 50.0), percentile(times, 99.0));
            self.add(&format!("| {name} | {} | {p50:.1} | {p99:.1} |", times.len()));
        }
    }
}
