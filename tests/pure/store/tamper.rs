//! A store written to by somebody without the node's key: none of their records is believed, and each is named.

use std::fs;
use std::path::{Path, PathBuf};

use composefs_csi::image::entry::{EntryKind, LayerEntry, Meta};
use composefs_csi::image::layer::RecordWriter;
use composefs_csi::image::store::{NodeKey, Options, Store, StoreError};
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::kind::Kind;

use super::fixture::*;

fn filled() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    pull(&store, "a", &[&["common"], &["a"]]).unwrap();
    pull(&store, "b", &[&["common"], &["b"]]).unwrap();
    (dir, store)
}

fn image_path(root: &Path, name: &str) -> PathBuf {
    root.join("images").join(format!("{}.json", manifest(name).hex()))
}

fn layer_path(root: &Path, files: &[&str]) -> PathBuf {
    root.join("layers").join(diff_id(files).hex())
}

fn unauthentic(error: &StoreError, path: &Path) {
    assert!(matches!(error, StoreError::Unauthentic { .. }), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert_eq!(error.kind(), Kind::Corrupt);
}

#[test]
fn an_altered_image_record_is_named_put_aside_and_made_again() {
    let (dir, store) = filled();
    let path = image_path(dir.path(), "a");
    let text = fs::read_to_string(&path).unwrap();
    let other = record("b", &[]).image;
    fs::write(&path, text.replace(&record("a", &[]).image.hex(), &other.hex())).unwrap();
    let error = store.images().get(&manifest("a")).unwrap_err();
    unauthentic(&error, &path);
    assert!(error.to_string().contains(&manifest("a").to_string()), "{error}");
    let listing = store.images().list().unwrap();
    assert_eq!(listing.images.len(), 1);
    unauthentic(&listing.unreadable[0], &path);
    assert!(
        matches!(sweep(&store, std::time::Duration::ZERO), Err(StoreError::Blocked(_))),
        "nothing is removed"
    );
    assert_eq!(store.images().get_or_set_aside(&manifest("a")).unwrap(), None);
    assert!(path.with_extension("forged").exists(), "evidence stays");
    assert_eq!(store.images().get_or_set_aside(&manifest("a")).unwrap(), None);
    let made = pull(&store, "a", &[&["common"], &["a"]]).unwrap();
    assert_eq!(store.images().get(&manifest("a")).unwrap(), Some(made));
    check(&store);
}

#[test]
fn the_record_of_one_image_is_not_taken_for_another_s() {
    let (dir, store) = filled();
    fs::copy(image_path(dir.path(), "b"), image_path(dir.path(), "a")).unwrap();
    assert_eq!(store.images().get(&manifest("a")).unwrap(), None, "it is about another, so it is torn");
}

#[test]
fn opening_puts_aside_what_is_not_authentic() {
    let (dir, store) = filled();
    drop(store);
    let path = image_path(dir.path(), "a");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"image_size\":", "\"image_size\":1")).unwrap();
    let store = open(dir.path());
    assert_eq!(names(&store), [manifest("b")]);
    assert!(!path.exists() && path.with_extension("forged").exists());
    check(&store);
}

#[test]
fn an_altered_layer_record_makes_no_image() {
    let (dir, store) = filled();
    let path = layer_path(dir.path(), &["a"]);
    // A record that is whole in itself, and says what they want.
    let evil = VerityDigest::of(b"evil");
    let mut writer = RecordWriter::new(Vec::new());
    let kind = EntryKind::Object(evil, 5000);
    writer.push(&LayerEntry { path: b"a".as_slice().into(), meta: Meta::default(), kind }).unwrap();
    let forged = writer.finish().unwrap();
    let genuine = fs::read(&path).unwrap();
    let mac = &genuine[genuine.len() - 32..];
    for bytes in
        [forged.clone(), [&forged[..], mac].concat(), [&forged[..], &[0; 32]].concat(), vec![], vec![1; 10]]
    {
        fs::write(&path, &bytes).unwrap();
        let read: Result<Vec<LayerEntry>, StoreError> =
            store.layers().entries(&diff_id(&["a"])).and_then(|entries| entries.collect());
        let error = read.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        assert!(error.to_string().contains(&diff_id(&["a"]).to_string()), "{error}");
    }
    // The record of another layer, with its good code.
    fs::copy(layer_path(dir.path(), &["b"]), &path).unwrap();
    let read: Result<Vec<LayerEntry>, StoreError> =
        store.layers().entries(&diff_id(&["a"])).and_then(|entries| entries.collect());
    unauthentic(&read.unwrap_err(), &path);

    assert!(store.layers().set_aside_if_bad(&diff_id(&["a"])).unwrap());
    assert!(!store.layers().set_aside_if_bad(&diff_id(&["common"])).unwrap(), "a good one stays");
    assert_eq!(store.layers().of_blob(&blob(&["a"])).unwrap(), None, "the next pull fetches it");
    pull(&store, "a", &[&["common"], &["a"]]).unwrap();
    check(&store);
}

