//! Objects that rot or vanish: found, named, and repaired by the next pull.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use composefs_csi::image::objects::Corruption;
use composefs_csi::image::store::{Mounted, Options, Steps, Store, Weight};
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

fn marks(store: &Store) -> BTreeMap<VerityDigest, Corruption> {
    let images: Vec<_> =
        store.images().list().unwrap().images.into_iter().map(|image| image.record).collect();
    let found = store.examine(&images).unwrap().damaged;
    found.into_iter().map(|(object, (damage, _))| (object, damage)).collect()
}

#[test]
fn a_marked_object_is_written_anew_and_its_images_are_in_quarantine_until_then() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let a = pull(&store, "a", &[&["shared", "only a"]]).unwrap();
    let b = pull(&store, "b", &[&["shared"]]).unwrap();
    pull(&store, "c", &[&["fine"]]).unwrap();
    let victim = VerityDigest::of(&content("shared"));
    let path = store.objects().path(&victim);
    std::fs::write(&path, vec![0; content("shared").len()]).unwrap();
    let marked = store.mark_damaged(&marks(&store)).unwrap();
    assert_eq!(marked.len(), 1);
    assert_eq!(marked[0].images, BTreeSet::from([a.key(), b.key()]));
    // An object of no image is nobody's loss.
    let nobodys = BTreeMap::from([(VerityDigest::of(b"nobody's"), Corruption::Missing)]);
    assert_eq!(store.mark_damaged(&nobodys).unwrap(), []);

    // Known to every process, over restarts.
    drop(store);
    let store = open(dir.path());
    for (image, quarantined) in [("a", true), ("b", true), ("c", false)] {
        assert_eq!(store.quarantine_of(&manifest(image)).unwrap().is_some(), quarantined, "{image}");
    }
    assert!(store.is_layer_damaged(&diff_id(&["shared"])).unwrap());
    assert!(!store.is_layer_damaged(&diff_id(&["fine"])).unwrap());
    let rechecked = store.recheck_damaged().unwrap();
    assert_eq!((rechecked.healed.len(), rechecked.left.len()), (0, 1));

    // Its size is right, and it is written all the same: as another file, under the same name.
    let before = std::fs::metadata(&path).unwrap().ino();
    let hold = store.hold();
    store.objects().under(&hold).unwrap().put(&content("shared")).unwrap();
    assert_ne!(std::fs::metadata(&path).unwrap().ino(), before);
    store.objects().under(&store.hold()).unwrap().put(&content("fine")).unwrap();
    let healed = store.recheck_damaged().unwrap().healed;
    assert_eq!((healed.len(), store.damaged().unwrap().len()), (1, 0));
    let told = store.healed().unwrap().unwrap();
    assert_eq!(told.images, BTreeSet::from([a.image, b.image]), "the mounts that are to look again");
    store.forget_healed(&told).unwrap();
    assert!(store.healed().unwrap().is_some(), "for a while: a reader may have the old file open");
    check(&store);
}

#[test]
fn a_repair_that_dies_or_loses_its_writes_leaves_the_mark() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    pull(&store, "a", &[&["x"]]).unwrap();
    std::fs::remove_file(store.objects().path(&VerityDigest::of(&content("x")))).unwrap();
    store.mark_damaged(&marks(&store)).unwrap();
    drop(store);
    for last in 0..100 {
        let taken = AtomicUsize::new(0);
        let steps = Steps::new(move |_| match taken.fetch_add(1, Ordering::SeqCst) >= last {
            true => Err(std::io::Error::other("killed")),
            false => Ok(()),
        });
        // Whatever is taken away before is made again by hand.
        let whole = Store::open(dir.path(), Options { steps, ..options(BOOT) }).and_then(|store| {
            store.objects().under(&store.hold())?.put(&content("x"))?;
            store.recheck_damaged()
        });
        let store = open(dir.path());
        if let Ok(rechecked) = whole {
            assert_eq!((rechecked.healed.len(), store.damaged().unwrap().len()), (1, 0));
            assert!(last > 3, "only {last} steps");
            return check(&store);
        }
        let marked = store.quarantine_of(&manifest("a")).unwrap().is_some();
        let sound = store.examine_object(&VerityDigest::of(&content("x"))).unwrap().is_none();
        assert!(marked || sound && store.healed().unwrap().is_some(), "before step {last}");
    }
    panic!("the repair does not end");
}

#[test]
fn fsck_looks_at_what_volumes_have_shown_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (now, before) = (pull(&store, "now", &[&["x"]]).unwrap(), pull(&store, "before", &[&["y"]]).unwrap());
    let volume = serde_json::json!({
        "volume_id": "csi-follows", "image": now.key(), "composefs": now.image, "boot": BOOT,
        "earlier": [{"image": before.key(), "composefs": before.image}],
    });
    std::fs::write(store.volumes().directory().join("v.json"), volume.to_string()).unwrap();
    let shown = Mounted { here: BTreeSet::from([now.image, before.image]), ..Mounted::default() };
    let check = || store.check(&|| Ok(shown.clone())).unwrap().findings;
    assert_eq!(check(), []);
    std::fs::remove_file(dir.path().join("images").join(format!("{}.json", before.key().hex()))).unwrap();
    let found = check();
    let told = |weight, words: &str| {
        let of_volume = found.iter().filter(|finding| finding.about == "volume csi-follows");
        of_volume.filter(|finding| finding.weight == weight && finding.what.contains(words)).count()
    };
    assert_eq!(told(Weight::Note, "which it has shown before, has no record"), 1, "{found:?}");
    std::fs::remove_file(store.objects().path(&before.image)).unwrap();
    let found = check();
    assert!(
        found.iter().any(|finding| finding.weight == Weight::Fault && finding.what.contains("is gone")),
        "{found:?}"
    );
}
