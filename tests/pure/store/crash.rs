//! kill -9 and power cuts before every step that changes the disk, and errors at each of them.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use composefs_csi::image::store::{Options, PinNote, Steps, Store, StoreError};
use composefs_csi::image::verity::VerityDigest;

use super::fixture::*;
use crate::support::again::again;

const SYNC: &str = "sync the filesystem of";

/// On tmpfs: hundreds of syncs cost nothing there, files are never sealed (so that they can be torn), and
/// what a crash leaves is the same.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

/// What a store goes through in its life: two images with a common layer, a pin, an image removed, a pull that is slower
/// than a collection.
fn life(root: &Path, boot: &str, steps: Steps) -> Result<(), StoreError> {
    let store = Store::open(root, Options { steps, ..options(boot) })?;
    pull(&store, "a", &[&["common", "one"], &["a"]])?;
    store.pin(&manifest("a"), &PinNote::default())?;
    pull(&store, "b", &[&["common", "one"], &["b"]])?;
    let slow = store.hold();
    add_layer(&store, &slow, &["slow"])?;
    collect(&store, EVERYTHING, &[])?;
    pull_under(&store, &slow, "slow", &[&["slow"]])?;
    drop(slow);
    pull(&store, "c", &[&["common"]])?;
    store.pins().remove(&manifest("a"))?;
    store.images().touch(&manifest("a"))
}

/// After any crash: the store opens, holds what it names, lives through its life again, and a sweep
/// leaves exactly what is needed.
fn survives(root: &Path, boot: &str) {
    let store = Store::open(root, options(boot)).unwrap();
    check(&store);
    drop(store);
    life(root, boot, Steps::default()).unwrap();
    let store = Store::open(root, options(boot)).unwrap();
    check(&store);
    sweep(&store, std::time::Duration::ZERO).unwrap();
    check(&store);
    assert_eq!(all_objects(root), needed(&store));
    assert_eq!(std::fs::read_dir(root.join("tmp")).unwrap().count(), 0, "leftovers");
    assert_eq!(std::fs::read_dir(root.join("dirty")).unwrap().count(), 0, "markers");
    assert_eq!(std::fs::read_dir(root.join("holds")).unwrap().count(), 0, "holds");
    assert_eq!(sweep(&store, std::time::Duration::ZERO).unwrap(), Default::default(), "a second sweep");
}

