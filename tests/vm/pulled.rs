//! The whole way inside the machine: an image pulled by the real puller into a sealed store, and a store that
//! finds fs-verity only after it was filled.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use composefs_csi::image::objects::{Objects, Put};
use composefs_csi::image::store::{NodeKey, Options, Store};
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::integrity::Integrity;
use composefs_csi::node::mount::Mounter as _;
use composefs_csi::pull::{Caller, ImageRequest, Images as _, PullError, PullLimits, PullPolicy, Ready};
use composefs_csi::sys::verity::measure_verity;

use crate::disk::drop_caches;
use crate::guest::{LENGTH, bench, start, whole};
use crate::support::archive::archive;
use crate::support::images::{Image, Layout};
use crate::support::mount::content;
use crate::support::pulling::{accept_all, puller, request};

pub fn pull(store: &Arc<Store>, reference: &str) -> Ready {
    try_pull(store, reference).unwrap()
}

pub fn try_pull(store: &Arc<Store>, reference: &str) -> Result<Ready, PullError> {
    let puller = puller(store, &[], &accept_all(), PullLimits::default());
    let request = ImageRequest { caller: Caller::Operator, ..request(reference, PullPolicy::Always) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(puller.ensure(&request))
}

/// Registry (here: layout) to pod, everything sealed.
pub fn pulled_image() -> String {
    let bench = bench("pulled");
    std::fs::remove_dir_all(bench.store()).unwrap();
    std::fs::create_dir_all(std::env::temp_dir()).unwrap();
    let (large, small) = (content(50, LENGTH), b"inline".to_vec());
    let sparse = [&large[..5000], &vec![0; 4 << 20], &large[..5000], &vec![0; 100_000]].concat();
    let layout = Layout::of(&Image::new(vec![
        archive(&[("large", &large), ("gone", b"x"), ("sparse", &sparse)]),
        archive(&[("small", &small), (".wh.gone", b"")]),
    ]));
    let store = Arc::new(Store::open(&bench.store(), Options::new(NodeKey::from_bytes(&[42; 32]))).unwrap());
    assert_eq!(store.integrity(), Integrity::Read);
    let ready = pull(&store, &layout.reference("latest"));
    for digest in [ready.record.image, VerityDigest::of(&large), VerityDigest::of(&sparse)] {
        let object = File::open(store.objects().path(&digest)).unwrap();
        assert_eq!(measure_verity(&object), Ok(digest.0), "sealed with the digest that names it");
    }
    let object = std::fs::metadata(store.objects().path(&VerityDigest::of(&sparse))).unwrap();
    // With the hash tree, which ext4 keeps behind the end of the file.
    assert!(object.blocks() * 512 < 200 << 10, "its zeros are holes: {} blocks", object.blocks());
    let mounter = start(&bench);
    assert_eq!(mounter.capabilities().integrity(), Integrity::Read);
    let target = bench.target("a");
    mounter.mount(&whole(ready.record.image), &target).unwrap();
    drop_caches();
    assert_eq!(std::fs::read(target.join("large")).unwrap(), large);
    assert_eq!(std::fs::read(target.join("small")).unwrap(), small);
    assert_eq!(std::fs::read(target.join("sparse")).unwrap(), sparse);
    assert!(!target.join("gone").exists());
    format!("composefs digest {}", ready.record.image)
}

/// The disk had no fs-verity when the store was filled (an older kernel, no `tune2fs -O verity` yet).
pub fn sealed_later() -> String {
    let bench = bench("sealed-later");
    std::fs::remove_dir_all(bench.store()).unwrap();
    drop(Store::open(&bench.store(), Options::new(NodeKey::from_bytes(&[42; 32]))).unwrap());
    let unsealed = Objects::open(&bench.store(), false).unwrap();
    let (digest, _) = unsealed.put(&content(51, LENGTH)).unwrap();
    let path = unsealed.path(&digest);
    assert!(measure_verity(File::open(&path).unwrap()).is_err());
    // What a store writes when it cannot seal.
    std::fs::write(bench.store().join("unsealed"), b"").unwrap();
    let others = [52, 53, 54].map(|seed| unsealed.put(&content(seed, LENGTH)).unwrap().0);
    let open = || Store::open(&bench.store(), Options::new(NodeKey::from_bytes(&[42; 32]))).unwrap();
    let has_verity =
        |digest: &VerityDigest| measure_verity(File::open(unsealed.path(digest)).unwrap()).is_ok();
    let store = open();
    assert_eq!(store.integrity(), Integrity::Fetch, "as long as it is not true of all");
    assert!(store.lacks_verity() && !has_verity(&digest), "opening takes no time");
    // What comes meanwhile has it, and what is there is good enough.
    let hold = store.hold();
    let (new, _) = store.objects().under(&hold).unwrap().put(&content(55, LENGTH)).unwrap();
    assert!(has_verity(&new));
    assert_eq!(store.objects().under(&hold).unwrap().put(&content(51, LENGTH)).unwrap().1, Put::Present);
    drop(hold);
    // Stopped after the second object, it goes on where it was.
    assert!(!store.enable_verity(|progress| progress.done < 2).unwrap());
    let done = || others.iter().chain([&digest]).filter(|digest| has_verity(digest)).count();
    assert!((1..=2).contains(&done()), "{}", done());
    assert_eq!(open().integrity(), Integrity::Fetch);
    // One was damaged before there was a seal: it goes, instead of being sealed as it is.
    let damaged = others.into_iter().find(|digest| !has_verity(digest)).unwrap();
    std::fs::write(unsealed.path(&damaged), content(56, LENGTH)).unwrap();
    assert!(open().enable_verity(|_| true).unwrap());
    assert!(!unsealed.path(&damaged).exists());
    assert_eq!(measure_verity(File::open(&path).unwrap()), Ok(digest.0));
    assert!(!bench.store().join("unsealed").exists());
    let store = open();
    assert!(store.integrity() == Integrity::Read && !store.lacks_verity());
    String::new()
}
