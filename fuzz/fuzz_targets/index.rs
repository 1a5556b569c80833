//! Indexes, and the choice of a platform.
//!
//! Input: one byte of choices, then a document. Held: what is chosen is in the index and runs on the platform;
//! what cannot run there does not change the choice; the limits.

#![no_main]

use composefs_csi::oci::limits::ImageLimits;
use composefs_csi::oci::manifest::{Document, Index, IndexEntry};
use composefs_csi::oci::platform::{Choice, Platform};
use libfuzzer_sys::fuzz_target;

const STATED: [Option<&str>; 3] = [
    None,
    Some("application/vnd.oci.image.index.v1+json"),
    Some("application/vnd.docker.distribution.manifest.list.v2+json"),
];
const WANTED: [&str; 5] = ["linux/amd64", "linux/amd64/v3", "linux/arm64", "linux/arm/v6", "windows/amd64"];

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    let Ok(Document::Index(index)) = Document::parse(bytes, STATED[usize::from(choice % 3)]) else { return };
    assert!(index.entries.len() <= ImageLimits::DEFAULT.index_entries);
    for wanted in WANTED {
        let wanted: Platform = wanted.parse().expect("a platform");
        let suits = |platform: &Option<Platform>| {
            platform.as_ref().is_some_and(|offered| wanted.suitability(offered).is_some())
        };
        let only_artifacts = index.entries.iter().all(|entry| entry.is_attestation || entry.is_artifact);
        let is_candidate = |entry: &&IndexEntry| !entry.is_attestation && (only_artifacts || !entry.is_artifact);
        let images = || index.entries.iter().filter(is_candidate);
        let chosen = match index.choose(&wanted) {
            Ok(Choice::Entry(chosen)) => chosen,
            Ok(Choice::Ask { unstated, otherwise }) => {
                assert!(unstated.iter().all(|entry| entry.platform.is_none() && index.entries.contains(entry)));
                assert!(!unstated.is_empty() && otherwise.is_none_or(|entry| suits(&entry.platform)));
                continue;
            }
            Err(_) => {
                assert!(!images().any(|entry| suits(&entry.platform)), "something suits {wanted}");
                continue;
            }
        };
        assert!(index.entries.contains(chosen) && is_candidate(&chosen));
        if chosen.platform.is_none() {
            assert_eq!(images().count(), 1, "only a sole entry needs no platform");
            continue;
        }
        assert!(suits(&chosen.platform));
        let fitting = images().filter(|entry| suits(&entry.platform)).cloned().collect();
        let fewer = Index { entries: fitting, annotations: Default::default() };
        assert_eq!(fewer.choose(&wanted), Ok(Choice::Entry(chosen)));
    }
});
