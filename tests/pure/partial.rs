//! Layers by ranges, and what an interrupted pull leaves to the next: the library's puller, a store in a temporary
//! directory, and a registry that makes of ranges what it likes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use composefs_csi::image::store::{CollectRequest, Mounted, NodeKey, Options, Store, gc};
use composefs_csi::kind::Kind;
use composefs_csi::pull::{Images as _, PullError, PullLimits, PullPolicy, Puller, RangeRules, Ready};

use crate::support::archive::{archive, noise};
use crate::support::images::{Image, Layout};
use crate::support::pulling::{accept_all, puller, request};
use crate::support::shelf::{Ranges, Shelf};

const MIB: usize = 1 << 20;
/// What cannot be told of a layer that is read in pieces: those that were on their way.
const SLACK: u64 = 3 << 20;

/// An image of layers of so many MiB that no compression shrinks.
fn layout(sizes: &[usize]) -> Layout {
    let layer = |(number, mebibytes): (usize, &usize)| {
        let name = format!("file-{number}");
        archive(&[(&name, &noise(&name, mebibytes * MIB))])
    };
    Layout::of(&Image::new(sizes.iter().enumerate().map(layer).collect()))
}

fn options() -> Options {
    Options { min_free: 0, ..Options::new(NodeKey::from_bytes(&[7; 32])) }
}

fn store(root: &Path) -> Arc<Store> {
    Arc::new(Store::open(root, options()).unwrap())
}

/// A puller of another process, as far as memory goes.
fn fresh(root: &Path, shelf: &Shelf) -> Puller {
    with(store(root), shelf, RangeRules { size: MIB as u64, ..RangeRules::default() })
}

fn with(store: Arc<Store>, shelf: &Shelf, ranges: RangeRules) -> Puller {
    let limits = PullLimits { ranges, ..PullLimits::default() };
    puller(&store, &[shelf.address.to_string()], &accept_all(), limits)
}

async fn pull(puller: &Puller, shelf: &Shelf) -> Result<Ready, PullError> {
    puller.ensure(&request(&shelf.reference(), PullPolicy::IfNotPresent)).await
}

