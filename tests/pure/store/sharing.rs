//! Holds against sweeps, within a process and between processes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use composefs_csi::image::store::{Held, Mounted, Options, Steps, Store, StoreError};
use composefs_csi::image::verity::VerityDigest;

use super::fixture::*;
use crate::support::again::again;

fn impatient(root: &std::path::Path) -> Store {
    Store::open(root, Options { patience: Duration::from_millis(50), ..options(BOOT) }).unwrap()
}

#[test]
fn a_hold_keeps_what_it_needs_and_nothing_else_and_clones_keep_the_hold() {
    let dir = tempfile::tempdir().unwrap();
    let store = impatient(dir.path());
    let garbage = store.hold();
    add_layer(&store, &garbage, &["x", "garbage"]).unwrap();
    drop(garbage);
    let hold = store.hold();
    store.objects().under(&hold).unwrap().put(&content("x")).unwrap();
    let clone = hold.clone();
    drop(hold);
    // Another instance on the same directory is as good as another process.
    for sweeper in [&store, &impatient(dir.path())] {
        sweep(sweeper, Duration::ZERO).unwrap();
        assert_eq!(all_objects(dir.path()), [VerityDigest::of(&content("x"))].into());
    }
    drop(clone);
    assert_eq!(sweep(&store, Duration::ZERO).unwrap().objects, 1);
    assert_eq!(std::fs::read_dir(dir.path().join("holds")).unwrap().count(), 0);
}

#[test]
fn staged_layers_stay_with_all_their_objects_as_long_as_they_are_held_or_young() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let hold = store.hold();
    add_layer(&store, &hold, &["x"]).unwrap();
    drop(hold);
    let second = store.hold();
    second.keep_blocking(&[Held::Layer(diff_id(&["x"]))]).unwrap();
    assert_eq!(sweep(&store, Duration::ZERO).unwrap(), Default::default());
    assert_eq!(store.layers().of_blob(&blob(&["x"])).unwrap(), Some(diff_id(&["x"])));
    check(&store);
    drop(second);
    assert_eq!(sweep(&store, Duration::from_secs(60)).unwrap().objects, 0, "young staged layers stay");
    assert_eq!(store.layers().of_blob(&blob(&["x"])).unwrap(), Some(diff_id(&["x"])));
    let swept = sweep(&store, Duration::ZERO).unwrap();
    assert_eq!((swept.layers, swept.objects), (1, 1));
    assert!(swept.bytes >= 5000);
    assert_eq!(store.layers().of_blob(&blob(&["x"])).unwrap(), None);
}

#[test]
fn a_held_image_stays_even_if_its_record_goes_and_is_not_collected() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let [kept, _] = ["kept", "idle"].map(|name| pull(&store, name, &[&["common"], &[name]]).unwrap());
    let hold = store.hold();
    hold.keep_blocking(&Held::of(&kept)).unwrap();
    assert!(hold.keeps(&kept));
    let gone = collect(&store, EVERYTHING, &[]).unwrap();
    assert_eq!(gone.images.iter().map(|image| image.manifest).collect::<Vec<_>>(), [manifest("idle")]);
    check(&store);
    // What is recorded about an image that is not here yet stays as well.
    store.evidence().put(&hold, &manifest("coming"), "r.io/x", b"{}").unwrap();
    let linux = "linux/amd64".parse().unwrap();
    store.names().remember(&hold, &["r.io/coming".to_owned()], &linux, manifest("coming")).unwrap();
    sweep(&store, Duration::ZERO).unwrap();
    assert!(store.evidence().get(&manifest("coming"), "r.io/x").unwrap().is_some());
    assert_eq!(store.names().resolve("r.io/coming", &linux).unwrap(), Some(manifest("coming")));
    drop(hold);
    assert_eq!(collect(&store, EVERYTHING, &[]).unwrap().images, [kept]);
    assert!(store.evidence().get(&manifest("coming"), "r.io/x").unwrap().is_none());
    assert_eq!(store.names().resolve("r.io/coming", &linux).unwrap(), None);
    assert!(all_objects(dir.path()).is_empty());
}

