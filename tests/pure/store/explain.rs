//! Pins that end, what keeps each image, and which images have an object, at which path.

use std::time::SystemTime;

use composefs_csi::image::store::{Checked, Explained, Mounted, Pin, PinNote, Store, Weight, Why};
use composefs_csi::image::verity::VerityDigest;

use super::fixture::*;

fn seconds() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

fn until(until: u64) -> PinNote {
    PinNote { reason: Some("for the release".to_owned()), since: Some(1), until: Some(until) }
}

#[test]
fn a_pin_keeps_until_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for name in ["lasting", "ended"] {
        pull(&store, name, &[&[name]]).unwrap();
    }
    store.pin(&manifest("lasting"), &until(seconds() + 3600)).unwrap();
    store.pin(&manifest("ended"), &until(seconds() - 1)).unwrap();
    // Also by another process.
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.pins().list().unwrap(), [manifest("lasting")]);
    assert!(!store.pins().contains(&manifest("ended")).unwrap());
    let told: Vec<(bool, PinNote)> =
        store.pins().list_all().unwrap().into_iter().map(|Pin { ended, note, .. }| (ended, note)).collect();
    assert_eq!(told.len(), 2, "an ended pin is still shown");
    assert!(told.iter().all(|(_, note)| note.reason.as_deref() == Some("for the release")));
    let gone = collect(&store, EVERYTHING, &[]).unwrap();
    assert_eq!(gone.images.iter().map(|image| image.manifest).collect::<Vec<_>>(), [manifest("ended")]);
    // Its pin goes with it.
    assert_eq!(store.pins().list_all().unwrap().len(), 1);
}

/// A clock that was ahead for a while ends no pin for good.
#[test]
fn an_ended_pin_stays_as_long_as_its_image() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let record = pull(&store, "a", &[&["x"]]).unwrap();
    store.pin(&manifest("a"), &until(seconds() - 1)).unwrap();
    collect(&store, EVERYTHING, &[record.image]).unwrap();
    assert_eq!(store.pins().list_all().unwrap().len(), 1);
    // Pinned again, without an end.
    store.pin(&manifest("a"), &PinNote::default()).unwrap();
    assert_eq!(store.pins().list().unwrap(), [manifest("a")]);
}

#[test]
fn what_cannot_be_read_as_a_note_keeps_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    pull(&store, "a", &[&["x"]]).unwrap();
    let file = dir.path().join("pins").join(manifest("a").hex());
    for content in ["", "{", "[1]", r#"{"until":"soon"}"#] {
        std::fs::write(&file, content).unwrap();
        assert_eq!(store.pins().list().unwrap(), [manifest("a")], "{content}");
    }
    assert!(collect(&store, EVERYTHING, &[]).unwrap().images.is_empty());
}

fn explain(store: &Store, mounted: &[VerityDigest]) -> Vec<Explained> {
    let mounted = Mounted { here: mounted.iter().copied().collect(), ..Mounted::default() };
    store.explain(&|| Ok(mounted.clone())).unwrap()
}

#[test]
fn all_that_keeps_an_image_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let common: &[&str] = &["common9000"];
    let kept = pull(&store, "kept", &[common, &["own"]]).unwrap();
    pull(&store, "idle", &[common, &["other"]]).unwrap();
    let note = until(seconds() + 3600);
    store.pin(&manifest("kept"), &note).unwrap();
    let volume = format!(r#"{{"format":1,"volume_id":"csi-1","image":"{}"}}"#, manifest("kept"));
    std::fs::write(store.volumes().directory().join("v.json"), volume).unwrap();
    let hold = store.hold();
    hold.keep_blocking(&composefs_csi::image::store::Held::of(&kept)).unwrap();
    let told = explain(&store, &[kept.image]);
    let kept_by = [Why::Mount, Why::Volume { id: "csi-1".into() }, Why::Hold, Why::Pin(note)];
    let of = |name: &str| told.iter().find(|image| image.record.manifest == manifest(name)).unwrap();
    assert_eq!((&of("kept").kept[..], of("kept").frees), (&kept_by[..], 0));
    assert!(of("idle").kept.is_empty());
    // Its own file and its composefs image, not what the other one has, too.
    let idle = &of("idle").record;
    assert_eq!(of("idle").frees, 8192 + idle.image_size.next_multiple_of(4096));
    drop(hold);
    assert!(
        !explain(&store, &[]).iter().any(|image| image.kept.contains(&Why::Hold)),
        "looking holds nothing"
    );
    // As the collection finds.
    let gone = collect(&store, EVERYTHING, &[]).unwrap();
    assert_eq!(gone.images.iter().map(|image| image.manifest).collect::<Vec<_>>(), [manifest("idle")]);
}

