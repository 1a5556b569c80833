//! From the kernel's complaint to the object and the image, in the kernel's own words: a pulled image is damaged on
//! disk and read, and what the kernel then writes to its log leads the watcher there.

use std::sync::Arc;
use std::time::Duration;

use composefs_csi::image::store::{NodeKey, Options, Store};
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::node::corruption::{CorruptImages, CorruptionWatcher, KernelReport, parse};
use composefs_csi::node::mount::Mounter as _;
use composefs_csi::sys::kernel_log::KernelLog;

use crate::disk::{BLOCK, drop_caches, tamper};
use crate::guest::{LENGTH, bench, start, whole};
use crate::pulled::pull;
use crate::support::archive::archive;
use crate::support::images::{Image, Layout};
use crate::support::mount::{Bench, content};

/// All complaints in the log, those of earlier rows (whose objects are gone) included.
fn complaints() -> Vec<KernelReport> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut log = KernelLog::open().unwrap();
        let mut found = Vec::new();
        while let Ok(record) = tokio::time::timeout(Duration::from_secs(5), log.next()).await {
            found.extend(parse(&record.unwrap()));
        }
        found
    })
}

/// Pulls an image, damages the object of its one file, reads that, and returns what the watcher makes of the log.
fn noticed(name: &str, seed: u8, damage: impl Fn(&Bench, &VerityDigest, &[u8])) -> String {
    let bench = bench(name);
    std::fs::remove_dir_all(bench.store()).unwrap();
    std::fs::create_dir_all(std::env::temp_dir()).unwrap();
    let text = content(seed, LENGTH);
    let layout = Layout::of(&Image::new(vec![archive(&[("bad", &text)])]));
    let store = Arc::new(Store::open(&bench.store(), Options::new(NodeKey::from_bytes(&[42; 32]))).unwrap());
    let image = pull(&store, &layout.reference("latest")).record;
    let object = VerityDigest::of(&text);
    let mounter = start(&bench);
    let target = bench.target("a");
    mounter.mount(&whole(image.image), &target).unwrap();
    damage(&bench, &object, &text);
    drop_caches();
    let errno = std::fs::read(target.join("bad")).unwrap_err();
    let corrupt_images = CorruptImages::default();
    let mut watcher = CorruptionWatcher::new(store, corrupt_images.clone());
    let complaints = complaints();
    for complaint in &complaints {
        watcher.investigate(complaint).unwrap();
    }
    let what = corrupt_images.of(&image.image);
    let what = what.unwrap_or_else(|| panic!("{errno}, and nothing is noticed in {complaints:?}"));
    assert!(what.contains(&object.hex()), "{what}");
    format!("{errno}; {:?}; {what}", complaints.last())
}

pub fn tampered_block() -> String {
    // The kernel lets ten complaints pass in five seconds, and an earlier row has caused more.
    std::thread::sleep(Duration::from_secs(6));
    noticed("noticed-block", 60, |_, _, text| tamper(&text[3 * BLOCK..4 * BLOCK]))
}

pub fn replaced_object() -> String {
    noticed("noticed-replaced", 61, |bench, digest, _| {
        bench.write_object(digest, &content(62, LENGTH), true);
    })
}

pub fn unsealed_object() -> String {
    noticed("noticed-unsealed", 63, |bench, digest, text| bench.write_object(digest, text, false))
}

pub fn missing_object() -> String {
    noticed("noticed-missing", 64, |bench, digest, _| std::fs::remove_file(bench.object(digest)).unwrap())
}
