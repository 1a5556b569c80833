//! What a second version costs, and that it is the same image as by a whole pull.

use std::path::Path;

use composefs_csi::image::verity::VerityDigest;

use super::registry::*;
use crate::support::archive::noise;
use crate::support::driver::Machine;

/// Some sixty files of 20 kB, one of 400 kB, and small ones, which have no object of their own.
pub fn version_one() -> Files {
    let mut files: Files =
        (0..60).map(|n| (format!("lib/{n:02}"), noise(&format!("lib {n}"), 20_000))).collect();
    files.extend((0..10).map(|n| (format!("small/{n}"), format!("small {n}").into_bytes())));
    files.insert("large".to_owned(), noise("large", 400_000));
    files.insert("holes".to_owned(), [noise("a", 9000), vec![0; 500_000], noise("b", 9000)].concat());
    files
}

/// One file is new, one is renamed, one has changed in one place, and one is gone.
pub fn version_two() -> Files {
    let mut files = version_one();
    files.insert("new".to_owned(), noise("new", 30_000));
    let renamed = files.remove("lib/30").unwrap();
    files.insert("lib/renamed".to_owned(), renamed);
    files.get_mut("large").unwrap()[200_000] ^= 0xff;
    files.remove("lib/40").unwrap();
    files
}

pub fn machine(registry: &ChunkedRegistry, extra: &[&str]) -> Machine {
    let host = registry.host();
    // A range is a part of a layer that is put together here, and not of one that is fetched whole.
    Machine::new(&[&["--insecure-registry", &host, "--keep-partial=0"], extra].concat())
}

/// The composefs digest of an image that was pulled.
pub fn pull(machine: &Machine, image: &str) -> serde_json::Value {
    machine.run(&["pull", image])
}

pub fn counted(state: &Path) -> Vec<String> {
    let list = std::fs::read_dir(state.join("store/contents")).unwrap();
    let mut names: Vec<_> = list.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The image as a node without anything gets it.
pub fn whole(registry: &ChunkedRegistry, image: &str) -> serde_json::Value {
    let fresh = machine(registry, &["--partial-pulls=none"]);
    let pulled = pull(&fresh, image);
    assert_eq!(registry.cost().ranges, 0);
    assert!(counted(&fresh.state()).is_empty(), "nothing is listed for nobody");
    pulled
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_version_costs_what_has_changed() {
    let registry = ChunkedRegistry::start(&[]).await;
    let (one, two) = (layer(&version_one()), layer(&version_two()));
    let (first, second) = (registry.offer("1", &[&one]), registry.offer("2", &[&two]));
    let expected = whole(&registry, &second);
    let node = machine(&registry, &[]);
    pull(&node, &first);
    assert_eq!(registry.cost(), Cost { bytes: one.blob.len(), ranges: 0, whole: 1 });
    let pulled = pull(&node, &second);
    assert_eq!(pulled["image"], expected["image"]);
    let cost = registry.cost();
    let tables = two.blob.len() - two.frames;
    // The new file, and the chunk of the large one.
    assert!(
        cost.whole == 0 && cost.bytes < tables + 30_000 + 4096 + 3000,
        "{cost:?} with tables of {tables}"
    );
    assert_eq!(pulled["fetched_bytes"], cost.bytes);
    assert_eq!(pulled["here_bytes"], two.blob.len() - cost.bytes);
    let shown = node.command(&["pull", &second]).output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("already here"));
    // Each version serves the next.
    let mut third = version_two();
    third.insert("newer".to_owned(), noise("newer", 10_000));
    let third = layer(&third);
    let image = registry.offer("3", &[&third]);
    pull(&node, &image);
    let cost = registry.cost();
    assert!(cost.whole == 0 && cost.bytes < third.blob.len() - third.frames + 20_000, "{cost:?}");
    // And a layer that was put together is here for its next image.
    let again = registry.offer("again", &[&two, &third]);
    pull(&node, &again);
    assert_eq!(registry.cost(), Cost::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_and_requests_are_settings() {
    let registry = ChunkedRegistry::start(&[]).await;
    let mut changed = version_one();
    for n in (0..60).step_by(3) {
        changed.insert(format!("lib/{n:02}"), noise(&format!("other {n}"), 20_000));
    }
    let (one, two) = (layer(&version_one()), layer(&changed));
    let (first, second) = (registry.offer("1", &[&one]), registry.offer("2", &[&two]));
    let mut seen = Vec::new();
    for settings in [&[][..], &["--partial-pull-requests=4"], &["--partial-pull-gap=100000"]] {
        let node = machine(&registry, settings);
        pull(&node, &first);
        registry.ranges();
        pull(&node, &second);
        let ranges = registry.ranges();
        // Two of them are the tables.
        seen.push((ranges.len() - 2, ranges.iter().map(|(first, last)| last + 1 - first).sum::<usize>()));
    }
    let [usual, few, wide] = seen[..] else { panic!() };
    // One range, which is more than a request may have.
    assert_eq!((usual.0, few.0, wide.0), (20, 4, 2), "{seen:?}");
    assert!(usual.1 < few.1 && few.1 < wide.1, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_takes_the_list_with_the_layer_and_a_killed_pull_leaves_none() {
    let registry = ChunkedRegistry::start(&[]).await;
    let (one, two) = (layer(&version_one()), layer(&version_two()));
    let (first, second) = (registry.offer("1", &[&one]), registry.offer("2", &[&two]));
    let node = machine(&registry, &[]);
    pull(&node, &first);
    assert_eq!(counted(&node.state()).len(), 1);
    node.run(&["prune"]);
    assert!(counted(&node.state()).is_empty());
    registry.cost();
    pull(&node, &second);
    assert_eq!(
        registry.cost(),
        Cost { bytes: two.blob.len(), ranges: 0, whole: 1 },
        "nothing is left to be used"
    );
    // What is here is used even if the record of its image is gone.
    pull(&node, &first);
    let cost = registry.cost();
    assert!(cost.whole == 0 && cost.bytes < one.blob.len() / 4, "{cost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_fetched_again_and_no_more() {
    let registry = ChunkedRegistry::start(&[]).await;
    let files = version_one();
    let one = layer(&files);
    let image = registry.offer("1", &[&one]);
    let node = machine(&registry, &[]);
    pull(&node, &image);
    registry.cost();
    let hex = VerityDigest::of(&files["lib/07"]).hex();
    let object = node.state().join("store/objects").join(&hex[..2]).join(&hex[2..]);
    std::fs::write(&object, vec![7; files["lib/07"].len()]).unwrap();
    let repaired = node.run(&["store", "repair"]);
    assert_eq!(repaired["damaged"].as_array().unwrap().len(), 1, "{repaired}");
    assert_eq!(std::fs::read(&object).unwrap(), files["lib/07"]);
    let (cost, tables) = (registry.cost(), one.blob.len() - one.frames);
    assert!(cost.whole == 0 && cost.bytes < tables + 20_000 + 4096, "{cost:?} with tables of {tables}");
    assert_eq!(node.run(&["verify"])["damaged"].as_array().unwrap().len(), 0);
}
