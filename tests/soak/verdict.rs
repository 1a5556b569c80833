//! What must be true in the end.

use std::path::{Path, PathBuf};

use crate::images::{self, COUNT};
use crate::innocent::take_down;
use crate::{Soak, pods};

/// Nothing lost: every image can still be mounted whole. Nothing left: once all pods are gone and the store is pruned,
/// there is no mount, no record and no object.
///
/// # Panics
/// It is not so.
pub async fn pronounce(soak: &Soak) {
    let node = &soak.node;
    node.restart(rustix::process::Signal::TERM).await;
    for pod in pods::names() {
        take_down(node, &pod).await;
    }
    node.machine.assert_nothing_published();
    node.machine.run(&["verify"]);
    for number in 1..COUNT {
        let request = node.machine.publish("last", &soak.registries.fair.reference(number));
        let published = node.client().await.node_publish_volume(request).await;
        published
            .unwrap_or_else(|status| panic!("image {number} is lost: {status}\n{}", node.machine.log_tail()));
        let seen = images::read(&node.machine.target("last")).expect("readable");
        assert!(
            seen == soak.registries.catalogue.image(number).contents,
            "image {number} is not what it was"
        );
        take_down(node, "last").await;
    }
    node.machine.run(&["unpin", &soak.registries.fair.reference(0)]);
    node.machine.run(&["prune"]);
    node.machine.assert_nothing_published();
    let empty = ["objects", "layers", "staging", "blobs", "fetched", "images", "access", "dossiers", "names"];
    for directory in empty.into_iter().chain(["holds", "dirty", "tmp", "pins"]) {
        let left = files_below(&node.machine.state().join("store").join(directory));
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
    let log = node.machine.log();
    assert!(!log.contains("panicked"), "the plugin has panicked:\n{log}");
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries
        .map(|entry| entry.expect("readable").path())
        .flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] })
        .collect()
}