#[test]
fn who_has_an_object_and_where() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let one = pull(&store, "one", &[&["shared", "a"]]).unwrap();
    pull(&store, "two", &[&["b"], &["shared"]]).unwrap();
    let owners = |object: &VerityDigest| {
        let mut owners: Vec<_> = store.owners(object).unwrap().iter().map(|record| record.manifest).collect();
        owners.sort();
        owners
    };
    let mut both = [manifest("one"), manifest("two")];
    both.sort();
    let shared = VerityDigest::of(&content("shared"));
    assert_eq!(owners(&shared), both);
    assert_eq!(owners(&VerityDigest::of(&content("a"))), [manifest("one")]);
    assert_eq!(owners(&one.image), [manifest("one")]);
    assert!(owners(&VerityDigest::of(b"nobody's")).is_empty());
    let digits = shared.hex();
    let digits = &digits[..8];
    assert_eq!(store.objects().with_first_digits(digits).unwrap(), [shared]);
    for none in ["", "a", "zz", "\u{e9}"] {
        assert!(store.objects().with_first_digits(none).unwrap().is_empty(), "{none}");
    }
}

fn check(store: &Store, mounted: &[VerityDigest]) -> Checked {
    let mounted = Mounted { here: mounted.iter().copied().collect(), ..Mounted::default() };
    store.check(&|| Ok(mounted.clone())).unwrap()
}

/// What is wrong, by weight.
fn found(checked: &Checked, weight: Weight) -> Vec<String> {
    let of_weight = checked.findings.iter().filter(|finding| finding.weight == weight);
    of_weight.map(|finding| format!("{}: {}", finding.about, finding.what)).collect()
}

#[test]
fn a_sound_store_has_no_findings() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    pull(&store, "one", &[&["shared", "a"]]).unwrap();
    let two = pull(&store, "two", &[&["b"], &["shared"]]).unwrap();
    store.pin(&manifest("one"), &PinNote::default()).unwrap();
    let checked = check(&store, &[two.image]);
    assert_eq!((checked.images, checked.layers, checked.objects), (2, 3, 4));
    assert!(checked.findings.is_empty(), "{:?}", checked.findings);
}