#[tokio::test]
async fn a_note_waits_for_a_slice_of_a_sweep_in_another_process_and_gives_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = impatient(dir.path());
    let lock = std::fs::File::open(dir.path().join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let hold = store.hold();
    let refused = hold.keep(&[Held::Manifest(manifest("a"))]).await.unwrap_err();
    assert_eq!(refused.kind(), composefs_csi::kind::Kind::Busy);
    drop(lock);
    hold.keep(&[Held::Manifest(manifest("a"))]).await.unwrap();
}

#[test]
fn only_one_collection_runs_at_a_time_and_a_repair_waits_for_what_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let store = impatient(dir.path());
    pull(&store, "a", &[&["x"]]).unwrap();
    let other = impatient(dir.path());
    let second = || {
        assert!(matches!(sweep(&other, Duration::ZERO), Err(StoreError::Busy { .. })));
        Ok(Mounted::default())
    };
    store.sweep(Duration::ZERO, &second).unwrap();
    // A pull has found the object, so it must not go before the pull has ended.
    let hold = store.hold();
    store.objects().under(&hold).unwrap().put(&content("x")).unwrap();
    let damaged = [VerityDigest::of(&content("x"))].into();
    assert!(matches!(other.remove_damaged(&damaged), Err(StoreError::Busy { .. })));
    check(&store);
    drop(hold);
    assert_eq!(other.remove_damaged(&damaged).unwrap().len(), 1);
}

#[test]
#[ignore = "not a test: run by the others as a child process"]
fn child() {
    let store = open(&PathBuf::from(std::env::var("STORE_ROOT").unwrap()));
    let hold = store.hold();
    add_layer(&store, &hold, &["of the child"]).unwrap();
    store.objects().under(&hold).unwrap().put(&content("in flight")).unwrap();
    println!("\nheld");
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
    pull(&store, "child's", &[&["of the child"], &["in flight"]]).unwrap();
}

/// Its output must be kept open, since it goes on printing.
fn holding_child(root: &std::path::Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = again(module_path!(), "child")
        .env("STORE_ROOT", root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    assert!(output.by_ref().lines().any(|line| line.unwrap() == "held"));
    (child, output)
}

#[test]
fn what_another_process_holds_stays_until_it_is_killed_and_all_else_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = impatient(dir.path());
    let (mut child, _output) = holding_child(dir.path());
    let held: std::collections::BTreeSet<_> =
        ["of the child", "in flight"].map(|name| VerityDigest::of(&content(name))).into();
    pull(&store, "idle", &[&["mine"]]).unwrap();
    collect(&store, EVERYTHING, &[]).unwrap();
    assert_eq!(all_objects(dir.path()), held);
    assert_eq!(store.layers().of_blob(&blob(&["of the child"])).unwrap(), Some(diff_id(&["of the child"])));
    // Committing does not take the other's marker away.
    pull(&store, "a", &[&["mine"]]).unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("dirty")).unwrap().count(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    pull(&store, "b", &[&["mine"]]).unwrap();
    assert_eq!(
        std::fs::read_dir(dir.path().join("dirty")).unwrap().count(),
        0,
        "the sync covered the dead too"
    );
    assert_eq!(store.layers().of_blob(&blob(&["of the child"])).unwrap(), Some(diff_id(&["of the child"])));
    assert_eq!(sweep(&store, Duration::ZERO).unwrap().objects, 2);
    assert_eq!(all_objects(dir.path()), needed(&store));
    assert_eq!(std::fs::read_dir(dir.path().join("holds")).unwrap().count(), 0);
}

#[test]
fn a_pull_in_another_process_spans_a_collection_and_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (mut child, _output) = holding_child(dir.path());
    for _ in 0..3 {
        collect(&store, EVERYTHING, &[]).unwrap();
    }
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(child.wait().unwrap().success());
    check(&store);
    assert_eq!(names(&store), [manifest("child's")]);
    assert_eq!(all_objects(dir.path()), needed(&store));
}

