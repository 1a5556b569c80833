//! Opening: new, existing, foreign, newer, damaged, twice at once.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use composefs_csi::image::store::{Steps, Store, StoreError};
use composefs_csi::integrity::Integrity;
use composefs_csi::kind::Kind;

use super::fixture::*;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn record_path(root: &Path, name: &str) -> std::path::PathBuf {
    root.join("images").join(format!("{}.json", manifest(name).hex()))
}

#[test]
fn a_new_store_is_private_and_opens_again() {
    let dir = directory();
    let root = dir.path().join("deep/store");
    let store = open(&root);
    assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(names(&store).is_empty());
    pull(&store, "a", &[&["x"]]).unwrap();
    match &store.filesystem().verity {
        Ok(()) => assert_eq!(store.integrity(), Integrity::Read),
        Err(why) => {
            assert_eq!(store.integrity(), Integrity::Fetch);
            assert!(!why.is_empty());
            assert!(root.join("unsealed").exists());
        }
    }
    drop(store);
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    let store = open(&root);
    assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700, "closed again");
    assert_eq!(names(&store), [manifest("a")]);
    check(&store);
}

#[test]
fn what_is_no_store_or_a_newer_one_is_refused() {
    let dir = directory();
    fs::write(dir.path().join("passwd"), "x").unwrap();
    let refused = Store::open(dir.path(), options(BOOT)).unwrap_err();
    assert!(matches!(&refused, StoreError::NotAStore { found, .. } if found == "passwd"), "{refused}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was written there");

    let dir = directory();
    drop(open(dir.path()));
    for newer in [
        r#"{"format":2,"algorithm":"sha256","release":"9.1.0"}"#,
        r#"{"format":1,"algorithm":"sha256","release":"9.1.0","incompatible":["packed-objects"]}"#,
    ] {
        fs::write(dir.path().join("version"), newer).unwrap();
        fs::remove_dir(dir.path().join("pins")).unwrap();
        let refused = Store::open(dir.path(), options(BOOT)).unwrap_err();
        assert_eq!(refused.kind(), Kind::Unsupported);
        assert!(refused.to_string().contains("9.1.0"), "it names the release that can: {refused}");
        assert!(!dir.path().join("pins").exists(), "it is left as it is");
        assert_eq!(fs::read_to_string(dir.path().join("version")).unwrap(), newer);
        fs::create_dir(dir.path().join("pins")).unwrap();
    }
}

#[test]
fn a_store_of_a_newer_release_may_be_read_and_nothing_is_written_to_it() {
    let dir = directory();
    let store = open(dir.path());
    let image = pull(&store, "a", &[&["x"]]).unwrap();
    drop(store);
    let newer = r#"{"format":1,"algorithm":"sha256","release":"9.1.0","compatible":["c"],"read_only_compatible":["r"]}"#;
    fs::write(dir.path().join("version"), newer).unwrap();
    let before = all_files(dir.path());
    let store = open(dir.path());
    assert!(store.is_only_read());
    assert_eq!(names(&store), [manifest("a")]);
    assert!(store.examine(&[image]).unwrap().damaged.is_empty());
    for refused in [
        pull(&store, "b", &[&["y"]]).map(drop),
        collect(&store, EVERYTHING, &[]).map(drop),
        store.pins().remove(&manifest("a")).map(drop),
    ] {
        let refused = refused.unwrap_err();
        assert!(matches!(&refused, StoreError::OnlyRead { why, .. } if why.contains("9.1.0")), "{refused}");
        assert_eq!(refused.kind(), Kind::Unsupported);
    }
    drop(store);
    assert_eq!(all_files(dir.path()), before);
    // A feature that need not be known hinders nobody.
    fs::write(dir.path().join("version"), newer.replace("\"r\"", "")).unwrap();
    let store = open(dir.path());
    assert!(!store.is_only_read());
    pull(&store, "b", &[&["y"]]).unwrap();
}

/// The files below a directory, but for the lock.
fn all_files(root: &Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let (mut files, mut directories) = (std::collections::BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => directories.push(path),
                false if path.ends_with("lock") => {}
                false => drop(files.insert(path.clone(), fs::read(&path).unwrap())),
            }
        }
    }
    files
}

#[test]
fn torn_records_are_put_aside_and_the_rest_works() {
    let dir = directory();
    let store = open(dir.path());
    for name in ["good", "empty", "half"] {
        pull(&store, name, &[&["common"], &[name]]).unwrap();
    }
    drop(store);
    fs::write(record_path(dir.path(), "empty"), "").unwrap();
    let half = fs::read(record_path(dir.path(), "half")).unwrap();
    fs::write(record_path(dir.path(), "half"), &half[..half.len() / 2]).unwrap();
    let store = open_alone(dir.path());
    assert_eq!(names(&store), [manifest("good")]);
    assert_eq!(store.images().get(&manifest("half")).unwrap(), None);
    check(&store);
    let platform = "linux/amd64".parse().unwrap();
    assert!(store.names().resolve("registry.example/half:1", &platform).unwrap().is_some());
    sweep(&store, std::time::Duration::ZERO).unwrap();
    assert_eq!(all_objects(dir.path()), needed(&store));
    assert!(store.names().resolve("registry.example/half:1", &platform).unwrap().is_none());
    assert!(store.names().resolve("registry.example/good:1", &platform).unwrap().is_some());
    pull(&store, "half", &[&["common"], &["half"]]).unwrap();
    check(&store);
}

