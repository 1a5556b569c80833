//! Which images go, which stay, and what is measured.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, SystemTime};

use composefs_csi::image::store::gc::{Amount, Policy};
use composefs_csi::image::store::{
    Cause, CollectRequest, Held, Measure, Mounted, Options, PinNote, Removal, Space, Store, StoreError,
};
use composefs_csi::oci::digest::Digest;

use composefs_csi::image::composefs;
use composefs_csi::image::tree::{Builder, Rules};
use composefs_csi::image::verity::VerityDigest;
use futures_util::FutureExt as _;

use super::fixture::*;

const HOUR: Duration = Duration::from_secs(3600);

fn write_volume(store: &Store, name: &str, image: &Digest) {
    let record = format!(r#"{{"format":1,"volume":"v","image":"{image}","later":[1,2]}}"#);
    std::fs::write(store.volumes().directory().join(name), record).unwrap();
}

#[test]
fn what_is_recorded_mounted_or_pinned_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let records: Vec<_> = ["volume", "mounted", "pinned", "idle"]
        .into_iter()
        .map(|name| pull(&store, name, &[&["common"], &[name]]).unwrap())
        .collect();
    write_volume(&store, "v.json", &manifest("volume"));
    write_volume(&store, "v.json.tmp", &manifest("idle"));
    store.pin(&manifest("pinned"), &PinNote::default()).unwrap();
    let gone = collect(&store, EVERYTHING, &[records[1].image]).unwrap();
    assert_eq!(gone.images, [records[3].clone()]);
    assert_eq!(gone.swept.objects, 2, "its file and its composefs image; the common file stays");
    check(&store);
    assert_eq!(all_objects(dir.path()), needed(&store));

    std::fs::remove_file(store.volumes().directory().join("v.json")).unwrap();
    assert!(store.pins().remove(&manifest("pinned")).unwrap());
    assert!(!store.pins().remove(&manifest("pinned")).unwrap());
    assert_eq!(collect(&store, EVERYTHING, &[]).unwrap().images.len(), 3);
    assert!(all_objects(dir.path()).is_empty());
    // Nor is there a record that leads nowhere, for the next collection to find.
    for directory in ["layers", "blobs", "images", "names", "holds"] {
        let left: Vec<_> = std::fs::read_dir(dir.path().join(directory)).unwrap().collect();
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
    assert!(matches!(store.pin(&manifest("idle"), &PinNote::default()), Err(StoreError::NoImage(_))));
    assert!(matches!(store.images().touch(&manifest("idle")), Err(StoreError::NoImage(_))));
}

#[test]
fn what_is_not_known_for_certain_blocks_removal() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let record = pull(&store, "a", &[&["x"]]).unwrap();
    for torn in ["", "{", r#"{"volume":"v"}"#, r#"{"image":"sha256:12"}"#] {
        std::fs::write(store.volumes().directory().join("torn.json"), torn).unwrap();
        let refused = collect(&store, EVERYTHING, &[]).unwrap_err();
        assert!(matches!(&refused, StoreError::Blocked(why) if why.contains("torn.json")), "{refused}");
    }
    std::fs::remove_file(store.volumes().directory().join("torn.json")).unwrap();

    let unreadable =
        CollectRequest { policy: EVERYTHING, mounted: &|| Err("no /proc".to_owned()), dry_run: false };
    assert!(matches!(store.collect(&unreadable), Err(StoreError::Blocked(why)) if why == "no /proc"));

    // Mounted, and its record is lost: its objects must not go.
    let path = dir.path().join("images").join(format!("{}.json", manifest("a").hex()));
    std::fs::rename(&path, dir.path().join("saved")).unwrap();
    let refused = collect(&store, EVERYTHING, &[record.image]).unwrap_err();
    assert!(refused.to_string().contains(&record.image.hex()), "{refused}");
    assert_eq!(all_objects(dir.path()).len(), 2);
    std::fs::rename(dir.path().join("saved"), &path).unwrap();
    // An image of another store on this machine is none of our business.
    let foreign = Mounted { elsewhere: [VerityDigest([1; 32])].into(), ..Mounted::default() };
    let mounted = || Ok(foreign.clone());
    let request = CollectRequest { policy: EVERYTHING, mounted: &mounted, dry_run: false };
    assert_eq!(store.collect(&request).unwrap().images.len(), 1);
}