#[test]
fn what_is_pulled_between_two_slices_of_a_sweep_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let names: Vec<String> = (100..400).map(|n| format!("file{n}")).collect();
    let files: Vec<&str> = names.iter().map(String::as_str).collect();
    pull(&store, "known", &[&["known"]]).unwrap();
    let hold = store.hold();
    for name in &files {
        store.objects().under(&hold).unwrap().put(&content(name)).unwrap();
    }
    drop(hold);
    // Every object takes the sweep a slice, until the pull is done, which begins after the first and finds some of the
    // others.
    let (begun, begins) = std::sync::mpsc::channel();
    let done = Arc::new(AtomicBool::new(false));
    let pulled = Arc::clone(&done);
    let steps = Steps::new(move |step| {
        if step == "remove an object of" && !pulled.load(Relaxed) {
            let _ = begun.send(());
            std::thread::sleep(Duration::from_millis(40));
        }
        Ok(())
    });
    let sweeper = Store::open(dir.path(), Options { steps, ..options(BOOT) }).unwrap();
    let swept = std::thread::scope(|scope| {
        let sweep = scope.spawn(|| sweep(&sweeper, Duration::ZERO).unwrap());
        begins.recv().unwrap();
        // A slice that read what an earlier one has read would fail here.
        let layer = dir.path().join("layers").join(diff_id(&["known"]).hex());
        let bytes = std::fs::read(&layer).unwrap();
        std::fs::write(&layer, &bytes[..60]).unwrap();
        pull(&store, "a", &[&files[..20]]).unwrap();
        assert!(!sweep.is_finished(), "the pull came too late to tell anything");
        done.store(true, Relaxed);
        let swept = sweep.join().unwrap();
        std::fs::write(&layer, bytes).unwrap();
        swept
    });
    assert!((280..=300).contains(&swept.objects), "{swept:?}");
    check(&store);
    assert_eq!(all_objects(dir.path()), needed(&store));
}

#[test]
fn pulls_and_sweeps_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let end = Instant::now() + Duration::from_secs(3);
    let failed = AtomicBool::new(false);
    let stores: Vec<Store> = (0..3).map(|_| open(dir.path())).collect();
    std::thread::scope(|scope| {
        for (index, store) in stores.iter().enumerate() {
            let failed = &failed;
            scope.spawn(move || {
                for round in 0.. {
                    if Instant::now() > end || failed.load(Relaxed) {
                        return;
                    }
                    // Common content comes and goes all the time.
                    let (own, name) = (format!("f{index}"), format!("image{}", round % 2));
                    pull(store, &name, &[&["common", &own], &["shared"]]).unwrap();
                    check_held(store, &name);
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
        let (failed, root) = (&failed, dir.path());
        let sweeper = scope.spawn(move || {
            let store = open(root);
            let mut collections = 0;
            while Instant::now() < end {
                match collect(&store, EVERYTHING, &[]) {
                    Ok(_) => collections += 1,
                    Err(error) => {
                        failed.store(true, Relaxed);
                        panic!("{error}");
                    }
                }
            }
            collections
        });
        assert!(sweeper.join().unwrap() > 3);
    });
    check(&stores[0]);
    collect(&stores[0], EVERYTHING, &[]).unwrap();
    assert!(all_objects(dir.path()).is_empty());
}

/// What is held is whole, whatever is collected meanwhile.
fn check_held(store: &Store, name: &str) {
    let hold = store.hold();
    let Some(record) = store.images().get(&manifest(name)).unwrap() else { return };
    hold.keep_blocking(&Held::of(&record)).unwrap();
    // Read again, since a collection may have been faster.
    if store.images().get(&manifest(name)).unwrap() != Some(record.clone()) {
        return;
    }
    for object in objects_of(store, &record) {
        assert!(is_whole(store.root(), &object), "object {object} of {name}");
    }
}