#[test]
fn a_record_of_a_newer_release_stays_and_blocks_removal() {
    let dir = directory();
    let store = open(dir.path());
    pull(&store, "old", &[&["x"]]).unwrap();
    pull(&store, "new", &[&["y"]]).unwrap();
    fs::write(record_path(dir.path(), "new"), r#"{"format":9,"objects":"elsewhere"}"#).unwrap();
    drop(store);
    let store = open(dir.path());
    let error = store.images().get(&manifest("new")).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.to_string().contains(&manifest("new").hex()), "{error}");
    let before = all_objects(dir.path());
    let refused = collect(&store, EVERYTHING, &[]).unwrap_err();
    assert!(matches!(&refused, StoreError::Blocked(why) if why.contains("format 9")), "{refused}");
    assert!(matches!(sweep(&store, std::time::Duration::ZERO), Err(StoreError::Blocked(_))));
    assert_eq!(all_objects(dir.path()), before);
    assert_eq!(names(&store), [manifest("old")]);
}

#[test]
fn many_open_a_new_store_at_once() {
    let dir = directory();
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d", "e", "f"] {
            let root = dir.path();
            scope.spawn(move || {
                let store = open(root);
                pull(&store, name, &[&["common"], &[name]]).unwrap();
            });
        }
    });
    let store = open(dir.path());
    assert_eq!(names(&store).len(), 6);
    check(&store);
}

#[test]
fn leftovers_go_and_files_being_written_stay() {
    let dir = directory();
    let store = open(dir.path());
    let hold = store.hold();
    let being_written = store.layers().stage(&hold).unwrap();
    fs::write(dir.path().join("tmp/dead"), "left over").unwrap();
    fs::create_dir(dir.path().join("staging/old-boot")).unwrap();
    fs::write(dir.path().join("staging/old-boot").join(manifest("x").hex()), "left over").unwrap();
    fs::write(dir.path().join("objects/.new-1-1"), "left over, or about to be renamed").unwrap();
    store.objects().under(&hold).unwrap();
    drop(open(dir.path()));
    assert!(!dir.path().join("tmp/dead").exists() && !dir.path().join("staging/old-boot").exists());
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 1, "what is being written stays");
    assert!(dir.path().join("objects/.new-1-1").exists(), "its writer may live");
    drop(being_written);
    drop(hold);
    drop(open_alone(dir.path()));
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    assert!(!dir.path().join("objects/.new-1-1").exists());
}

#[test]
fn a_full_disk_is_exhausted_and_names_the_store() {
    let dir = directory();
    let root = dir.path().to_owned();
    drop(open(&root));
    let steps = Steps::new(|step| match step {
        "write" => Err(std::io::Error::from_raw_os_error(28)),
        _ => Ok(()),
    });
    let store = Store::open(&root, composefs_csi::image::store::Options { steps, ..options(BOOT) }).unwrap();
    let error = pull(&store, "a", &[&["x"]]).unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted);
    let text = error.to_string();
    assert!(text.contains(&*root.to_string_lossy()) && text.contains("prune"), "{text}");
}

/// A store after a power cut, with leftovers and torn records, in which every step that needs room fails.
fn open_without_room(root: &Path, errno: i32) -> Store {
    let store = open(root);
    pull(&store, "kept", &[&["common"], &["kept"]]).unwrap();
    pull(&store, "torn", &[&["common"], &["torn"]]).unwrap();
    let hold = store.hold();
    add_layer(&store, &hold, &["unsynced"]).unwrap();
    drop((hold, store));
    fs::write(record_path(root, "torn"), "").unwrap();
    fs::write(root.join("tmp/dead"), "left over").unwrap();
    let steps = Steps::new(move |_| Err(std::io::Error::from_raw_os_error(errno)));
    Store::open(root, composefs_csi::image::store::Options { steps, ..options(NEXT_BOOT) }).unwrap()
}

#[test]
fn a_store_opens_where_nothing_can_be_written_and_takes_nothing_unsafe() {
    for (errno, kind) in [(28, Kind::Exhausted), (122, Kind::Exhausted), (30, Kind::Unsupported)] {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let store = open_without_room(dir.path(), errno);
        assert_eq!(names(&store), [manifest("kept")]);
        assert_eq!(store.usage().unwrap().images.len(), 1);
        assert_eq!(store.examine(&[record("kept", &[&["common"], &["kept"]])]).unwrap().damaged.len(), 0);
        // What the power cut may have torn is still there, so nothing may rely on it.
        let hold = store.hold();
        let refused = store.objects().under(&hold).unwrap_err();
        assert!(matches!(refused, StoreError::Unsound { .. }) || refused.kind() == kind, "{refused}");
        drop((hold, store));
        // There is room again.
        let store = Store::open(dir.path(), options(NEXT_BOOT)).unwrap();
        assert!(!dir.path().join("tmp/dead").exists());
        assert_eq!(all_objects(dir.path()), needed(&store));
        pull(&store, "torn", &[&["common"], &["torn"]]).unwrap();
    }
}
