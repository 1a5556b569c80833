use std::fs;

use super::*;
use crate::image::store::Store;
use crate::image::store::{NodeKey, Options};

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), Options::new(NodeKey::from_bytes(&[42; 32]))).unwrap();
    (directory, store)
}

fn reader(name: &str) -> AccessRecord {
    AccessRecord::Reader(name.to_owned())
}

#[test]
fn a_fact_is_about_one_thing_at_one_place() {
    let (_directory, store) = store();
    let hold = store.hold();
    let (image, other) = (Digest::of(b"image"), Digest::of(b"other"));
    let facts =
        [AccessRecord::Origin, AccessRecord::Preloaded, AccessRecord::Anonymous, reader("a"), reader("b")];
    for (number, fact) in facts.iter().enumerate() {
        for about in [AccessSubject::Image(&image), AccessSubject::Blob(&image)] {
            assert_eq!(store.access().time_of(about, "r.io/x", fact).unwrap(), None, "{fact:?}");
            store.access().record(&hold, about, "r.io/x", fact, number as u64).unwrap();
            assert_eq!(store.access().time_of(about, "r.io/x", fact).unwrap(), Some(number as u64));
            assert_eq!(store.access().time_of(about, "r.io/y", fact).unwrap(), None);
        }
        assert_eq!(store.access().time_of(AccessSubject::Image(&other), "r.io/x", fact).unwrap(), None);
    }
    store.access().record(&hold, AccessSubject::Image(&image), "r.io/x", &facts[3], 77).unwrap();
    assert_eq!(
        store.access().time_of(AccessSubject::Image(&image), "r.io/x", &facts[3]).unwrap(),
        Some(77),
        "the last one counts"
    );
}

#[test]
fn what_is_torn_or_moved_is_no_record() {
    let (directory, store) = store();
    let hold = store.hold();
    let (image, other) = (Digest::of(b"image"), Digest::of(b"other"));
    for name in [image, other] {
        store.access().record(&hold, AccessSubject::Image(&name), "r.io/x", &reader("a"), 5).unwrap();
    }
    let file = |of: &Digest| {
        let of = directory.path().join("access").join(of.hex());
        fs::read_dir(of).unwrap().next().unwrap().unwrap().path()
    };
    let whole = fs::read(file(&image)).unwrap();
    for length in 0..whole.len() {
        fs::write(file(&image), &whole[..length]).unwrap();
        assert_eq!(
            store.access().time_of(AccessSubject::Image(&image), "r.io/x", &reader("a")).unwrap(),
            None,
            "{length}"
        );
    }
    // A block that a power cut left from another file.
    fs::copy(file(&other), file(&image)).unwrap();
    assert_eq!(store.access().time_of(AccessSubject::Image(&image), "r.io/x", &reader("a")).unwrap(), None);
}

#[test]
fn a_record_of_another_node_is_none() {
    let (directory, store) = store();
    let image = Digest::of(b"image");
    let hold = store.hold();
    let id = CredentialId::anonymous();
    store
        .access()
        .record(&hold, AccessSubject::Image(&image), "r.io/x", &AccessRecord::Anonymous, 5)
        .unwrap();
    let other = Store::open(directory.path(), Options::new(NodeKey::from_bytes(&[8; 32]))).unwrap();
    assert_eq!(
        other.access().time_of(AccessSubject::Image(&image), "r.io/x", &AccessRecord::Anonymous).unwrap(),
        None
    );
    assert_ne!(other.access().reader(&id), store.access().reader(&id));
    assert_eq!(store.access().reader(&id), store.access().reader(&id));
    assert!(!format!("{:?}", store.access().reader(&id)).contains(&id.hex()));
}

#[test]
fn only_old_readers_are_forgotten() {
    let (_directory, store) = store();
    let hold = store.hold();
    let image = Digest::of(b"image");
    let set = |fact: &AccessRecord, at| {
        store.access().record(&hold, AccessSubject::Image(&image), "r.io/x", fact, at).unwrap()
    };
    let get =
        |fact: &AccessRecord| store.access().time_of(AccessSubject::Image(&image), "r.io/x", fact).unwrap();
    for fact in [AccessRecord::Origin, AccessRecord::Preloaded, AccessRecord::Anonymous, reader("old")] {
        set(&fact, 9);
    }
    set(&reader("new"), 10);
    store.access().forget_readers(&image, 10).unwrap();
    assert_eq!(get(&reader("old")), None);
    assert_eq!(get(&reader("new")), Some(10));
    for fact in [AccessRecord::Origin, AccessRecord::Preloaded, AccessRecord::Anonymous] {
        assert_eq!(get(&fact), Some(9), "{fact:?}");
    }
}

#[test]
fn records_go_with_what_they_are_about() {
    let (directory, store) = store();
    let hold = store.hold();
    let (image, blob) = (Digest::of(b"image"), Digest::of(b"blob"));
    store.access().record(&hold, AccessSubject::Image(&image), "r.io/x", &AccessRecord::Origin, 1).unwrap();
    store.access().record(&hold, AccessSubject::Blob(&blob), "r.io", &AccessRecord::Anonymous, 1).unwrap();
    drop(hold);
    store.sweep(std::time::Duration::ZERO, &|| Ok(crate::image::store::Mounted::default())).unwrap();
    for name in ["access", "fetched"] {
        assert_eq!(fs::read_dir(directory.path().join(name)).unwrap().count(), 0, "{name}");
    }
}
