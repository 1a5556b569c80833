//! What is on disk of every sort of record, byte for byte. A release that writes other bytes, or no longer reads these,
//! loses every image of every node that is upgraded.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;
use crate::image::entry::{EntryKind, LayerEntry, Meta};
use crate::image::layer::RecordWriter;
use crate::image::tree::Rules;
use crate::image::verity::VerityDigest;
use crate::oci::choice::Choice;
use crate::oci::digest::Digest;

/// The files, by their path in the store, as release 0.1.0 wrote them with a key of 32 times 42.
const FILES: &[(&str, &str)] = &[
    (
        "access/05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f/46cab5a64cd1a84a59a7fe13b0b0462336eb7c5f105ea0ded9151e68b5f9871e.json",
        concat!(
            r##"{"format":1,"about":"sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f","origin":"r.io/x","mark":"anonymous","at":5,"mac":"13878ec91e5e38cc3b4362ad04815bac20d363b5af49dd0451c034b3d828df4b"}"##,
            "\n"
        ),
    ),
    (
        "access/05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f/90c408729d615f45e5d585fad93f76359e166981cc885bcbfa88317d59d6b979.json",
        concat!(
            r##"{"format":1,"about":"sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f","origin":"r.io/x","mark":"reader","reader":"somebody","at":5,"mac":"4068f3af453ed065b9f38f7a1d73268ce5760b6f514df727008abed4501f64c5"}"##,
            "\n"
        ),
    ),
    (
        "access/05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f/9b138f133745826692c8b0cd2c3a30a845ad982c8d4457a6692dba1583670215.json",
        concat!(
            r##"{"format":1,"about":"sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f","origin":"r.io/x","mark":"preloaded","at":5,"mac":"b4a92d3019f33875de5ca8e0f3fe639445b4d64800206a6612aedda3cad064e6"}"##,
            "\n"
        ),
    ),
    (
        "access/05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f/b977267141f45e9d1cc9816022e26908e3f261889a9f333d0e0070e11541db5f.json",
        concat!(
            r##"{"format":1,"about":"sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f","origin":"r.io/x","mark":"origin","at":5,"mac":"994ffeb4f86973ae49cab337b2b0e292e7d7ac0edf6099efad64022a03acb760"}"##,
            "\n"
        ),
    ),
    (
        "blobs/fa2c8cc4f28176bbeed4b736df569a34c79cd3723e9ec42f9674b4d46ac6b8b8",
        concat!(
            r##"sha256:fa2c8cc4f28176bbeed4b736df569a34c79cd3723e9ec42f9674b4d46ac6b8b8 sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85 3fd3732fdc97f4d181c14b280a85a77d34cc9749b476798897f932a5524a3d97"##,
            "\n"
        ),
    ),
    (
        "digests/05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f.json",
        concat!(
            r##"{"builder":2,"manifest":"sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f","rules":"faithful","image":"2b2ed09f8f76a6f1f313e880d10169af54052055abdd747c05d072e16a4f50e4","mac":"d3734e2523074da5616b4eb35f8edf3358b53249075e55640dd0e1f2fb068bb3"}"##,
            "\n"
        ),
    ),
    (
        "dossiers/05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f/320c0be9cfcdd7d907a8a78e7c1788fba4a01bd62edf83892cdd64e5be825091.json",
        r##"{}"##,
    ),
    (
        "fetched/fa2c8cc4f28176bbeed4b736df569a34c79cd3723e9ec42f9674b4d46ac6b8b8/94bba035d303f4c8dc08a6eadefcca033896be9456c0063f2aee57af24373a0d.json",
        concat!(
            r##"{"format":1,"about":"sha256:fa2c8cc4f28176bbeed4b736df569a34c79cd3723e9ec42f9674b4d46ac6b8b8","origin":"r.io","mark":"anonymous","at":6,"mac":"76b9034715839c0d35d263fdfaf10767bfd10f49d03e44d00cc80be56b6275c6"}"##,
            "\n"
        ),
    ),
    (
        "images/05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f.json",
        concat!(
            r##"{"format":2,"algorithm":"fsverity-sha256-12","manifest":"sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f","image":"2b2ed09f8f76a6f1f313e880d10169af54052055abdd747c05d072e16a4f50e4","image_size":5,"rules":"faithful","builder":2,"sealed":true,"layers":["sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85"],"platform":"linux/amd64","names":["registry.example/a:1"],"inodes":3,"bytes":70,"created":1700000000,"mac":"07abd6a9d7211eb5f91782d34587f78166d6da87a00f01b501b01c5c3843c6b4"}"##,
            "\n"
        ),
    ),
    (
        "names/42f31d6673ec3fec899c988fa9e7bfd93e1b9925354a9823f5c60058bdad77e9.json",
        concat!(
            r##"{"format":2,"name":"registry.example/a:1","platform":"linux/amd64","manifest":"sha256:05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f","mac":"bee23767b523eb124a7acdde0031f3b70e247ab20b922a7e4dd5399fbf608cbc"}"##,
            "\n"
        ),
    ),
    ("pins/05b3abf2579a5eb66403cd78be557fd860633a1fe2103c7642030defe32c657f", r##""##),
    ("version", concat!(r##"{"format":1,"algorithm":"sha256"}"##, "\n")),
];
/// The record of a layer with one small file, as hexadecimal digits, in the format of release 0.1.0.
const LAYER: (&str, &str) = (
    "layers/dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85",
    "6366736373694c01020001660000000000000568656c6c6f00014b8627e88f9017029f803b884ac25f5931a3dfc07262a269a034e68aa3c330f749a8248aa912afaf176cd2dd263a0cb8ba3b3df515d66dfedf91069aea583878",
);
/// The same in the format of this release.
const LAYER_WRITTEN: &str = "6366736373694c02020001660000000000000568656c6c6f0001dde1054f19fb4483009ec3e3b30d713d1439651afa5fa8619cdd82a789e9ee8bcb6232abfc0e214f3df32bd2072aeff58efe0c1eed70bd5f5e301b311ec78005";
const BOOT: &str = "11111111-1111-1111-1111-111111111111";

fn open(root: &Path) -> Store {
    let options = Options { boot_id: Some(BOOT.to_owned()), ..Options::new(NodeKey::from_bytes(&[42; 32])) };
    Store::open(root, options).unwrap()
}

fn record() -> ImageRecord {
    ImageRecord {
        manifest: Digest::of(b"manifest"),
        choice: Choice::default(),
        image: VerityDigest::of(b"image"),
        image_size: 5,
        rules: Rules::Faithful,
        // The one that the texts were written by.
        builder: 2,
        sealed: true,
        layers: vec![Digest::of(b"layer")],
        places: Vec::new(),
        platform: Some("linux/amd64".to_owned()),
        names: vec!["registry.example/a:1".to_owned()],
        inodes: 3,
        bytes: 70,
        created: 1_700_000_000,
        powers: None,
        variants: Vec::new(),
        members: Vec::new(),
    }
}

fn entry() -> LayerEntry {
    LayerEntry {
        path: b"f".as_slice().into(),
        meta: Meta::default(),
        kind: EntryKind::Inline(b"hello".as_slice().into()),
    }
}

/// What is said about the image, and about the blob.
fn access() -> [AccessRecord; 4] {
    let reader = AccessRecord::Reader("somebody".to_owned());
    [AccessRecord::Origin, AccessRecord::Preloaded, AccessRecord::Anonymous, reader]
}

fn fill(store: &Store) {
    let hold = store.hold();
    store.objects().under(&hold).unwrap().put(b"image").unwrap();
    let mut writer = RecordWriter::new(store.layers().stage(&hold).unwrap());
    writer.push(&entry()).unwrap();
    let (manifest, blob) = (record().manifest, Digest::of(b"blob"));
    writer.finish().unwrap().finish(&record().layers[0], &blob).unwrap();
    store.commit_image(&hold, &record()).unwrap();
    store.names().remember(&hold, &record().names, &"linux/amd64".parse().unwrap(), manifest).unwrap();
    for fact in access() {
        store.access().record(&hold, AccessSubject::Image(&manifest), "r.io/x", &fact, 5).unwrap();
    }
    store.access().record(&hold, AccessSubject::Blob(&blob), "r.io", &AccessRecord::Anonymous, 6).unwrap();
    store.evidence().put(&hold, &manifest, "r.io/x", b"{}").unwrap();
    store.pin(&manifest, &PinNote::default()).unwrap();
}

fn files_below(root: &Path, directory: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(root, &path, found);
        } else {
            found.insert(path.strip_prefix(root).unwrap().display().to_string(), fs::read(&path).unwrap());
        }
    }
}

fn expected(layer: &str) -> BTreeMap<String, Vec<u8>> {
    let layer = (LAYER.0.to_owned(), hex::decode(layer).unwrap());
    let files = FILES.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()));
    files.chain([layer]).collect()
}