#[test]
fn an_altered_blob_link_leads_nowhere() {
    let (dir, store) = filled();
    let path = dir.path().join("blobs").join(blob(&["a"]).hex());
    assert_eq!(store.layers().of_blob(&blob(&["a"])).unwrap(), Some(diff_id(&["a"])));
    let genuine = fs::read_to_string(&path).unwrap();
    let (a, b) = (diff_id(&["a"]).to_string(), diff_id(&["b"]).to_string());
    let other_link = fs::read_to_string(dir.path().join("blobs").join(blob(&["b"]).hex())).unwrap();
    let moved = other_link.replace(&blob(&["b"]).to_string(), &blob(&["a"]).to_string());
    let bare = format!("{} {b}\n", blob(&["a"]));
    for forged in [genuine.replace(&a, &b), moved, other_link, bare, String::new()] {
        fs::write(&path, &forged).unwrap();
        assert_eq!(store.layers().of_blob(&blob(&["a"])).unwrap(), None, "{forged}");
    }
    // Ingesting the blob again writes the link again.
    let hold = store.hold();
    add_layer(&store, &hold, &["a"]).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), genuine);
}

#[test]
fn a_name_that_was_written_by_somebody_else_is_unknown() {
    let (dir, store) = filled();
    let platform = "linux/amd64".parse().unwrap();
    let entries = fs::read_dir(dir.path().join("names")).unwrap();
    for path in entries.map(|entry| entry.unwrap().path()) {
        let text = fs::read_to_string(&path).unwrap();
        let (a, b) = (manifest("a").to_string(), manifest("b").to_string());
        fs::write(&path, text.replace(&a, "?").replace(&b, &a).replace('?', &b)).unwrap();
    }
    for name in ["a", "b"] {
        assert_eq!(
            store.names().resolve(&format!("registry.example/{name}:1"), &platform).unwrap(),
            None,
            "{name}"
        );
    }
}

#[test]
fn another_key_believes_nothing_and_everything_is_made_again() {
    let (dir, store) = filled();
    drop(store);
    let other = || Options { key: NodeKey::from_bytes(&[1; 32]), ..options(BOOT) };
    let store = Store::open(dir.path(), other()).unwrap();
    assert!(names(&store).is_empty());
    assert_eq!(store.layers().of_blob(&blob(&["a"])).unwrap(), None);
    for name in ["a", "b"] {
        pull(&store, name, &[&["common"], &[name]]).unwrap();
    }
    assert_eq!(names(&store).len(), 2);
    check(&store);
}

#[test]
fn the_first_digest_outlives_the_image_and_another_is_refused() {
    let (dir, store) = filled();
    collect(&store, EVERYTHING, &[]).unwrap();
    assert!(names(&store).is_empty());
    let path = dir.path().join("digests").join(format!("{}.json", manifest("a").hex()));
    assert!(path.exists());
    // The same manifest, and suddenly another image.
    let again = |store: &Store| {
        let hold = store.hold();
        add_layer(store, &hold, &["a"]).unwrap();
        let mut record = record("a", &[&["a"]]);
        let bytes = content("something-else");
        record.image = VerityDigest::of(&bytes);
        record.image_size = bytes.len() as u64;
        store.objects().under(&hold).unwrap().put(&bytes).unwrap();
        store.commit_image(&hold, &record).map(|()| record)
    };
    let error = again(&store).unwrap_err();
    assert!(matches!(error, StoreError::OtherDigest { .. }), "{error}");
    for part in [manifest("a").to_string(), record("a", &[]).image.hex(), path.display().to_string()] {
        assert!(error.to_string().contains(&part), "{part} is missing in {error}");
    }
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(names(&store).is_empty(), "it was not committed");
    // An altered entry is put aside and proves nothing; the genuine build stays possible all along.
    pull(&store, "a", &[&["common"], &["a"]]).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(&record("a", &[]).image.hex(), &VerityDigest([3; 32]).hex())).unwrap();
    pull(&store, "a", &[&["common"], &["a"]]).unwrap();
    assert!(path.with_extension("forged").exists());
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}
