//! An image is read ahead when its base mount is made, and only then: by its pages in the page cache. Its objects are looked
//! up where that was asked for: by what the plugin says of it. Needs root.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::archive::{archive, noise};
use crate::support::driver::Machine;
use crate::support::images::{Image, Layout};
use crate::support::pages::Mapping;

/// An image whose metadata takes a few MiB: many files, whose content lies in it.
fn layout(machine: &Machine, kind: &str) -> Layout {
    let mut archive = tar::Builder::new(Vec::new());
    for number in 0..8000 {
        let content = format!("{kind} {number} {:>30}", machine.path().display());
        let content = &content.as_bytes()[..content.len().min(60)];
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(number);
        archive.append_data(&mut header, format!("{kind}{number}"), content).unwrap();
    }
    Layout::of(&Image::new(vec![archive.into_inner().unwrap()]))
}

/// Pulls an image; returns where its metadata is.
fn pull(machine: &Machine, reference: &str) -> PathBuf {
    let pulled = machine.run(&["pull", reference]);
    let hex = pulled["image"].as_str().unwrap();
    machine.state().join("store/objects").join(&hex[..2]).join(&hex[2..])
}

/// Pages of a file that are in memory, and all.
fn resident(image: &PathBuf) -> (usize, usize) {
    let pages = Mapping::new(File::open(image).unwrap()).unwrap().resident().unwrap();
    (pages.iter().filter(|page| **page).count(), pages.len())
}

/// Drops the file's pages. Some stay as long as somebody looks at them.
fn evict(image: &PathBuf) {
    let file = File::open(image).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let (found, all) = resident(image);
        if found < all / 4 {
            return;
        }
        assert!(Instant::now() < deadline, "{found} of {all} pages stay");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn wait_until_all_are_there(image: &PathBuf, machine: &Machine) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (found, all) = resident(image);
        assert!(all > 256, "{all} pages show nothing: mounting reads a few");
        if found == all {
            return;
        }
        assert!(Instant::now() < deadline, "{found} of {all} pages are there: {}", machine.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_read_ahead_once_at_its_base_mount() {
    let machine = Machine::new(&["--layout-dir=/"]);
    let (one, other) = (layout(&machine, "one"), layout(&machine, "other"));
    let (first, second) =
        (pull(&machine, &one.reference("latest")), pull(&machine, &other.reference("latest")));
    let plugin = machine.start().await;
    let publish = async |pod: &str, layout: &Layout| {
        let request = machine.publish(pod, &layout.reference("latest"));
        plugin.node.clone().node_publish_volume(request).await.unwrap();
    };
    evict(&first);
    publish("a", &one).await;
    wait_until_all_are_there(&first, &machine);

    // Another pod is a clone of that mount. The images are read in turn, so when the second is there, the first would be.
    evict(&first);
    evict(&second);
    publish("b", &one).await;
    publish("c", &other).await;
    wait_until_all_are_there(&second, &machine);
    let (found, all) = resident(&first);
    assert!(found < all / 2, "{found} of {all} pages were read for a clone");

    for pod in ["a", "b", "c"] {
        plugin.node.clone().node_unpublish_volume(machine.unpublish(pod)).await.unwrap();
    }
    machine.assert_nothing_published();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_by_command_leaves_the_image_read_ahead() {
    let machine = Machine::new(&["--layout-dir=/"]);
    let layout = layout(&machine, "file");
    let image = pull(&machine, &layout.reference("latest"));
    evict(&image);
    let target = machine.path().join("mounted");
    std::fs::create_dir(&target).unwrap();
    machine.run(&["mount", &layout.reference("latest"), target.to_str().unwrap()]);
    wait_until_all_are_there(&image, &machine);
    machine.run(&["unmount", target.to_str().unwrap()]);
}

/// An image of so many objects.
fn of_objects(count: usize) -> Layout {
    let files: Vec<_> =
        (0..count).map(|n| (format!("f{n}"), noise(&format!("object {n}"), 10_000))).collect();
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, content)| (name.as_str(), &content[..])).collect();
    Layout::of(&Image::new(vec![archive(&files)]))
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_objects_are_looked_up_as_was_said_once_for_each_base_mount() {
    let layout = of_objects(30);
    for (said, expected) in [(None, None), (Some(20), Some(20)), (Some(1000), Some(30))] {
        let mut machine =
            Machine::new(&["--layout-dir=/", "--log-level=info,composefs_csi::node::mount=debug"]);
        if let Some(most) = said {
            machine.also(&format!("--stat-ahead={most}"));
        }
        pull(&machine, &layout.reference("latest"));
        let plugin = machine.start().await;
        let lines = || machine.log().lines().filter(|line| line.contains("looked up")).count();
        let told = |objects: usize| {
            let wanted = format!("objects={objects} of={objects}");
            machine.log().lines().any(|line| line.contains("looked up") && line.contains(&wanted))
        };
        for pod in ["a", "b"] {
            let request = machine.publish(pod, &layout.reference("latest"));
            plugin.node.clone().node_publish_volume(request).await.unwrap();
        }
        if let Some(objects) = expected {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !told(objects) {
                assert!(Instant::now() < deadline, "{}", machine.log());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        for pod in ["a", "b"] {
            plugin.node.clone().node_unpublish_volume(machine.unpublish(pod)).await.unwrap();
        }
        assert_eq!(lines(), usize::from(expected.is_some()), "{}", machine.log());
        machine.assert_nothing_published();
    }
}