#[test]
fn records_are_written_as_ever() {
    let directory = tempfile::tempdir().unwrap();
    fill(&open(directory.path()));
    let mut found = BTreeMap::new();
    files_below(directory.path(), directory.path(), &mut found);
    // Neither records nor the same on every filesystem.
    found.retain(|path, _| path != "lock" && path != "unsealed" && !path.starts_with("objects/"));
    let expected = expected(LAYER_WRITTEN);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (path, bytes) in expected {
        assert_eq!(hex::encode(&found[&path]), hex::encode(&bytes), "{path}");
        assert_eq!(found[&path], bytes, "{path}");
    }
}

#[test]
fn records_are_read_as_ever() {
    [LAYER.1, LAYER_WRITTEN].into_iter().for_each(records_are_read_with);
}

fn records_are_read_with(layer: &str) {
    let directory = tempfile::tempdir().unwrap();
    for (path, bytes) in expected(layer) {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let store = open(directory.path());
    let (manifest, blob) = (record().manifest, Digest::of(b"blob"));
    assert_eq!(store.images().get(&manifest).unwrap(), Some(record()));
    let platform = "linux/amd64".parse().unwrap();
    assert_eq!(store.names().resolve("registry.example/a:1", &platform).unwrap(), Some(manifest));
    for fact in access() {
        let about = AccessSubject::Image(&manifest);
        assert_eq!(store.access().time_of(about, "r.io/x", &fact).unwrap(), Some(5), "{fact:?}");
    }
    let about = AccessSubject::Blob(&blob);
    assert_eq!(store.access().time_of(about, "r.io", &AccessRecord::Anonymous).unwrap(), Some(6));
    assert_eq!(store.layers().of_blob(&blob).unwrap(), Some(record().layers[0]));
    let entries: Vec<_> = store.layers().entries(&record().layers[0]).unwrap().map(Result::unwrap).collect();
    assert_eq!(entries, [entry()]);
    assert_eq!(store.evidence().get(&manifest, "r.io/x").unwrap(), Some(b"{}".to_vec()));
    assert_eq!(store.pins().list().unwrap(), [manifest]);
    // Another build of the same manifest is held against the first digest that was read.
    let other = VerityDigest::of(b"other");
    let hold = store.hold();
    store.objects().under(&hold).unwrap().put(b"other").unwrap();
    let refused = store.commit_image(&hold, &ImageRecord { image: other, ..record() }).unwrap_err();
    assert!(
        matches!(refused, StoreError::OtherDigest { recorded, .. } if recorded == record().image),
        "{refused}"
    );
}
