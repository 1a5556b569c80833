//! Many pods on one image: their pages are the same frames of memory. How long the driver keeps them is printed.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::json;

use crate::cluster::{Cluster, until};
use crate::images::{Files, noise};
use crate::node::INSPECTOR;
use crate::pods::{Reader, inline};
use crate::support::tools;

const PODS: usize = 30;
/// Of the driver's part of the start of a pod it is printed how often it takes at most this bucket's bound, in seconds.
/// They depend on what else the machine does, so they are not judged here: `make bench` measures them.
const BUCKET: &str = "0.1";
/// Present, of a page table entry as pagemap shows it, and the bits of its frame's number.
const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;

/// Thirty pods start at once and run a program of the image; one more runs the same program of another image.
pub async fn thirty_pods(cluster: &Cluster) {
    let program = std::fs::read(tools::debian_set("registry").join("root/usr/bin/busybox")).expect("busybox");
    let files = Files::default().with_program("bin/busybox", program);
    let (image, _) = cluster.registries.open.push(&files.clone().with("data", noise(7, 500_000)), "shared:1");
    let (other, _) = cluster.registries.open.push(&files.with("data", noise(8, 500_000)), "other:1");
    let node = cluster.inspect().await;
    let names: Vec<String> = (0..PODS).map(|number| format!("shared-{number}")).collect();
    let reader = |name: &str, image: &str| {
        let reader = Reader::new(name, inline(json!({"image": image}))).on(&node);
        reader.running(&["/content/bin/busybox", "sleep", "1000000"])
    };
    // The first pull is the network's time and not the driver's.
    cluster.start(&reader("shared-first", &image)).await;
    let before = Publishes::read(cluster).await;
    for name in &names {
        cluster.submit(&reader(name, &image)).await;
    }
    until("thirty running pods", 300, async || {
        let pods = cluster.api::<Pod>().list(&ListParams::default()).await.expect("pods").items;
        let phase = |pod: &Pod| pod.status.as_ref()?.phase.clone();
        (pods.iter().filter(|pod| phase(pod).as_deref() == Some("Running")).count() >= PODS + 2).then_some(())
    })
    .await;
    let publishes = Publishes::read(cluster).await.since(&before);
    println!("kind: {publishes}");
    assert!(publishes.all >= PODS as u64, "only {publishes}");

    cluster.start(&reader("shared-other", &other)).await;
    shared_frames(cluster, PODS + 2);
}

/// Each page of the program is one frame of memory, in however many processes and images it is.
fn shared_frames(cluster: &Cluster, processes: usize) {
    let pids = cluster.processes("/content/bin/busybox sleep");
    assert_eq!(pids.len(), processes, "processes that run the program");
    let mut frames: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let mut mapped = 0;
    for pid in pids {
        for (page, frame) in program_pages(cluster, pid) {
            frames.entry(page).or_default().insert(frame);
            mapped += 1;
        }
    }
    let distinct: usize = frames.values().map(BTreeSet::len).sum();
    println!("kind: {processes} processes map {mapped} pages of one program, in {distinct} frames of memory");
    assert!(mapped > processes * 10, "only {mapped} pages are mapped");
    assert_eq!(distinct, frames.len(), "some page of the program is in memory twice");
}

/// The file pages of the program's code that a process has mapped, with their frames.
fn program_pages(cluster: &Cluster, pid: u32) -> Vec<(u64, u64)> {
    let maps = cluster.sh(INSPECTOR, &format!("grep ' r-xp .*/content/bin/busybox$' /proc/{pid}/maps"));
    let line = maps.lines().next().expect("the program's code is mapped");
    let words: Vec<&str> = line.split_whitespace().collect();
    let (start, end) = words[0].split_once('-').expect("a range");
    let number = |text: &str| u64::from_str_radix(text, 16).expect("a hexadecimal number");
    let (first, last, offset) = (number(start) >> 12, number(end) >> 12, number(words[2]) >> 12);
    let script = format!(
        "dd if=/proc/{pid}/pagemap bs=8 skip={first} count={} 2>/dev/null | od -A n -v -t x8",
        last - first
    );
    let entries = cluster.sh(INSPECTOR, &script);
    let entries = entries.split_whitespace().map(number).zip(offset..);
    entries.filter(|(entry, _)| entry & PRESENT != 0).map(|(entry, page)| (page, entry & FRAME)).collect()
}

/// What the node plugins have counted of NodePublishVolume.
#[derive(Debug)]
struct Publishes {
    quick: u64,
    all: u64,
    seconds: f64,
}

impl Publishes {
    async fn read(cluster: &Cluster) -> Self {
        let name = "composefs_csi_rpc_duration_seconds";
        let labels = r#"code="OK",rpc="NodePublishVolume""#;
        let bucket = format!("{name}_bucket{{{labels},le=\"{BUCKET}\"}}");
        Self {
            quick: cluster.metric(&bucket).await as u64,
            all: cluster.metric(&format!("{name}_count{{{labels}}}")).await as u64,
            seconds: cluster.metric(&format!("{name}_sum{{{labels}}}")).await,
        }
    }

    fn since(self, before: &Self) -> Self {
        Self {
            quick: self.quick - before.quick,
            all: self.all - before.all,
            seconds: self.seconds - before.seconds,
        }
    }
}

impl std::fmt::Display for Publishes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { quick, all, seconds } = self;
        let mean = seconds * 1000.0 / (*all).max(1) as f64;
        write!(f, "{quick} of {all} publishes within {BUCKET} s, {mean:.1} ms on average")
    }
}
