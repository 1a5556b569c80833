//! zstd:chunked layers in artifacts: they are put together where the artifact states the digest of the archive, and are what the
//! kind of the artifact makes of them in any case.

use std::fs;

use composefs_csi::oci::digest::Digest;

use super::registry::*;
use super::reuse::{machine, pull, version_one, version_two};
use crate::support::chunked::ChunkedLayer;
use crate::support::driver::Machine;
use crate::support::registry::run;

const MODEL: &str = "application/vnd.cncf.model.config.v1+json";
const OTHER: &str = "application/vnd.example.config+json";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// Below a directory, as oras packs it.
fn below(directory: &str, files: &Files) -> Files {
    files.iter().map(|(name, content)| (format!("{directory}/{name}"), content.clone())).collect()
}

fn assert_shows(machine: &Machine, image: &str, files: &Files) {
    let target = tempfile::tempdir().unwrap();
    let at = target.path();
    run(&mut machine.command(&["mount", image, at.to_str().unwrap()]));
    let differs: Vec<_> = files
        .iter()
        .filter(|(name, content)| fs::read(at.join(name)).ok().as_ref() != Some(content))
        .collect();
    run(&mut machine.command(&["unmount", at.to_str().unwrap()]));
    assert!(differs.is_empty(), "{image} has other content in {:?}", differs.first().map(|(name, _)| name));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packed_directory_with_a_digest_costs_what_has_changed() {
    let registry = ChunkedRegistry::start(&[]).await;
    let (old, new) = (below("sub", &version_one()), below("sub", &version_two()));
    let offer = |tag: &str, layer: &ChunkedLayer, digest: &str| {
        let unpack = [
            ("org.opencontainers.image.title", "sub"),
            ("io.deis.oras.content.unpack", "true"),
            ("io.deis.oras.content.digest", digest),
        ];
        registry.offer_artifact(tag, (OTHER, ZSTD), layer, &unpack)
    };
    let (one, two) = (layer(&old), layer(&new));
    let digest = |layer: &ChunkedLayer| Digest::of(&layer.tar).to_string();
    let (first, second) = (offer("1", &one, &digest(&one)), offer("2", &two, &digest(&two)));
    let node = machine(&registry, &[]);
    pull(&node, &first);
    assert_eq!(registry.cost(), Cost { bytes: one.blob.len(), ranges: 0, whole: 1 });
    let pulled = pull(&node, &second);
    let cost = registry.cost();
    assert!(cost.whole == 0 && cost.bytes < two.blob.len() / 4, "{cost:?} of {}", two.blob.len());
    assert_shows(&node, &second, &new);
    let fresh = machine(&registry, &["--partial-pulls=none"]);
    assert_eq!(pulled["image"], pull(&fresh, &second)["image"]);

    // Another digest than the archive's is found out, however the layer comes.
    let lie = offer("lie", &two, &Digest::of(b"another archive").to_string());
    for options in [&[][..], &["--partial-pulls=none"]] {
        let node = machine(&registry, options);
        pull(&node, &first);
        let output = node.command(&["pull", &lie]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(&Digest::of(b"another archive").to_string()),
            "{said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_digest_it_comes_whole_and_a_file_stays_a_file() {
    let registry = ChunkedRegistry::start(&[]).await;
    let (one, two) = (layer(&version_one()), layer(&version_two()));
    let weights = "application/vnd.cncf.model.weight.v1.tar+zstd";
    let path = [("org.cncf.model.filepath", "weights")];
    let first = registry.offer_artifact("1", (MODEL, weights), &one, &path);
    let second = registry.offer_artifact("2", (MODEL, weights), &two, &path);
    let file =
        registry.offer_artifact("file", (OTHER, ZSTD), &two, &[("org.opencontainers.image.title", "two")]);
    let node = machine(&registry, &[]);
    pull(&node, &first);
    registry.cost();
    pull(&node, &second);
    assert_eq!(registry.cost(), Cost { bytes: two.blob.len(), ranges: 0, whole: 1 });
    assert_shows(&node, &second, &version_two());
    // The same blob, but not an archive there.
    assert_shows(&node, &file, &Files::from([("two".to_owned(), two.blob.clone())]));
    // And an image of it is put together from what the artifact has brought.
    let image = registry.offer("image", &[&two]);
    pull(&node, &image);
    assert_shows(&node, &image, &version_two());
}