#[test]
fn recently_used_images_stay_and_a_dry_run_removes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for name in ["old", "new"] {
        pull(&store, name, &[&[name]]).unwrap();
        used(&store, &manifest(name), 2 * HOUR);
    }
    store.images().touch(&manifest("new")).unwrap();
    let policy = Policy::Unneeded { min_age: HOUR };
    let dry = store
        .collect(&CollectRequest { policy, mounted: &|| Ok(Mounted::default()), dry_run: true })
        .unwrap();
    assert_eq!((dry.images.len(), dry.swept.objects), (1, 0));
    assert_eq!(names(&store).len(), 2);
    let gone = collect(&store, policy, &[]).unwrap();
    assert_eq!(gone.images, dry.images);
    assert_eq!(names(&store), [manifest("new")]);
}

#[test]
fn a_use_that_was_noted_a_moment_ago_is_not_noted_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    pull(&store, "a", &[&["a"]]).unwrap();
    let record = dir.path().join("images").join(format!("{}.json", manifest("a").hex()));
    let modified = || std::fs::metadata(&record).unwrap().modified().unwrap();
    // So far in the past and in the future, the latter after the clock was set back.
    let file = std::fs::File::open(&record).unwrap();
    for at in [SystemTime::now() - HOUR, SystemTime::now() + HOUR] {
        file.set_modified(at).unwrap();
        store.images().touch_if_stale(&manifest("a")).unwrap();
        assert!(modified() > SystemTime::now() - HOUR / 2 && modified() <= SystemTime::now());
    }
    let noted = modified();
    store.images().touch_if_stale(&manifest("a")).unwrap();
    assert!(modified() == noted || noted.elapsed().unwrap() > Duration::from_secs(9), "written again");
    assert!(matches!(store.images().touch_if_stale(&manifest("b")), Err(StoreError::NoImage(_))));
}

/// Else it would stay until 2040.
#[test]
fn an_image_that_was_used_in_the_future_counts_as_used_now() {
    let dir = tempfile::tempdir().unwrap();
    let base = Arc::new(AtomicU64::new(90));
    let store = Store::open(dir.path(), small_disk(&base)).unwrap();
    pull(&store, "a", &[&["a"]]).unwrap();
    let record = dir.path().join("images").join(format!("{}.json", manifest("a").hex()));
    let ahead = SystemTime::now() + 100_000 * HOUR;
    std::fs::File::open(&record).unwrap().set_modified(ahead).unwrap();
    let policy = Policy::Watermarks { high: 85, low: 80, min_age: HOUR, recent: HOUR, idle_bytes: None };
    assert!(collect(&store, policy, &[]).unwrap().images.is_empty(), "it may be in use a moment ago");
    assert!(std::fs::metadata(&record).unwrap().modified().unwrap() <= SystemTime::now());
    // It ages from now on.
    std::fs::File::open(&record).unwrap().set_modified(SystemTime::now() - 2 * HOUR).unwrap();
    assert_eq!(collect(&store, policy, &[]).unwrap().images.len(), 1);
}

/// A filesystem of 100 blocks of which `base` are other people's; the rest is what the store holds.
fn small_disk(base: &Arc<AtomicU64>) -> Options {
    let base = Arc::clone(base);
    let measure = Measure::new(move |root| {
        let held: u64 = all_objects(root)
            .iter()
            .map(|d| root.join("objects").join(&d.hex()[..2]).join(&d.hex()[2..]))
            .map(|path| std::fs::metadata(path).unwrap().len().next_multiple_of(4096))
            .sum();
        let total = Amount { bytes: 100 * 4096, inodes: 0 };
        let used = Amount { bytes: base.load(SeqCst) * 4096 + held, inodes: 0 };
        Ok(Space { total, used })
    });
    Options { measure, ..options(BOOT) }
}

