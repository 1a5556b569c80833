//! Several images as one, on a disk with fs-verity: the whole is sealed like every image, and what it shows of its members is
//! read with their own objects' proof.

use std::fs::File;
use std::sync::Arc;

use composefs_csi::image::store::{Member, NodeKey, Options, Store};
use composefs_csi::integrity::Integrity;
use composefs_csi::node::mount::Mounter as _;
use composefs_csi::pull::{Caller, Combination, ImageRequest, Images as _, PullLimits, PullPolicy, Ready};
use composefs_csi::sys::verity::measure_verity;

use crate::disk::{BLOCK, drop_caches, read_block, tamper};
use crate::guest::{LENGTH, bench, start, whole};
use crate::pulled::pull;
use crate::support::archive::archive;
use crate::support::images::{Image, Layout};
use crate::support::mount::content;
use crate::support::pulling::{accept_all, puller, request};

/// Two images become one that is sealed, mounted and read; a block that is tampered with is refused in the one file.
pub fn sealed() -> String {
    let bench = bench("combined");
    std::fs::remove_dir_all(bench.store()).unwrap();
    std::fs::create_dir_all(std::env::temp_dir()).unwrap();
    let (base, adapter) = (content(60, LENGTH), content(61, LENGTH));
    let layouts = [
        Layout::of(&Image::new(vec![archive(&[("model", &base), ("small", b"inline")])])),
        Layout::of(&Image::new(vec![archive(&[("adapter", &adapter)])])),
    ];
    let store = Arc::new(Store::open(&bench.store(), Options::new(NodeKey::from_bytes(&[42; 32]))).unwrap());
    assert_eq!(store.integrity(), Integrity::Read);
    let ready: Vec<Ready> = layouts.iter().map(|layout| pull(&store, &layout.reference("latest"))).collect();
    let member = |ready: &Ready, at: &str| {
        let (name, path) = (at.to_owned(), String::new());
        let (manifest, image) = (ready.record.manifest, ready.record.image);
        (Member { name, manifest, image, path, at: at.to_owned() }, ready.record.layers.clone())
    };
    let members = vec![member(&ready[0], "base"), member(&ready[1], "base/adapters")];
    let wanted = Combination { name: "2 images".to_owned(), members };
    let first = request(&layouts[0].reference("latest"), PullPolicy::Always);
    let first = ImageRequest { caller: Caller::Operator, ..first };
    let puller = puller(&store, &[], &accept_all(), PullLimits::default());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let combined = runtime.block_on(puller.combine(&first, wanted)).unwrap();

    let object = File::open(store.objects().path(&combined.image)).unwrap();
    assert_eq!(measure_verity(&object), Ok(combined.image.0), "sealed with the digest that names it");
    let mounter = start(&bench);
    assert_eq!(mounter.capabilities().integrity(), Integrity::Read);
    let target = bench.target("a");
    mounter.mount(&whole(combined.image), &target).unwrap();
    drop_caches();
    assert_eq!(std::fs::read(target.join("base/model")).unwrap(), base);
    assert_eq!(std::fs::read(target.join("base/small")).unwrap(), b"inline");
    assert_eq!(std::fs::read(target.join("base/adapters/adapter")).unwrap(), adapter);

    let number = 7;
    tamper(&adapter[number * BLOCK..(number + 1) * BLOCK]);
    drop_caches();
    let bad = File::open(target.join("base/adapters/adapter")).unwrap();
    rustix::fs::fadvise(&bad, 0, None, rustix::fs::Advice::Random).unwrap();
    assert_eq!(read_block(&bad, number), Err(libc::EIO));
    assert_eq!(read_block(&bad, number + 1).unwrap(), adapter[(number + 1) * BLOCK..(number + 2) * BLOCK]);
    assert_eq!(std::fs::read(target.join("base/model")).unwrap(), base, "the others are as they were");
    format!("composefs digest {}", combined.image)
}