/// The child: lives the life above and dies at a step. Notes which objects a finished sync has covered.
#[test]
#[ignore = "not a test: run by the others as a child process"]
fn child() {
    let root = PathBuf::from(std::env::var("STORE_ROOT").unwrap());
    let last: usize = std::env::var("STORE_LAST_STEP").unwrap().parse().unwrap();
    let (taken, being_synced) = (AtomicUsize::new(0), Mutex::new(None));
    let objects = root.clone();
    let steps = Steps::new(move |step| {
        if let Some(covered) = being_synced.lock().unwrap().take() {
            std::fs::write(objects.with_extension("synced"), lines(&covered)).unwrap();
        }
        if taken.fetch_add(1, SeqCst) == last {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
        if step == SYNC {
            *being_synced.lock().unwrap() = Some(all_objects(&objects));
        }
        Ok(())
    });
    life(&root, BOOT, steps).unwrap();
}

fn lines(objects: &BTreeSet<VerityDigest>) -> String {
    objects.iter().map(|digest| format!("{digest}\n")).collect()
}

fn run_child(root: &Path, last: usize) -> ExitStatus {
    again(module_path!(), "child")
        .env("STORE_ROOT", root)
        .env("STORE_LAST_STEP", last.to_string())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap()
}

/// Runs the child once for each step, and `after` each of its deaths. Returns the number of steps.
fn kill_at_every_step(mut after: impl FnMut(&Path)) -> usize {
    let dir = directory();
    for last in 0.. {
        let root = dir.path().join(last.to_string());
        let status = run_child(&root, last);
        if status.success() {
            return last;
        }
        assert_eq!(status.signal(), Some(9), "step {last}: {status}");
        after(&root);
        std::fs::remove_dir_all(&root).unwrap_or_default();
    }
    unreachable!()
}

#[test]
fn killed_at_every_step() {
    let steps = kill_at_every_step(|root| survives(root, BOOT));
    assert!(steps > 60, "only {steps} steps were taken");
}

/// What a power cut may do at its worst: everything that no sync covered is cut to nothing, but for names.
fn cut_power(root: &Path) {
    let synced = std::fs::read_to_string(root.with_extension("synced")).unwrap_or_default();
    let synced: BTreeSet<_> = synced.lines().filter_map(VerityDigest::from_hex).collect();
    let truncate = |path: PathBuf| {
        std::fs::File::options().write(true).truncate(true).open(path).unwrap();
    };
    for digest in all_objects(root).difference(&synced) {
        let hex = digest.hex();
        truncate(root.join("objects").join(&hex[..2]).join(&hex[2..]));
    }
    for directory in ["blobs", "digests", "tmp", &format!("staging/{BOOT}")] {
        let Ok(entries) = std::fs::read_dir(root.join(directory)) else { continue };
        entries.for_each(|entry| truncate(entry.unwrap().path()));
    }
}

#[test]
fn power_cut_at_every_step() {
    let mut torn = 0;
    kill_at_every_step(|root| {
        cut_power(root);
        let before = all_objects(root).iter().filter(|digest| !is_whole(root, digest)).count();
        torn += before;
        let store = Store::open(root, options(NEXT_BOOT)).unwrap();
        for digest in all_objects(root) {
            assert!(is_whole(root, &digest), "torn object {digest} survived the opening");
        }
        drop(store);
        survives(root, NEXT_BOOT);
    });
    assert!(torn > 20, "the power cuts tore only {torn} objects");
}

#[test]
fn objects_of_an_unreadable_record_survive_a_power_cut() {
    let dir = directory();
    let store = Store::open(dir.path(), options(BOOT)).unwrap();
    pull(&store, "known", &[&["x"]]).unwrap();
    pull(&store, "newer", &[&["y"]]).unwrap();
    let hold = store.hold();
    let objects = store.objects().under(&hold).unwrap();
    let (torn, _) = objects.put(&content("torn")).unwrap();
    std::fs::write(store.objects().path(&torn), "to").unwrap();
    let path = dir.path().join("images").join(format!("{}.json", manifest("newer").hex()));
    std::fs::write(path, r#"{"format":9}"#).unwrap();
    drop((objects, hold, store));
    let before = all_objects(dir.path());
    drop(Store::open(dir.path(), options(NEXT_BOOT)).unwrap());
    let gone: Vec<_> = before.difference(&all_objects(dir.path())).copied().collect();
    assert_eq!(gone, [torn]);
}

#[test]
fn an_error_at_every_step_leaves_a_store_that_works() {
    let dir = directory();
    for failing in 0.. {
        let root = dir.path().join(failing.to_string());
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&taken);
        let steps = Steps::new(move |_| match counter.fetch_add(1, SeqCst) == failing {
            true => Err(std::io::Error::from_raw_os_error(28)),
            false => Ok(()),
        });
        let lived = life(&root, BOOT, steps);
        if taken.load(SeqCst) <= failing {
            lived.unwrap();
            return;
        }
        assert_eq!(lived.unwrap_err().kind(), composefs_csi::kind::Kind::Exhausted, "step {failing}");
        survives(&root, BOOT);
        std::fs::remove_dir_all(&root).unwrap();
    }
}

#[test]
fn a_failed_sync_stops_commits_until_the_store_is_reopened() {
    let dir = directory();
    let failing = Arc::new(AtomicUsize::new(1));
    let fail = Arc::clone(&failing);
    let steps = Steps::new(move |step| match step == SYNC && fail.swap(0, SeqCst) == 1 {
        true => Err(std::io::Error::from_raw_os_error(5)),
        false => Ok(()),
    });
    let store = Store::open(dir.path(), Options { steps, ..options(BOOT) }).unwrap();
    pull(&store, "a", &[&["x"]]).unwrap_err();
    let refused = pull(&store, "b", &[&["x"]]).unwrap_err();
    assert!(matches!(refused, StoreError::Unsound { .. }), "{refused}");
    drop(store);
    let store = open(dir.path());
    assert!(all_objects(dir.path()).is_empty(), "what may have been lost is not trusted");
    pull(&store, "b", &[&["x"]]).unwrap();
    check(&store);
}