#[test]
fn by_watermarks_the_least_recently_used_go_and_no_more_than_needed() {
    let dir = tempfile::tempdir().unwrap();
    let base = Arc::new(AtomicU64::new(0));
    let store = Store::open(dir.path(), small_disk(&base)).unwrap();
    // Each image: ten blocks of its own, two of its composefs image, and ten blocks that all share.
    for (hours, name) in [(4, "a40960"), (3, "b40960"), (2, "c40960"), (1, "d40960")] {
        pull(&store, name, &[&["common40960"], &[name]]).unwrap();
        used(&store, &manifest(name), hours * HOUR);
    }
    let policy = Policy::Watermarks {
        high: 85,
        low: 80,
        min_age: Duration::from_secs(60),
        recent: HOUR,
        idle_bytes: None,
    };
    let gone = || {
        let gone = collect(&store, policy, &[]).unwrap().images;
        gone.iter().map(|record| record.manifest).collect::<Vec<_>>()
    };
    assert!(gone().is_empty(), "half full");
    let space = store.space().unwrap();
    base.store(85 - space.used.bytes / 4096, SeqCst);
    assert!(gone().is_empty(), "exactly at the mark");
    // A failed pull's garbage goes first, and is enough.
    let hold = store.hold();
    store.objects().under(&hold).unwrap().put(&content("garbage40000")).unwrap();
    drop(hold);
    assert!(store.space().unwrap().exceeds(85));
    assert!(gone().is_empty());
    assert!(!store.space().unwrap().exceeds(85));
    base.fetch_add(1, SeqCst);
    assert_eq!(gone(), [manifest("a40960")], "6 blocks too many, and one image frees 12");
    assert!(!store.space().unwrap().exceeds(80));
    assert!(gone().is_empty());
    // A used image moves to the end of the queue.
    store.images().touch(&manifest("b40960")).unwrap();
    base.fetch_add(12, SeqCst);
    assert_eq!(gone(), [manifest("c40960")]);
    check(&store);
    // Only what was used in the last minute is left besides d: it stays whatever happens.
    base.fetch_add(60, SeqCst);
    assert_eq!(gone(), [manifest("d40960")]);
    assert!(gone().is_empty());
    assert_eq!(names(&store), [manifest("b40960")]);
    check(&store);
}

/// Four images of ten blocks of their own, two of their composefs image, and ten blocks that all share.
fn four_images(store: &Store) {
    for (hours, name) in [(4, "a40960"), (3, "b40960"), (2, "c40960"), (1, "d40960")] {
        pull(store, name, &[&["common40960"], &[name]]).unwrap();
        used(store, &manifest(name), hours * HOUR);
    }
}

