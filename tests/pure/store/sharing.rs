//! Leases against sweeps, within a process and between processes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use composefs_csi::image::store::{Options, Steps, Store, StoreError};

use super::fixture::*;
use crate::support::again::again;

fn impatient(root: &std::path::Path) -> Store {
    Store::open(root, Options { patience: Duration::from_millis(50), ..options(BOOT) }).unwrap()
}

#[test]
fn a_lease_keeps_the_sweep_away_and_clones_keep_the_lease() {
    let dir = tempfile::tempdir().unwrap();
    let store = impatient(dir.path());
    let lease = store.lease_blocking().unwrap();
    add_layer(&store, &lease, &["x"]).unwrap();
    let clone = lease.clone();
    drop(lease);
    assert!(matches!(sweep(&store, Duration::ZERO), Err(StoreError::Busy { .. })));
    // Another instance on the same directory is as good as another process.
    assert!(matches!(sweep(&impatient(dir.path()), Duration::ZERO), Err(StoreError::Busy { .. })));
    assert_eq!(all_objects(dir.path()).len(), 1);
    drop(clone);
    assert_eq!(sweep(&store, Duration::from_secs(60)).unwrap().objects, 0, "young staged layers stay");
    assert_eq!(store.layers().of_blob(&blob(&["x"])).unwrap(), Some(diff_id(&["x"])));
    let swept = sweep(&store, Duration::ZERO).unwrap();
    assert_eq!((swept.layers, swept.objects), (1, 1));
    assert!(swept.bytes >= 5000);
    assert_eq!(store.layers().of_blob(&blob(&["x"])).unwrap(), None);
}

#[tokio::test]
async fn async_leases_wait_for_a_sweep_in_another_process_and_give_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = impatient(dir.path());
    let lock = std::fs::File::open(dir.path().join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let refused = store.lease().await.unwrap_err();
    assert_eq!(refused.kind(), composefs_csi::kind::Kind::Busy);
    drop(lock);
    store.lease().await.unwrap();
}

#[test]
#[ignore = "not a test: run by the others as a child process"]
fn child() {
    let store = open(&PathBuf::from(std::env::var("STORE_ROOT").unwrap()));
    let lease = store.lease_blocking().unwrap();
    add_layer(&store, &lease, &["of the child"]).unwrap();
    println!("\nleased");
    std::io::stdout().flush().unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn another_processs_lease_keeps_the_sweep_away_until_it_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let store = impatient(dir.path());
    let mut child = again(module_path!(), "child")
        .env("STORE_ROOT", dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "leased"));
    assert!(matches!(sweep(&store, Duration::ZERO), Err(StoreError::Busy { .. })));
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
    sweep(&store, Duration::ZERO).unwrap();
    assert_eq!(all_objects(dir.path()), needed(&store));
}

#[test]
fn what_is_pulled_between_two_slices_of_a_sweep_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let names: Vec<String> = (1..=9).map(|n| format!("file{n}000")).collect();
    let files: Vec<&str> = names.iter().map(String::as_str).collect();
    let lease = store.lease_blocking().unwrap();
    for name in &files {
        store.objects().under(&lease).unwrap().put(&content(name)).unwrap();
    }
    drop(lease);
    // Every object takes the sweep a slice. The pull comes after the first, and finds the others.
    let (begun, begins) = std::sync::mpsc::channel();
    let steps = Steps::new(move |step| {
        if step == "remove an object of" {
            let _ = begun.send(());
            std::thread::sleep(Duration::from_millis(220));
        }
        Ok(())
    });
    let sweeper = Store::open(dir.path(), Options { steps, ..options(BOOT) }).unwrap();
    let swept = std::thread::scope(|scope| {
        let sweep = scope.spawn(|| sweep(&sweeper, Duration::ZERO).unwrap());
        begins.recv().unwrap();
        pull(&store, "a", &[&files]).unwrap();
        assert!(!sweep.is_finished(), "the pull came too late to tell anything");
        sweep.join().unwrap()
    });
    assert!((1..8).contains(&swept.objects), "{swept:?}");
    check(&store);
    assert_eq!(all_objects(dir.path()), needed(&store));
}

/// Ends all threads when one does, also by a panic.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn pulls_and_sweeps_at_once_lose_nothing() {
    const COLLECTIONS: usize = 12;
    // Rounds of each puller between two collections: leases that follow on each other without end keep a sweep away.
    const ROUNDS: usize = 4;
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let patience = Duration::from_secs(600);
        Store::open(dir.path(), Options { patience, ..options(BOOT) }).unwrap()
    };
    let stores: Vec<Store> = (0..3).map(|_| open()).collect();
    let (collections, pulls, ended) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for (index, store) in stores.iter().enumerate() {
            let (collections, pulls, ended) = (&collections, &pulls, &ended);
            scope.spawn(move || {
                let _ending = Ending(ended);
                for round in 0.. {
                    while round / ROUNDS > collections.load(SeqCst) && !ended.load(SeqCst) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    if ended.load(SeqCst) {
                        return;
                    }
                    // Common content comes and goes all the time.
                    let (own, name) = (format!("f{index}"), format!("image{}", round % 2));
                    pull(store, &name, &[&["common", &own], &["shared"]]).unwrap();
                    let lease = store.lease_blocking().unwrap();
                    if store.images().get(&manifest(&name)).unwrap().is_some() {
                        check(store);
                    }
                    drop(lease);
                    pulls.fetch_add(1, SeqCst);
                }
            });
        }
        let store = open();
        let _ending = Ending(&ended);
        for done in 0..COLLECTIONS {
            // Each meets pulls that have begun since the one before.
            while pulls.load(SeqCst) <= done && !ended.load(SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            collect(&store, EVERYTHING, &[]).unwrap();
            collections.store(done + 1, SeqCst);
        }
    });
    check(&stores[0]);
    collect(&stores[0], EVERYTHING, &[]).unwrap();
    assert!(all_objects(dir.path()).is_empty());
}
