//! What is not the store's and lies in its directories: it stops nothing, and stays.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use composefs_csi::image::store::{PinNote, Store};
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::node::volume::record::Records;
use rustix::fs::{CWD, FileType, Mode};

use super::fixture::*;

/// The directories of a store, of this boot and with an image in it.
fn directories(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        for entry in fs::read_dir(root.join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let path = directory.join(entry.file_name());
            // Two of the 256 stand for all.
            let is_one_of_many = path.starts_with("objects") && path != Path::new("objects") && {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                name != "00" && name != "ff"
            };
            if entry.file_type().unwrap().is_dir() && !is_one_of_many {
                found.push(path);
            }
        }
    }
    found
}

/// Leaves a file, directories, links and pipes, with names of their own and with names like the store's. Returns them.
fn leave_things_in(directory: &Path) -> Vec<PathBuf> {
    let digits = |byte: u8| {
        let hex = hex::encode([byte; 32]);
        let below_objects = directory.parent().is_some_and(|parent| parent.ends_with("objects"));
        if below_objects { hex[2..].to_owned() } else { hex }
    };
    let mut left = Vec::new();
    let pipe =
        |path: &Path| rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let mut leave = |name: String, make: &dyn Fn(&Path)| {
        let path = directory.join(name);
        make(&path);
        left.push(path);
    };
    // Whatever file is in tmp is a leftover.
    if !directory.ends_with("tmp") {
        leave("notes".to_owned(), &|path| fs::write(path, "mine").unwrap());
        leave("notes~".to_owned(), &|path| fs::write(path, "mine").unwrap());
    }
    for (number, suffix) in [(1, ""), (2, ".json"), (3, ".forged"), (4, ".torn")] {
        leave(digits(16 + number) + suffix, &|path| {
            fs::create_dir(path).unwrap();
            fs::write(path.join("notes"), "mine").unwrap();
        });
        leave(digits(32 + number) + suffix, &pipe);
        leave(digits(48 + number) + suffix, &|path| symlink("/nowhere", path).unwrap());
        leave(digits(64 + number) + suffix, &|path| symlink("/", path).unwrap());
    }
    for name in ["old.boot", ".new-1", "sub.tmp", "boot"] {
        leave(format!("directory.{name}"), &|path| {
            fs::create_dir(path).unwrap();
            fs::write(path.join("notes"), "mine").unwrap();
        });
        leave(format!("pipe.{name}"), &pipe);
    }
    left
}

/// Everything that is done with a store.
fn use_it(root: &Path) {
    for boot in [BOOT, NEXT_BOOT] {
        let store = Store::open(root, options(boot)).unwrap();
        let record = pull(&store, "one", &[&["common"], &["one"]]).unwrap();
        pull(&store, "two", &[&["common"], &["two"]]).unwrap();
        store.pin(&manifest("two"), &PinNote::default()).unwrap();
        assert_eq!(store.pins().list().unwrap(), [manifest("two")]);
        assert_eq!(store.usage().unwrap().images.len(), 2);
        assert!(store.missing_objects().unwrap().is_empty());
        assert_eq!(store.examine(std::slice::from_ref(&record)).unwrap().damaged.len(), 0);
        assert_eq!(store.images_with(&record.image).unwrap(), std::slice::from_ref(&record));
        store.measure().unwrap();
        Records::open(store.volumes().directory().to_owned()).unwrap();
        check_images(&store);
        sweep(&store, Duration::ZERO).unwrap();
        assert!(!store.volumes().may_show(&record.manifest).unwrap());
        let collected = collect(&store, EVERYTHING, &[]).unwrap();
        assert_eq!(collected.images, [record]);
        assert_eq!(all_objects(root), needed(&store));
        let gone = BTreeSet::from([VerityDigest::of(&content("two"))]);
        assert_eq!(store.remove_damaged(&gone).unwrap().len(), 1);
        store.pins().remove(&manifest("two")).unwrap();
        collect(&store, EVERYTHING, &[]).unwrap();
        assert!(all_objects(root).is_empty());
    }
}

fn check_images(store: &Store) {
    let listing = store.images().list().unwrap();
    assert!(listing.unreadable.is_empty(), "{:?}", listing.unreadable);
}

#[test]
fn strange_things_in_every_directory_stop_nothing_and_stay() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_owned();
    {
        let store = open(&root);
        pull(&store, "one", &[&["common"], &["one"]]).unwrap();
        let hold = store.hold();
        add_layer(&store, &hold, &["staged"]).unwrap();
    }
    let everywhere = directories(&root);
    assert!(everywhere.len() >= 15, "{everywhere:?}");
    let left: Vec<PathBuf> = everywhere
        .iter()
        .filter(|directory| !directory.as_os_str().is_empty())
        .flat_map(|directory| leave_things_in(&root.join(directory)))
        .collect();
    assert!(left.iter().any(|path| path.parent() == Some(&*root.join("volumes"))));
    // A pipe that is waited for never ends.
    let (done, finished) = std::sync::mpsc::channel::<()>();
    let place = root.clone();
    let user = std::thread::spawn(move || {
        use_it(&place);
        drop(done);
    });
    let ended = finished.recv_timeout(Duration::from_secs(120));
    assert_eq!(ended, Err(std::sync::mpsc::RecvTimeoutError::Disconnected), "something waits");
    user.join().unwrap();
    for path in left {
        // A directory that is called like an image's counts as one, and goes with all that is in it.
        let of_images = ["access", "fetched", "dossiers"].map(|name| root.join(name));
        let is_of_one = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.len() == 64 && path.parent().is_some_and(|parent| of_images.iter().any(|own| own == parent))
        };
        if path.ancestors().any(|path| is_of_one(path) && !path.is_symlink() && !path.exists()) {
            continue;
        }
        assert!(path.symlink_metadata().is_ok(), "{} has gone", path.display());
    }
}

#[test]
fn what_was_put_aside_as_forged_stays_until_the_operator_removes_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let record = pull(&store, "one", &[&["one"]]).unwrap();
    let path = dir.path().join("layers").join(record.layers[0].hex());
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(store.layers().set_aside_if_bad(&record.layers[0]).unwrap());
    store.images().forget(&record.manifest).unwrap();
    sweep(&store, Duration::ZERO).unwrap();
    assert!(path.with_extension("forged").exists() && !path.exists());
    assert!(all_objects(dir.path()).is_empty());
}