#[test]
fn what_nothing_needs_takes_no_more_than_it_may() {
    let dir = tempfile::tempdir().unwrap();
    let base = Arc::new(AtomicU64::new(0));
    let store = Store::open(dir.path(), small_disk(&base)).unwrap();
    four_images(&store);
    store.pin(&manifest("d40960"), &PinNote::default()).unwrap();
    let policy = |blocks: u64| Policy::Watermarks {
        high: 99,
        low: 99,
        min_age: Duration::from_secs(60),
        recent: HOUR,
        idle_bytes: Some(blocks * 4096),
    };
    let round = |blocks| collect(&store, policy(blocks), &[]).unwrap();
    let gone = |blocks| round(blocks).images.iter().map(|record| record.manifest).collect::<Vec<_>>();
    // What they share with the pinned one does not count.
    assert!(gone(36).is_empty());
    let first = round(35);
    assert_eq!(first.images.iter().map(|record| record.manifest).collect::<Vec<_>>(), [manifest("a40960")]);
    let [Removal { cause, idle_seconds, frees_bytes, refetch_bytes }] = first.removals[..] else {
        panic!("{first:?}")
    };
    assert_eq!((cause, frees_bytes, refetch_bytes), (Cause::Surplus, 12 * 4096, 40_960));
    assert!((4 * 3600..5 * 3600).contains(&idle_seconds) && !first.above_mark);
    assert!(gone(24).is_empty(), "two are left");
    // One that is young counts and stays.
    store.images().touch(&manifest("c40960")).unwrap();
    assert_eq!(gone(0), [manifest("b40960")]);
    assert!(gone(0).is_empty());
    // In use, it counts no more; out of use it does.
    used(&store, &manifest("c40960"), HOUR);
    write_volume(&store, "v.json", &manifest("c40960"));
    assert!(gone(0).is_empty());
    std::fs::remove_file(store.volumes().directory().join("v.json")).unwrap();
    assert_eq!(gone(0), [manifest("c40960")]);
    check(&store);
    assert_eq!(names(&store), [manifest("d40960")]);
}

#[test]
fn room_for_a_pull_is_made_of_what_may_go_and_no_more_of_it_than_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let base = Arc::new(AtomicU64::new(0));
    let store = Store::open(dir.path(), small_disk(&base)).unwrap();
    four_images(&store);
    let spare = store.spare().unwrap() / 4096;
    assert_eq!((spare, store.capacity().unwrap() / 4096), (100 - 58, 100));
    let policy = Policy::Watermarks { high: 85, low: 80, min_age: HOUR / 2, recent: HOUR, idle_bytes: None };
    let make = |blocks: u64| {
        let made = store.make_room(blocks * 4096, &policy, &|| Ok(Mounted::default())).unwrap();
        (made.images.iter().map(|record| record.manifest).collect::<Vec<_>>(), made.above_mark)
    };
    assert_eq!(make(spare), (vec![], false));
    assert_eq!(make(spare + 1), (vec![manifest("a40960")], false));
    assert_eq!(store.spare().unwrap() / 4096, spare + 12);
    assert_eq!(make(spare + 12), (vec![], false));
    // What was used of late goes only if that is enough.
    used(&store, &manifest("d40960"), HOUR * 3 / 4);
    assert_eq!(make(101), (vec![manifest("b40960"), manifest("c40960")], true));
    assert_eq!(make(100), (vec![manifest("d40960")], false));
    check(&store);
    assert!(all_objects(dir.path()).is_empty());
}

#[test]
fn what_frees_little_for_what_would_be_fetched_again_goes_after_what_frees_much() {
    let dir = tempfile::tempdir().unwrap();
    let base = Arc::new(AtomicU64::new(0));
    let store = Store::open(dir.path(), small_disk(&base)).unwrap();
    pull(&store, "kept", &[&["common40960", "x"]]).unwrap();
    store.pin(&manifest("kept"), &PinNote::default()).unwrap();
    // The files of another image, in a layer of its own.
    pull(&store, "alike", &[&["common40960", "y"]]).unwrap();
    pull(&store, "other", &[&["other40960"]]).unwrap();
    pull(&store, "ancient", &[&["common40960", "z"]]).unwrap();
    for (name, hours) in [("alike", 7), ("other", 4), ("ancient", 24)] {
        used(&store, &manifest(name), hours * HOUR);
    }
    let policy = |low| Policy::Watermarks { high: low, low, min_age: HOUR, recent: HOUR, idle_bytes: None };
    let used_blocks = store.space().unwrap().used.bytes / 4096;
    base.store(85 - used_blocks, SeqCst);
    let gone = collect(&store, policy(84), &[]).unwrap();
    let order: Vec<_> = gone.images.iter().map(|record| record.manifest).collect();
    assert_eq!(order, [manifest("ancient")], "long unused, it goes whatever it frees");
    let freed = store.space().unwrap().used.bytes / 4096;
    let gone = collect(&store, policy(u8::try_from(freed - 1).unwrap()), &[]).unwrap();
    let order: Vec<_> = gone.images.iter().map(|record| record.manifest).collect();
    assert_eq!(order, [manifest("other")], "{:?}", gone.removals);
    check(&store);
}