#[test]
fn each_sort_of_damage_is_found() {
    let object = |store: &Store, name: &str| store.objects().path(&VerityDigest::of(&content(name)));
    type Damage = fn(&Store, &dyn Fn(&Store, &str) -> std::path::PathBuf);
    let cases: &[(Weight, &str, Damage)] = &[
        (Weight::Fault, "1 of its objects are missing", |store, object| {
            std::fs::remove_file(object(store, "a")).unwrap();
        }),
        (Weight::Fault, "or have another size", |store, object| {
            let file = std::fs::OpenOptions::new().write(true).open(object(store, "a")).unwrap();
            file.set_len(10).unwrap();
        }),
        (Weight::Fault, "layer", |store, _| {
            for layer in std::fs::read_dir(store.root().join("layers")).unwrap() {
                std::fs::remove_file(layer.unwrap().path()).unwrap();
            }
        }),
        (Weight::Fault, "is damaged", |store, _| {
            for record in std::fs::read_dir(store.root().join("images")).unwrap() {
                std::fs::write(record.unwrap().path(), "{").unwrap();
            }
        }),
        (Weight::Fault, "volume record", |store, _| {
            std::fs::write(store.volumes().directory().join("v.json"), "{").unwrap();
        }),
        (Weight::Fault, "was not written with this node's key", |store, _| {
            std::fs::write(store.root().join("images").join(manifest("x").hex() + ".forged"), "{}").unwrap();
        }),
        (Weight::Note, "its image is not mounted", |store, _| {
            let composefs = store.images().get(&manifest("one")).unwrap().unwrap().image;
            let volume = format!(
                r#"{{"format":1,"volume_id":"v","image":"{}","composefs":"{composefs}","boot":"{BOOT}"}}"#,
                manifest("one")
            );
            std::fs::write(store.volumes().directory().join("v.json"), volume).unwrap();
        }),
        (Weight::Note, "pin of", |store, _| {
            std::fs::write(store.root().join("pins").join(manifest("gone").hex()), "").unwrap();
        }),
    ];
    for (weight, what, damage) in cases {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        pull(&store, "one", &[&["a"]]).unwrap();
        damage(&store, &object);
        let checked = check(&store, &[]);
        let told = found(&checked, *weight);
        assert!(told.iter().any(|told| told.contains(what)), "{what}: {:?}", checked.findings);
        assert!(checked.findings.iter().all(|finding| !finding.remedy.is_empty()));
    }
}

#[test]
fn what_the_pods_of_each_namespace_keep() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let common: &[&str] = &["common9000"];
    for (name, own) in [("a", "a1000"), ("b", "b2000"), ("pinned", "p3000"), ("idle", "i4000")] {
        pull(&store, name, &[common, &[own]]).unwrap();
    }
    let image = content("a-image").len() as u64;
    store.pin(&manifest("pinned"), &PinNote::default()).unwrap();
    let volume = |file: &str, image: &str, targets: &str| {
        let record = format!(
            r#"{{"format":1,"volume_id":"{file}","image":"{}","targets":{targets}}}"#,
            manifest(image)
        );
        std::fs::write(store.volumes().directory().join(format!("{file}.json")), record).unwrap();
    };
    let keepers = || store.keepers(&|| Ok(Mounted::default())).unwrap();
    assert_eq!((keepers().namespaces, keepers().others), (vec![], 9000 + 3000 + image));
    volume("1", "a", r#"[{"path":"/a","namespace":"shop"},{"path":"/b","namespace":"shop"}]"#);
    volume("2", "b", r#"[{"path":"/c","namespace":"lab"}]"#);
    volume("3", "a", r#"[{"path":"/d","namespace":"shop"}]"#);
    let found = keepers();
    let [lab, shop] = &found.namespaces[..] else { panic!("{found:?}") };
    assert_eq!((lab.namespace.as_deref(), lab.volumes, lab.images), (Some("lab"), 1, 1));
    assert_eq!((shop.namespace.as_deref(), shop.volumes, shop.images), (Some("shop"), 2, 1));
    assert_eq!((lab.total, lab.alone), (9000 + 2000 + image, 2000 + image));
    assert_eq!((shop.total, shop.alone, shop.shared()), (9000 + 1000 + image, 1000 + image, 9000));
    assert_eq!((found.others, found.idle), (3000 + image, 4000 + image));
    // Two namespaces show the same image; a record of an earlier release, and a staged volume, do not say whose.
    volume("4", "a", r#"[{"path":"/e","namespace":"lab"}]"#);
    volume("5", "idle", r#"[{"path":"/f"}]"#);
    volume("6", "idle", "[]");
    let found = keepers();
    let [unknown, lab, shop] = &found.namespaces[..] else { panic!("{found:?}") };
    assert_eq!((unknown.namespace.as_deref(), unknown.volumes, unknown.alone), (None, 2, 4000 + image));
    assert_eq!((lab.images, shop.alone), (2, 0));
    assert_eq!(found.idle, 0);
}
