//! Objects that rot or vanish: found, named, and repaired by the next pull.

use std::collections::BTreeSet;

use composefs_csi::image::objects::Corruption;
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::node::corruption::{CorruptImages, CorruptionWatcher, KernelReport};

use super::fixture::*;

#[test]
fn damage_is_named_with_its_images_and_the_next_pull_repairs_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let a = pull(&store, "a", &[&["shared", "only a"]]).unwrap();
    let b = pull(&store, "b", &[&["shared"]]).unwrap();
    let c = pull(&store, "c", &[&["fine"]]).unwrap();
    let images = [a.clone(), b.clone(), c.clone()];
    let sound = store.examine(&images).unwrap();
    assert!(sound.damaged.is_empty());
    assert_eq!(sound.objects, all_objects(dir.path()).len());

    let (flipped, gone) = (VerityDigest::of(&content("shared")), VerityDigest::of(&content("only a")));
    let path = store.objects().path(&flipped);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4321] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    std::fs::remove_file(store.objects().path(&gone)).unwrap();

    let found = store.examine(&images).unwrap();
    assert_eq!(found.damaged.len(), 2);
    assert_eq!(
        found.damaged[&flipped],
        (Corruption::Differs(VerityDigest::of(&bytes)), vec![a.manifest, b.manifest])
    );
    assert_eq!(found.damaged[&gone], (Corruption::Missing, vec![a.manifest]));

    let dropped = store.remove_damaged(&found.damaged.keys().copied().collect::<BTreeSet<_>>()).unwrap();
    assert_eq!(dropped.len(), 2);
    assert_eq!(names(&store), [c.manifest]);
    assert_eq!(store.layers().of_blob(&blob(&["shared"])).unwrap(), None, "a pull must fetch it again");
    assert!(store.layers().of_blob(&blob(&["fine"])).unwrap().is_some());
    pull(&store, "a", &[&["shared", "only a"]]).unwrap();
    pull(&store, "b", &[&["shared"]]).unwrap();
    assert!(store.examine(&images).unwrap().damaged.is_empty());
    check(&store);
}

#[test]
fn complaints_of_the_kernel_lead_to_the_object_and_no_further() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(open(dir.path()));
    let image = pull(&store, "a", &[&["x", "y"]]).unwrap();
    let corrupt_images = CorruptImages::default();
    let mut watcher = CorruptionWatcher::new(store.clone(), corrupt_images.clone());
    let object = VerityDigest::of(&content("x"));
    let path = store.objects().path(&object);
    let inode = std::fs::metadata(&path).unwrap().ino();
    // Of a good object, of a file of somebody else's, of nothing at all.
    for complaint in [
        KernelReport::Block { inode, position: 0 },
        KernelReport::Block { inode: 1, position: 0 },
        KernelReport::Seal { name: object.hex()[2..].to_owned() },
        KernelReport::Seal { name: "0".repeat(62) },
        KernelReport::Lookup,
    ] {
        watcher.investigate(&complaint).unwrap();
        assert!(corrupt_images.is_empty(), "{complaint:?}");
    }
    std::fs::write(&path, b"something else").unwrap();
    watcher.investigate(&KernelReport::Block { inode, position: 4096 }).unwrap();
    let what = corrupt_images.of(&image.image).unwrap();
    assert!(what.contains(&object.hex()) && what.contains("other content"), "{what}");
    watcher.recheck().unwrap();
    assert_eq!((corrupt_images.len(), watcher.has_findings()), (1, true));
    std::fs::write(&path, content("x")).unwrap();
    watcher.recheck().unwrap();
    assert_eq!((corrupt_images.len(), watcher.has_findings()), (0, false));

    let corrupt_images = CorruptImages::default();
    let mut watcher = CorruptionWatcher::new(store.clone(), corrupt_images.clone());
    std::fs::remove_file(store.objects().path(&VerityDigest::of(&content("y")))).unwrap();
    watcher.investigate(&KernelReport::Lookup).unwrap();
    assert!(corrupt_images.of(&image.image).unwrap().contains("is missing"));
}