#[test]
fn where_others_fill_the_disk_what_was_used_of_late_stays_and_nothing_is_read_in_vain() {
    let dir = tempfile::tempdir().unwrap();
    let base = Arc::new(AtomicU64::new(0));
    let store = Store::open(dir.path(), small_disk(&base)).unwrap();
    for (name, hours) in [("old", 2), ("new", 0), ("newer", 0)] {
        pull(&store, name, &[&[name]]).unwrap();
        used(&store, &manifest(name), hours * HOUR + Duration::from_secs(90));
    }
    base.store(95, SeqCst);
    let policy = Policy::Watermarks {
        high: 85,
        low: 80,
        min_age: Duration::from_secs(60),
        recent: HOUR,
        idle_bytes: None,
    };
    let round = || collect(&store, policy, &[]);
    let gone = round().unwrap();
    assert_eq!(gone.images.iter().map(|image| image.manifest).collect::<Vec<_>>(), [manifest("old")]);
    assert!(gone.above_mark);
    assert!(round().unwrap().images.is_empty());
    // From now on reading a layer's record is an error: the composefs image, which would help out, is a stand-in.
    let layer = dir.path().join("layers").join(diff_id(&["new"]).hex());
    let bytes = std::fs::read(&layer).unwrap();
    std::fs::write(&layer, &bytes[..60]).unwrap();
    for _ in 0..3 {
        let nothing = round().unwrap();
        assert!(nothing.images.is_empty() && nothing.above_mark, "{nothing:?}");
    }
    // A killed pull has left something, so there is something to find.
    std::fs::write(dir.path().join("holds/abandoned"), "").unwrap();
    assert!(round().is_err());
    std::fs::write(&layer, bytes).unwrap();
    assert!(round().unwrap().images.is_empty());
    // Others need less by now: the two of this hour make the difference, and as many go as are needed.
    base.store(82, SeqCst);
    assert_eq!(round().unwrap().images.len(), 2);
    assert!(!store.space().unwrap().exceeds(85));
    assert!(!round().unwrap().above_mark);
}

#[test]
fn the_mount_table_is_read_when_nobody_can_mount() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options { patience: Duration::ZERO, ..options(BOOT) }).unwrap();
    pull(&store, "a", &[&["x"]]).unwrap();
    let nobody_can = RefCell::new(Vec::new());
    let mounted = || {
        // A publish must hold the image before it mounts it.
        let hold = store.hold();
        let noted = hold.keep(&[Held::Manifest(manifest("a"))]).now_or_never().unwrap();
        nobody_can.borrow_mut().push(matches!(noted, Err(StoreError::Busy { .. })));
        Ok(Mounted::default())
    };
    store.collect(&CollectRequest { policy: EVERYTHING, mounted: &mounted, dry_run: false }).unwrap();
    // Beside publishes, for the plan and for what is to be read; and alone before any image, layer or object goes, of which
    // a slow machine does less at a time.
    let nobody_can = nobody_can.into_inner();
    assert!(nobody_can.len() >= 5 && nobody_can.starts_with(&[false, true, false]), "{nobody_can:?}");
    assert!(nobody_can.iter().skip(3).all(|nobody_can| *nobody_can), "{nobody_can:?}");
}

