//! Repair, then collect, under a running pod: the repair takes the image's record away, and the collection must not take
//! what the mount shows. Needs root.

use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use composefs_csi::image::verity::VerityDigest;

use crate::support::driver::Machine;
use crate::support::images::{Image, Layout};

const FILES: usize = 40;

/// The content of file `number`: too large to be inline, and no file's is another's.
fn content(number: usize) -> Vec<u8> {
    format!("file {number} ").repeat(500).into_bytes()
}

fn archive(numbers: Range<usize>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for number in numbers {
        let content = content(number);
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("file{number}"), &content[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

/// An object that a killed pull has left: it goes with the next collection.
fn orphan(machine: &Machine) -> PathBuf {
    let content = b"nobody's".repeat(100);
    let hex = VerityDigest::of(&content).hex();
    let path = machine.state().join("store/objects").join(&hex[..2]).join(&hex[2..]);
    std::fs::write(&path, content).unwrap();
    std::fs::write(machine.state().join("store/holds/abandoned"), "").unwrap();
    path
}

fn assert_shows_all_but_the_damaged(machine: &Machine, after: &str) {
    for number in 1..FILES {
        let read = std::fs::read(machine.target("a").join(format!("file{number}")));
        assert_eq!(read.unwrap(), content(number), "file{number} after {after}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_and_a_collection_together_leave_a_pod_its_files() {
    let layout = Layout::of(&Image::new(vec![archive(0..FILES)]));
    let (image, other) =
        (layout.reference("latest"), Layout::of(&Image::new(vec![archive(FILES..FILES + 1)])));
    // Every filesystem is fuller than one percent, so each round of housekeeping makes room.
    let machine = Machine::new(&["--layout-dir=/", "--gc-high=1", "--gc-low=0"]);
    let plugin = machine.start().await;
    plugin.node.clone().node_publish_volume(machine.publish("a", &image)).await.unwrap();

    let damaged = VerityDigest::of(&content(0)).hex();
    let object = machine.state().join("store/objects").join(&damaged[..2]).join(&damaged[2..]);
    let mut bytes = std::fs::read(&object).unwrap();
    bytes[7] ^= 1;
    std::fs::write(&object, bytes).unwrap();
    let repaired = machine.command(&["verify", "--repair"]).output().unwrap();
    let printed = String::from_utf8_lossy(&repaired.stdout).into_owned();
    assert!(printed.contains(&format!("pull again: {image}")), "{printed}");

    machine.run(&["prune"]);
    assert_shows_all_but_the_damaged(&machine, "prune");
    // A pull is followed by a round of housekeeping.
    let orphan = orphan(&machine);
    plugin.node.clone().node_publish_volume(machine.publish("b", &other.reference("latest"))).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while orphan.exists() {
        assert!(Instant::now() < deadline, "housekeeping does not come: {}", machine.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_shows_all_but_the_damaged(&machine, "housekeeping");

    // The next pull brings back what the repair removed, and nothing stays once the pods are gone.
    machine.run(&["pull", &image]);
    assert_eq!(machine.run(&["verify"])["damaged"].as_array().unwrap().len(), 0);
    for pod in ["a", "b"] {
        plugin.node.clone().node_unpublish_volume(machine.unpublish(pod)).await.unwrap();
    }
    machine.assert_nothing_published();
    let pruned = machine.run(&["prune"]);
    assert_eq!(pruned["objects"], FILES + 1 + 2, "every file and two composefs images: {pruned}");
}
