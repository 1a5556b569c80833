//! A node whose disk is full or read-only: what is there is listed, read, unmounted and removed, the plugin starts, and
//! when there is room again everything goes on. Needs root.

use tonic::Code;

use crate::support::disk::SmallDisk;
use crate::support::driver::Machine;
use crate::support::images::{Image, Layout};

const FILES: usize = 40;

/// The content of file `number`: too large to be inline, and no file's is another's, of this node or of another test's: an
/// image that is mounted anywhere counts as mounted.
fn content(machine: &Machine, number: usize) -> Vec<u8> {
    format!("file {number} of {} ", machine.path().display()).repeat(100).into_bytes()
}

fn layout(machine: &Machine, numbers: std::ops::Range<usize>) -> Layout {
    let mut archive = tar::Builder::new(Vec::new());
    for number in numbers {
        let content = content(machine, number);
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("file{number}"), &content[..]).unwrap();
    }
    Layout::of(&Image::new(vec![archive.into_inner().unwrap()]))
}

/// The error of a command that fails.
fn complaint(machine: &Machine, arguments: &[&str]) -> String {
    let output = machine.command(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A plugin with two images, one of them in a pod, restarted after `fill` has filled its disk.
async fn works_on_a_full_disk<F>(fill: impl Fn(&SmallDisk) -> F) {
    let machine = Machine::new(&["--layout-dir=/"]);
    let (one, other) = (layout(&machine, 0..FILES), layout(&machine, FILES..2 * FILES));
    let disk = SmallDisk::mount(&machine.state(), 32, 800);
    let plugin = machine.start().await;
    plugin.node.clone().node_publish_volume(machine.publish("a", &one.reference("latest"))).await.unwrap();
    machine.run(&["pull", &other.reference("latest")]);
    drop(plugin);

    let filler = fill(&disk);
    assert_eq!(machine.run(&["ls"])["images"].as_array().unwrap().len(), 2);
    let level = machine.run(&["ls"])["integrity"].clone();
    assert_eq!(machine.run(&["verify"])["damaged"].as_array().unwrap().len(), 0);
    // As after a crash of the plugin: kubelet starts it again, and takes the pod down.
    let plugin = machine.start().await;
    assert_eq!(std::fs::read(machine.target("a").join("file7")).unwrap(), content(&machine, 7));
    let third = layout(&machine, 0..3 * FILES);
    let refused =
        plugin.node.clone().node_publish_volume(machine.publish("b", &third.reference("latest"))).await;
    assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
    plugin.node.clone().node_unpublish_volume(machine.unpublish("a")).await.unwrap();
    machine.assert_nothing_published();
    let pruned = machine.run(&["prune"]);
    assert_eq!(pruned["images"].as_array().unwrap().len(), 2, "{pruned}");
    assert!(pruned["objects"].as_u64() >= Some(2 * FILES as u64), "{pruned}");

    drop(filler);
    plugin.node.clone().node_publish_volume(machine.publish("b", &third.reference("latest"))).await.unwrap();
    assert_eq!(std::fs::read(machine.target("b").join("file100")).unwrap(), content(&machine, 100));
    assert_eq!(machine.run(&["ls"])["integrity"], level, "a full disk changes no verdict");
    plugin.node.clone().node_unpublish_volume(machine.unpublish("b")).await.unwrap();
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_inodes_the_plugin_starts_and_makes_room() {
    works_on_a_full_disk(SmallDisk::fill_inodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_bytes_the_plugin_starts_and_makes_room() {
    works_on_a_full_disk(SmallDisk::fill_bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_store_is_listed_and_verified_and_says_why_it_takes_nothing() {
    let machine = Machine::new(&[]);
    let (kept, other) = (layout(&machine, 0..FILES), layout(&machine, FILES..2 * FILES));
    let disk = SmallDisk::mount(&machine.state(), 32, 800);
    machine.run(&["pull", &kept.reference("latest")]);
    // What a killed writer has left cannot be removed now.
    std::fs::write(machine.state().join("store/tmp/left"), "x").unwrap();
    disk.remount("ro");
    assert_eq!(machine.run(&["ls"])["images"].as_array().unwrap().len(), 1);
    let verified = machine.run(&["verify"]);
    assert!(verified["objects"].as_u64() > Some(FILES as u64), "{verified}");
    for arguments in
        [&["pull", &other.reference("latest")][..], &["prune"], &["pin", &kept.reference("latest")]]
    {
        let text = complaint(&machine, arguments);
        assert!(text.contains("read-only filesystem") && text.contains("mount it writable"), "{text}");
    }
    disk.remount("rw");
    machine.run(&["pull", &other.reference("latest")]);
    assert!(!machine.state().join("store/tmp/left").exists());
}

/// How many more files the disk takes.
fn free_inodes(machine: &Machine) -> u64 {
    rustix::fs::statvfs(machine.state()).unwrap().f_ffree
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_leave_room_to_others_and_make_some() {
    const INODES: u32 = 4000;
    let mut machine = Machine::new(&["--layout-dir=/"]);
    let (old, two) =
        (layout(&machine, 0..1000), [layout(&machine, 1000..2500), layout(&machine, 2500..4000)]);
    let _disk = SmallDisk::mount(&machine.state(), 128, INODES);
    machine.run(&["pull", &old.reference("latest")]);
    machine.also("--min-free=50");
    let plugin = machine.start().await;
    // Two at once, of which each alone would fit.
    let publish = async |pod, image: &Layout| {
        plugin.node.clone().node_publish_volume(machine.publish(pod, &image.reference("latest"))).await
    };
    let (a, b) = tokio::join!(publish("a", &two[0]), publish("b", &two[1]));
    let refused = a.and(b).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("--min-free") && refused.message().contains("inodes"), "{refused}");
    // Looked at every 256 files, and each of two pulls may have one in hand.
    let least = u64::from(INODES) / 2 - 300;
    assert!(free_inodes(&machine) > least, "{} of {INODES} inodes are left", free_inodes(&machine));

    // The refusal asks for housekeeping, which takes what was not used of late.
    for record in std::fs::read_dir(machine.state().join("store/images")).unwrap() {
        let record = std::fs::File::options().write(true).open(record.unwrap().path()).unwrap();
        record.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(3600)).unwrap();
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    let served = loop {
        match publish("a", &two[0]).await {
            Ok(answer) => break answer,
            Err(error) => assert_eq!(error.code(), Code::ResourceExhausted, "{error}"),
        }
        assert!(std::time::Instant::now() < deadline, "no room is made: {}", machine.log());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    drop(served);
    assert_eq!(std::fs::read(machine.target("a").join("file1234")).unwrap(), content(&machine, 1234));
    assert!(free_inodes(&machine) > least);
    plugin.node.clone().node_unpublish_volume(machine.unpublish("a")).await.unwrap();
}