#[test]
fn a_lost_layer_record_costs_neither_the_image_nor_the_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let hold = store.hold();
    add_layer(&store, &hold, &["hidden", "x", "y"]).unwrap();
    let mut builder = Builder::new(Rules::Faithful);
    let mut layer = builder.layer();
    for entry in store.layers().entries(&diff_id(&["hidden", "x", "y"])).unwrap().skip(1) {
        layer.apply(entry.unwrap()).unwrap();
    }
    layer.end().unwrap();
    let image = composefs::write_image(builder.finish().unwrap()).unwrap();
    let (digest, _) = store.objects().under(&hold).unwrap().put(&image.bytes).unwrap();
    let mut record = record("a", &[&["hidden", "x", "y"]]);
    (record.image, record.image_size) = (digest, image.bytes.len() as u64);
    store.commit_image(&hold, &record).unwrap();
    drop(hold);
    let layer = dir.path().join("layers").join(record.layers[0].hex());
    std::fs::write(&layer, &std::fs::read(&layer).unwrap()[..60]).unwrap();
    let [usage] = store.usage().unwrap().images[..] else { panic!() };
    assert!(usage.alone >= 10_000 + record.image_size, "{usage:?}");
    assert_eq!(collect(&store, EVERYTHING, &[digest]).unwrap().images, []);
    let left: BTreeSet<_> = [digest, of("x"), of("y")].into();
    assert_eq!(all_objects(dir.path()).intersection(&left).count(), 3, "a mount needs them");
    assert!(!layer.exists());
    assert_eq!(
        store.layers().of_blob(&blob(&["hidden", "x", "y"])).unwrap(),
        None,
        "the next pull fetches it"
    );
}

fn of(name: &str) -> VerityDigest {
    VerityDigest::of(&content(name))
}

#[test]
fn usage_tells_shared_from_own_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    pull(&store, "a", &[&["common", "a1000"], &["again", "common"]]).unwrap();
    pull(&store, "b", &[&["common"], &["b2000"]]).unwrap();
    used(&store, &manifest("a"), HOUR);
    let hold = store.hold();
    store.objects().under(&hold).unwrap().put(&content("nobody's")).unwrap();
    drop(hold);
    let usage = store.usage().unwrap();
    let [a, b] = &usage.images[..] else { panic!("{usage:?}") };
    assert_eq!((a.manifest, b.manifest), (manifest("a"), manifest("b")));
    assert_eq!((a.total, a.alone, a.shared()), (5000 + 1000 + 5000 + 5000, 1000 + 5000 + 5000, 5000));
    assert_eq!((b.total, b.alone, b.shared()), (5000 + 2000 + 5000, 2000 + 5000, 5000));
    assert_eq!(usage.objects, 7);
    assert!(usage.allocated >= 5000 * 6 + 3000 && usage.allocated.is_multiple_of(512), "{}", usage.allocated);
}

#[test]
fn a_damaged_image_that_a_volume_shows_stops_every_collection_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let base = Arc::new(AtomicU64::new(99));
    let store = Store::open(dir.path(), small_disk(&base)).unwrap();
    let shown = pull(&store, "shown", &[&["x", "y"]]).unwrap();
    let volume = store.volumes().directory().join("v.json");
    let record = |boot: &str| {
        format!(
            r#"{{"format":1,"image":"{}","composefs":"{}","boot":"{boot}"}}"#,
            shown.manifest, shown.image
        )
    };
    std::fs::write(&volume, record(BOOT)).unwrap();
    store.remove_damaged(&BTreeSet::from([shown.image])).unwrap();
    let watermarks = Policy::Watermarks {
        high: 85,
        low: 80,
        min_age: Duration::ZERO,
        recent: Duration::ZERO,
        idle_bytes: None,
    };
    for policy in [EVERYTHING, watermarks] {
        let refused = collect(&store, policy, &[shown.image]).unwrap_err();
        assert!(
            matches!(&refused, StoreError::Blocked(why) if why.contains(&shown.image.hex())),
            "{refused}"
        );
        assert_eq!(all_objects(dir.path()), BTreeSet::from([of("x"), of("y")]), "{policy:?}");
    }
    // Nothing is mounted from another boot.
    std::fs::write(&volume, record(NEXT_BOOT)).unwrap();
    assert_eq!(collect(&store, EVERYTHING, &[]).unwrap().swept.objects, 2);
}