/// The files of partial blobs.
fn partials(root: &Path) -> Vec<PathBuf> {
    let boots = std::fs::read_dir(root.join("partial")).unwrap();
    let files = boots.flat_map(|boot| std::fs::read_dir(boot.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

/// Pulls until the registry has sent so many bytes more, and is then as dead as a killed process: its tasks are gone, and
/// nothing is tidied up.
async fn interrupted(root: &Path, shelf: &Shelf, after: u64) {
    let end = shelf.sent() + after;
    let (root, reference, address) = (root.to_owned(), shelf.reference(), shelf.address.to_string());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.spawn(async move {
        let store = tokio::task::spawn_blocking(move || store(&root)).await.unwrap();
        let ranges = RangeRules { size: MIB as u64, ..RangeRules::default() };
        let limits = PullLimits { ranges, ..PullLimits::default() };
        let puller = puller(&store, &[address], &accept_all(), limits);
        puller.ensure(&request(&reference, PullPolicy::IfNotPresent)).await
    });
    while shelf.sent() < end {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(60))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_layer_comes_by_several_ranges_at_once() {
    let (root, shelf) = (tempfile::tempdir().unwrap(), Shelf::start(&layout(&[12])).await);
    shelf.pace(16 << 20);
    let ready = pull(&fresh(root.path(), &shelf), &shelf).await.unwrap();
    assert_eq!(ready.fetched, shelf.sent());
    assert_eq!(shelf.most_at_once(), 4);
    let asked = shelf.take_asked();
    assert_eq!(asked.first().unwrap().as_deref(), Some("bytes=0-1048575"), "the first goes alone");
    assert_eq!(asked.len(), 13, "{asked:?}");
    assert!(asked.iter().all(|range| range.as_ref().is_some_and(|range| !range.ends_with('-'))), "{asked:?}");
    assert_eq!(partials(root.path()), Vec::<PathBuf>::new(), "it goes when the layer is in");
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_that_fail_are_no_failure_of_the_pull() {
    for (manner, most) in [
        // The first answer is the blob.
        (Ranges::Ignored, 1.0),
        (Ranges::Refused(416), 1.0),
        (Ranges::Refused(400), 1.0),
        (Ranges::Refused(501), 1.0),
        (Ranges::ToOne, 1.0),
        // What begins wrongly is not read on.
        (Ranges::Other, 1.6),
        (Ranges::Unsaid, 1.6),
        (Ranges::Cut(300_000), 1.0),
        // Each connection that was there has the whole blob sent to it, until it is closed.
        (Ranges::IgnoredAfter(5), 5.0),
    ] {
        let (root, shelf) = (tempfile::tempdir().unwrap(), Shelf::start(&layout(&[6])).await);
        shelf.make_of_ranges(manner);
        let ready =
            pull(&fresh(root.path(), &shelf), &shelf).await.unwrap_or_else(|e| panic!("{manner:?}: {e}"));
        let size = ready.record.bytes;
        let sent = shelf.sent() as f64 / size as f64;
        assert!(sent <= most + 0.1, "{manner:?}: {sent} times its bytes");
        assert_eq!(partials(root.path()), Vec::<PathBuf>::new(), "{manner:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_interrupted_pull_has_received_is_not_fetched_again() {
    let (root, shelf) = (tempfile::tempdir().unwrap(), Shelf::start(&layout(&[12, 5])).await);
    shelf.pace(1 << 20);
    for _ in 0..3 {
        interrupted(root.path(), &shelf, 4 << 20).await;
        assert!(!partials(root.path()).is_empty());
    }
    let before = shelf.sent();
    let ready = pull(&fresh(root.path(), &shelf), &shelf).await.unwrap();
    let size = ready.record.bytes;
    assert!(shelf.sent() < size + 4 * SLACK, "{} of {size}", shelf.sent());
    assert!(ready.fetched <= shelf.sent() - before, "what came before is not counted as fetched");
    assert_eq!(partials(root.path()), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_came_whole_before_the_end_is_not_asked_for() {
    let layout = layout(&[8]);
    let (root, shelf) = (tempfile::tempdir().unwrap(), Shelf::start(&layout).await);
    shelf.pace(1 << 20);
    interrupted(root.path(), &shelf, 1 << 20).await;
    let [file] = &partials(root.path())[..] else { panic!() };
    // As if the process had lived until the last byte was written.
    let blobs =
        std::fs::read_dir(layout.path().join("blobs/sha256")).unwrap().map(|blob| blob.unwrap().path());
    let blob = blobs.map(|path| std::fs::read(path).unwrap()).max_by_key(Vec::len).unwrap();
    let mut bytes = std::fs::read(file).unwrap();
    bytes[8192..].copy_from_slice(&blob);
    for (piece, part) in blob.chunks(MIB).enumerate() {
        bytes[4096 + 8 * piece..][..8].copy_from_slice(&(part.len() as u64).to_le_bytes());
    }
    std::fs::write(file, bytes).unwrap();
    shelf.take_asked();
    let ready = pull(&fresh(root.path(), &shelf), &shelf).await.unwrap();
    assert_eq!((ready.fetched, shelf.take_asked()), (0, Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_what_was_received_is_found_and_all_fetched_anew() {
    for place in [0, 70_000, 2 << 20] {
        let (root, shelf) = (tempfile::tempdir().unwrap(), Shelf::start(&layout(&[12])).await);
        shelf.pace(1 << 20);
        interrupted(root.path(), &shelf, 6 << 20).await;
        let [file] = &partials(root.path())[..] else { panic!() };
        let mut bytes = std::fs::read(file).unwrap();
        // Behind the head and the table; or the head itself.
        let place = if place == 0 { 20 } else { 8192 + place };
        bytes[place] ^= 0x55;
        std::fs::write(file, bytes).unwrap();
        let ready = pull(&fresh(root.path(), &shelf), &shelf).await.unwrap();
        assert!(shelf.sent() < 2 * ready.record.bytes + 7 * MIB as u64 + SLACK);
        assert_eq!(partials(root.path()), Vec::<PathBuf>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_another_format_or_of_no_sense_are_begun_anew() {
    let make: [fn(Vec<u8>) -> Vec<u8>; 5] = [
        |_| Vec::new(),
        |bytes| bytes[..5000].to_vec(),
        |mut bytes| {
            bytes[15] = 99;
            bytes
        },
        // More bytes in a piece than it has.
        |mut bytes| {
            bytes[4096..4104].fill(0xff);
            bytes
        },
        |bytes| [bytes, vec![0; 100]].concat(),
    ];
    for make in make {
        let (root, shelf) = (tempfile::tempdir().unwrap(), Shelf::start(&layout(&[12])).await);
        shelf.pace(1 << 20);
        interrupted(root.path(), &shelf, 3 << 20).await;
        let [file] = &partials(root.path())[..] else { panic!() };
        let bytes = std::fs::read(file).unwrap();
        std::fs::write(file, make(bytes)).unwrap();
        pull(&fresh(root.path(), &shelf), &shelf).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_not_kept() {
    let (root, shelf) = (tempfile::tempdir().unwrap(), Shelf::start(&layout(&[3])).await);
    shelf.lie_about(MIB..MIB + 10);
    let error = match pull(&fresh(root.path(), &shelf), &shelf).await {
        Err(error) => error,
        // Fetched once more.
        Ok(_) => return,
    };
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    assert_eq!(partials(root.path()), Vec::<PathBuf>::new());
    pull(&fresh(root.path(), &shelf), &shelf).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keeping_nothing_is_written_and_one_connection_brings_it() {
    let (root, shelf) = (tempfile::tempdir().unwrap(), Shelf::start(&layout(&[6])).await);
    let store = Store::open(root.path(), Options { keep_partial: Duration::ZERO, ..options() }).unwrap();
    pull(&with(Arc::new(store), &shelf, RangeRules::default()), &shelf).await.unwrap();
    assert_eq!(shelf.take_asked(), [None]);
    assert_eq!(shelf.most_at_once(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_after_another_where_that_is_set() {
    let (root, shelf) = (tempfile::tempdir().unwrap(), Shelf::start(&layout(&[6])).await);
    shelf.pace(32 << 20);
    let ranges = RangeRules { size: MIB as u64, at_once: 1, connections: 12 };
    pull(&with(store(root.path()), &shelf, ranges), &shelf).await.unwrap();
    assert_eq!((shelf.most_at_once(), shelf.take_asked().len()), (1, 7));
    let (root, shelf) = (tempfile::tempdir().unwrap(), Shelf::start(&layout(&[6])).await);
    let ranges = RangeRules { size: MIB as u64, at_once: 4, connections: 0 };
    pull(&with(store(root.path()), &shelf, ranges), &shelf).await.unwrap();
    assert_eq!(shelf.most_at_once(), 1, "no connection beyond the first");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connections_of_all_layers_together_are_bounded() {
    let (root, shelf) = (tempfile::tempdir().unwrap(), Shelf::start(&layout(&[6, 6, 6])).await);
    shelf.pace(1 << 20);
    let ranges = RangeRules { size: MIB as u64, at_once: 8, connections: 4 };
    pull(&with(store(root.path()), &shelf, ranges), &shelf).await.unwrap();
    // Three layers have a first connection each, and one tenant has three quarters of the others.
    let most = shelf.most_at_once();
    assert!(most <= 3 + 3, "{most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_leaves_what_is_being_fetched_and_takes_what_is_idle() {
    let (root, shelf) = (tempfile::tempdir().unwrap(), Shelf::start(&layout(&[12])).await);
    shelf.pace(1 << 20);
    let (store, path) = (store(root.path()), root.path().to_owned());
    let ranges = RangeRules { size: MIB as u64, ..RangeRules::default() };
    let puller = Arc::new(with(Arc::clone(&store), &shelf, ranges));
    let wanted = request(&shelf.reference(), PullPolicy::IfNotPresent);
    let running = tokio::spawn(async move { puller.ensure(&wanted).await.map(drop) });
    while shelf.sent() < 3 << 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let collect = move || {
        let policy = gc::Policy::Unneeded { min_age: Duration::ZERO };
        store
            .collect(&CollectRequest { policy, mounted: &|| Ok(Mounted::default()), dry_run: false })
            .unwrap()
    };
    let (collect, path) = tokio::task::spawn_blocking(move || {
        collect();
        assert_eq!(partials(&path).len(), 1, "it is in use");
        (collect, path)
    })
    .await
    .unwrap();
    shelf.pace(0);
    running.await.unwrap().unwrap();
    assert!(shelf.sent() < 13 << 20, "nothing was lost");
    // Another image, left in the middle.
    let shelf = Shelf::start(&layout(&[11])).await;
    shelf.pace(1 << 20);
    interrupted(&path, &shelf, 3 << 20).await;
    let freed = tokio::task::spawn_blocking(move || {
        assert_eq!(partials(&path).len(), 1);
        let freed = collect().swept.bytes;
        assert_eq!(partials(&path).len(), 0);
        freed
    });
    assert!(freed.await.unwrap() >= 3 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_goes_on_with_is_removed_after_its_time_and_after_a_reboot() {
    let (root, shelf) = (tempfile::tempdir().unwrap(), Shelf::start(&layout(&[12])).await);
    shelf.pace(1 << 20);
    let path = root.path().to_owned();
    let reopened = async |options: Options| {
        let path = path.clone();
        tokio::task::spawn_blocking(move || drop(Store::open(&path, options).unwrap())).await.unwrap();
    };
    // A program that another test starts has the file locked for a moment, too: it stays until the next start.
    let removed_by = async |options: &dyn Fn() -> Options| {
        let deadline = std::time::Instant::now() + Duration::from_secs(120);
        while !partials(&path).is_empty() {
            assert!(std::time::Instant::now() < deadline, "it stays");
            reopened(options()).await;
        }
    };
    let patient = || Options { tidy_patience: Duration::from_secs(600), ..options() };
    interrupted(&path, &shelf, 2 << 20).await;
    reopened(patient()).await;
    assert_eq!(partials(&path).len(), 1);
    let [file] = &partials(&path)[..] else { panic!() };
    let old = std::time::SystemTime::now() - Duration::from_secs(25 * 3600);
    std::fs::File::options().write(true).open(file).unwrap().set_modified(old).unwrap();
    removed_by(&patient).await;
    interrupted(&path, &shelf, 2 << 20).await;
    let rebooted = Some("11111111-1111-1111-1111-111111111111".to_owned());
    removed_by(&|| Options { boot_id: rebooted.clone(), ..patient() }).await;
}
