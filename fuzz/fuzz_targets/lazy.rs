//! What is published for images to start lazily: offset maps, lists of first uses, manifests of artifacts, and the bytes of
//! ranges.
//!
//! Input: a byte of choice, then a file. Held: a map that is taken is written to the same bytes again, each of its objects is
//! found where it is listed, within its layer, and no other is; a list and an artifact are written and read to the same; of
//! a range come no more bytes than the object has, whatever it holds.

#![no_main]

use std::collections::BTreeMap;
use std::io::Read as _;

use composefs_csi::image::lazy::{Artifact, FirstList, Located, OffsetMap, Packing, Place};
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::oci::digest::Digest;
use composefs_csi::oci::limits::ImageLimits;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    match choice % 4 {
        0 => map(bytes),
        1 => {
            let Ok(list) = FirstList::read(bytes) else { return };
            assert_eq!(FirstList::read(list.write().as_bytes()).expect("our own"), list);
        }
        2 => {
            // The digest that the seeds are about.
            let subject = Digest::of(b"");
            let Ok(Some(artifact)) = Artifact::parse(bytes, &subject) else { return };
            assert_eq!(artifact.subject.digest, subject);
            let again = Artifact::parse(&artifact.manifest(), &subject).expect("our own").expect("an artifact");
            assert!(again.is_like(&artifact) && again.first == artifact.first);
            assert_eq!(again.revision, artifact.revision);
        }
        _ => content(choice >> 2, bytes),
    }
});

fn map(bytes: &[u8]) {
    let Ok(map) = OffsetMap::read(bytes.to_vec().into(), &ImageLimits::DEFAULT) else { return };
    let objects: BTreeMap<VerityDigest, Located> = map.objects().map(|located| (located.object, located)).collect();
    assert_eq!(objects.len(), map.len());
    for (object, located) in &objects {
        assert_eq!(map.get(object).as_ref(), Some(located));
        let layer = map.layers()[located.layer];
        if let Some(range) = located.range() {
            assert!(range.start < range.end && range.end <= layer.size && layer.packing != Packing::Stream);
        }
    }
    assert_eq!(map.get(&VerityDigest::of(b"none of them")), None);
    assert_eq!(OffsetMap::write(&map.image(), map.layers(), &objects), bytes);
}

fn content(choice: u8, bytes: &[u8]) {
    let size = u64::from(choice & 0xf) * 100 + 1;
    let place = match choice >> 4 {
        0 => Place::Own(0..bytes.len() as u64),
        skipped => Place::Shared(0..bytes.len() as u64, u64::from(skipped) * 1000),
    };
    let located = Located { object: VerityDigest::of(b""), size, layer: 0, place };
    for packing in [Packing::Raw, Packing::Zstd, Packing::Stream] {
        let Ok(mut content) = located.content(packing, bytes) else { continue };
        let mut found = Vec::new();
        let _ = content.read_to_end(&mut found);
        assert!(found.len() as u64 <= size);
    }
}
