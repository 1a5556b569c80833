//! Whatever is wrong, the layer comes whole, and the log says why.

use serde_json::json;

use super::registry::*;
use super::reuse::{machine, pull, version_one, version_two, whole};
use crate::support::archive::noise;
use crate::support::chunked::{ChunkedLayer, finish};
use crate::support::driver::Machine;

/// A node that has version one, and what the registry is asked for version two of it, with what the pull says.
async fn second_pull(ranges: Ranges, two: &ChunkedLayer, why: &str) -> (ChunkedRegistry, Machine, Cost) {
    let registry = ChunkedRegistry::start(&[]).await;
    let one = layer(&version_one());
    let (first, second) = (registry.offer("1", &[&one]), registry.offer("2", &[two]));
    let expected = whole(&registry, &second);
    let node = machine(&registry, &[]);
    pull(&node, &first);
    registry.cost();
    registry.set(ranges);
    let output = node.command(&["pull", &second, "--output=json", "--log-level=info"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains(why), "{why:?} is not in {said}");
    let pulled: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(pulled["image"], expected["image"]);
    let cost = registry.cost();
    (registry, node, cost)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_ignores_ranges_has_sent_the_layer_by_its_first_answer() {
    let two = layer(&version_two());
    let (_registry, _node, cost) = second_pull(Ranges::Ignored, &two, "ignores ranges").await;
    assert_eq!(cost, Cost { bytes: two.blob.len(), ranges: 0, whole: 1 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_refuses_ranges_is_asked_for_one() {
    let two = layer(&version_two());
    for status in [400, 416, 501] {
        let (_registry, _node, cost) = second_pull(Ranges::Refused(status), &two, "fetched whole").await;
        assert_eq!(cost, Cost { bytes: two.blob.len(), ranges: 1, whole: 1 }, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_serves_some_ranges_and_not_the_rest() {
    let two = layer(&version_two());
    for served in 1..=3 {
        second_pull(Ranges::ServedUntil(served), &two, "ignores ranges").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_with_other_bytes_than_they_say() {
    let two = layer(&version_two());
    second_pull(Ranges::Shifted, &two, "does not have the digest").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn little_in_common_is_not_worth_it() {
    let mut files: Files = (0..60).map(|n| (format!("x/{n}"), noise(&format!("x {n}"), 20_000))).collect();
    files.insert("lib/01".to_owned(), noise("lib 1", 20_000));
    let two = layer(&files);
    let (_registry, _node, cost) = second_pull(Ranges::Served, &two, "would have to be fetched").await;
    assert_eq!((cost.ranges, cost.whole), (1, 1), "the table of contents, and the layer");
}

/// The second version with other tables.
fn altered(change: impl Fn(&mut serde_json::Value, &mut String)) -> ChunkedLayer {
    let two = layer(&version_two());
    let (mut toc, mut split) = (two.toc.clone(), two.tar_split.clone());
    toc.as_object_mut().unwrap().remove("tarSplitDigest");
    change(&mut toc, &mut split);
    finish(two.blob[..two.frames].to_vec(), &two.tar, toc, split)
}

/// The entries of a table that are about this file.
fn about<'a>(toc: &'a mut serde_json::Value, file: &str) -> Vec<&'a mut serde_json::Value> {
    toc["entries"].as_array_mut().unwrap().iter_mut().filter(|entry| entry["name"] == file).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_no_good() {
    let zeros = || json!(format!("sha256:{}", "0".repeat(64)));
    let renamed =
        altered(|toc, _| about(toc, "lib/05").into_iter().for_each(|entry| entry["name"] = "lib/x".into()));
    // A header that is none.
    let other = altered(|_, split| {
        let line = split.lines().find(|line| line.contains("\"type\":2")).unwrap().to_owned();
        let mut header: serde_json::Value = serde_json::from_str(&line).unwrap();
        let payload = header["payload"].as_str().unwrap().replacen('A', "B", 1);
        header["payload"] = payload.into();
        *split = split.replacen(&line, &header.to_string(), 1);
    });
    let cases: [(ChunkedLayer, &str); 6] = [
        (altered(|toc, _| toc["version"] = 2.into()), "not of version 1"),
        (renamed, "disagree"),
        (altered(|_, split| split.push_str("{}\n")), "tar-split is not sound"),
        (altered(|toc, _| toc["tarSplitDigest"] = zeros()), "does not have the digest"),
        (other, "the layer cannot be fetched in parts"),
        (altered(|toc, _| about(toc, "new")[0]["digest"] = zeros()), "is not what its table"),
    ];
    for (two, why) in cases {
        let (_registry, _node, cost) = second_pull(Ranges::Served, &two, why).await;
        assert_eq!(cost.whole, 1, "{why}: {cost:?}");
    }
}

/// What is put together with a wrong DiffID is a whole archive.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_diff_id_tells() {
    // One more block of zeros at the end of the archive: everything else is sound.
    let other = altered(|_, split| split.push_str(&last_zeros(split.lines().count())));
    let (_registry, _node, cost) = second_pull(Ranges::Served, &other, "put together, it is").await;
    assert_eq!(cost.whole, 1, "{cost:?}");
}

/// A line of a tar-split: one more block of zeros.
fn last_zeros(position: usize) -> String {
    use base64::Engine as _;
    let payload = base64::engine::general_purpose::STANDARD.encode([0; 512]);
    format!("{}\n", json!({"type": 2, "payload": payload, "position": position}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_of_the_store_is_fetched_and_not_used() {
    let registry = ChunkedRegistry::start(&[]).await;
    let (one, two) = (layer(&version_one()), layer(&version_two()));
    let (first, second) = (registry.offer("1", &[&one]), registry.offer("2", &[&two]));
    let expected = whole(&registry, &second);
    let node = machine(&registry, &[]);
    pull(&node, &first);
    // Every object of 20 kB loses a byte.
    let objects = node.state().join("store/objects");
    for directory in std::fs::read_dir(objects).unwrap() {
        for object in std::fs::read_dir(directory.unwrap().path()).unwrap() {
            let path = object.unwrap().path();
            if std::fs::metadata(&path).unwrap().len() == 20_000 {
                let _ = std::fs::write(&path, [0; 20_000]);
            }
        }
    }
    registry.cost();
    let pulled = pull(&node, &second);
    assert_eq!(pulled["image"], expected["image"]);
    assert!(registry.cost().bytes > 58 * 20_000, "they are fetched");
}
