//! How often records are read: a layer that many images share is read once, whatever is asked of them.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::Duration;

use composefs_csi::image::store::{ImageRecord, Options, PinNote, Steps, Store};
use composefs_csi::image::verity::VerityDigest;
use rustix::fs::inotify;

use super::fixture::*;

const IMAGES: usize = 50;
const COMMON: &[&str] = &["common1", "common2", "common70"];

/// How often each file of a directory was opened while `act` ran, as the kernel counts.
fn opened(directory: &Path, act: impl FnOnce()) -> BTreeMap<String, usize> {
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let events = inotify::init(flags).unwrap();
    inotify::add_watch(&events, directory, inotify::WatchFlags::OPEN).unwrap();
    act();
    let mut found = BTreeMap::new();
    let mut buffer = [const { MaybeUninit::uninit() }; 64 << 10];
    let mut reader = inotify::Reader::new(&events, &mut buffer);
    loop {
        match reader.next() {
            Ok(event) => {
                let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
                *found.entry(name.unwrap_or_default()).or_default() += 1;
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return found,
            Err(errno) => panic!("{errno}"),
        }
    }
}

/// Images that share one layer, each with another of its own.
fn filled(root: &Path) -> (Store, Vec<ImageRecord>) {
    let store = open(root);
    let pulled = (0..IMAGES).map(|number| {
        let own = format!("own-{}", 200 + number);
        pull(&store, &format!("image-{number}x"), &[COMMON, &[&own]]).unwrap()
    });
    let records = pulled.collect();
    (store, records)
}

/// Asserts that each layer's record was opened once while `act` ran.
fn reads_each_layer(times: usize, store: &Store, what: &str, act: impl FnOnce()) {
    let mut opened = opened(&store.root().join("layers"), act);
    opened.remove("");
    assert_eq!(opened.len(), IMAGES + 1, "{what}");
    assert!(opened.values().all(|count| *count == times), "{what}: {opened:?}");
}

#[test]
fn a_layer_that_images_share_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, records) = filled(dir.path());
    reads_each_layer(1, &store, "usage", || {
        let usage = store.usage().unwrap();
        let common: u64 = COMMON.iter().map(|file| content(file).len() as u64).sum();
        assert!(usage.images.iter().all(|image| image.shared() == common && image.alone > 0), "{usage:?}");
    });
    reads_each_layer(1, &store, "missing_objects", || assert!(store.missing_objects().unwrap().is_empty()));
    reads_each_layer(1, &store, "examine", || {
        let examined = store.examine(&records).unwrap();
        assert_eq!((examined.objects, examined.damaged.len()), (COMMON.len() + 2 * IMAGES, 0));
    });
    let shared = VerityDigest::of(&content(COMMON[0]));
    reads_each_layer(1, &store, "images_with", || {
        assert_eq!(store.images_with(&shared).unwrap().len(), IMAGES);
    });
    // Damage costs another look for whose it is.
    std::fs::write(store.objects().path(&shared), b"?").unwrap();
    reads_each_layer(2, &store, "examine", || {
        let examined = store.examine(&records).unwrap();
        assert_eq!(examined.damaged.len(), 1);
        let owners: BTreeSet<_> = examined.damaged[&shared].1.iter().collect();
        assert_eq!(owners.len(), IMAGES);
    });
}

/// A sweep marks anew in each of its slices, while publishes wait.
#[test]
fn the_slices_of_a_sweep_read_only_what_has_changed() {
    const GARBAGE: usize = 40;
    let dir = tempfile::tempdir().unwrap();
    let (store, records) = filled(dir.path());
    for number in 0..20 {
        let record = format!(r#"{{"format":1,"image":"{}"}}"#, records[0].manifest);
        std::fs::write(store.volumes().directory().join(format!("{number}.json")), record).unwrap();
        store.pin(&records[number].manifest, &PinNote::default()).unwrap();
    }
    // Each takes a slice.
    let steps = Steps::new(|step| {
        if step == "remove an object of" {
            std::thread::sleep(Duration::from_millis(6));
        }
        Ok(())
    });
    let sweeper = Store::open(dir.path(), Options { steps, ..options(BOOT) }).unwrap();
    for directory in ["images", "volumes", "pins", "layers"] {
        let hold = store.hold();
        for number in 0..GARBAGE {
            let content = format!("garbage {directory} {number} ").repeat(100);
            store.objects().under(&hold).unwrap().put(content.as_bytes()).unwrap();
        }
        drop(hold);
        // What was changed a moment ago is looked at again.
        std::thread::sleep(Duration::from_millis(300));
        let mut opened = opened(&dir.path().join(directory), || {
            assert_eq!(sweep(&sweeper, Duration::ZERO).unwrap().objects, GARBAGE as u64);
        });
        // The directory itself.
        assert!(opened.remove("").unwrap_or(0) < GARBAGE, "{directory} is listed in each slice");
        assert!(opened.len() >= 20, "{directory}: {opened:?}");
        assert!(opened.values().all(|count| *count <= 2), "{directory}: {opened:?}");
    }
}

#[test]
fn a_lost_layer_record_is_made_up_for_by_the_images_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let (store, records) = filled(dir.path());
    let before = store.usage().unwrap();
    std::fs::remove_file(dir.path().join("layers").join(records[0].layers[1].hex())).unwrap();
    // Its composefs image is a stand-in here and names nothing, which is an error that names the image.
    let error = store.usage().unwrap_err();
    assert!(error.to_string().contains(&records[0].manifest.to_string()), "{error}");
    assert_eq!(before.images.len(), IMAGES);
}
