//! Tampering with records inside the machine, on a sealed store: an image's, a layer's, a blob's link, the first
//! digest's, and the key. What is not authentic is named, put aside and never mounted; the next pull makes it good.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use composefs_csi::image::store::{ImageRecord, NodeKey, Options, Store, StoreError};
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::kind::Kind;
use composefs_csi::node::mount::Mounter as _;
use composefs_csi::oci::digest::Digest;

use crate::guest::{LENGTH, bench, start, whole};
use crate::pulled::{pull, try_pull};
use crate::support::archive::archive;
use crate::support::images::{Image, Layout};
use crate::support::mount::{Bench, content};

/// A store with two images, and where the first came from.
struct Filled {
    bench: Bench,
    layout: Layout,
    text: Vec<u8>,
    good: ImageRecord,
    evil: ImageRecord,
}

fn open(bench: &Bench, key: u8) -> Arc<Store> {
    Arc::new(Store::open(&bench.store(), Options::new(NodeKey::from_bytes(&[key; 32]))).unwrap())
}

impl Filled {
    fn new(name: &str, seed: u8) -> Self {
        let bench = bench(name);
        fs::remove_dir_all(bench.store()).unwrap();
        fs::create_dir_all(std::env::temp_dir()).unwrap();
        let text = content(seed, LENGTH);
        let layout = Layout::of(&Image::new(vec![archive(&[("file", &text)])]));
        let other = Layout::of(&Image::new(vec![archive(&[("file", &content(seed + 1, LENGTH))])]));
        let store = open(&bench, 42);
        let good = pull(&store, &layout.reference("latest")).record;
        let evil = pull(&store, &other.reference("latest")).record;
        Self { bench, layout, text, good, evil }
    }

    fn path(&self, directory: &str, name: String) -> PathBuf {
        self.bench.store().join(directory).join(name)
    }

    fn image_record(&self) -> PathBuf {
        self.path("images", format!("{}.json", self.good.manifest.hex()))
    }

    /// Pulls the image again, mounts it and reads the right bytes.
    fn is_made_good(&self, store: &Arc<Store>) {
        let again = pull(store, &self.layout.reference("latest")).record;
        assert_eq!(again.image, self.good.image);
        let target = self.bench.target("a");
        let mounter = start(&self.bench);
        mounter.mount(&whole(again.image), &target).unwrap();
        assert_eq!(fs::read(target.join("file")).unwrap(), self.text);
    }
}

fn named(error: &StoreError, path: &Path, subject: &Digest) -> String {
    let text = error.to_string();
    assert!(text.contains(&path.display().to_string()) && text.contains(&subject.to_string()), "{text}");
    text
}

/// The record points at another image of the store, sealed and sound in itself.
pub fn image_record() -> String {
    let filled = Filled::new("record-image", 80);
    let (good, evil) = (&filled.good, &filled.evil);
    let path = filled.image_record();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(&good.image.hex(), &evil.image.hex())).unwrap();
    let store = open(&filled.bench, 42);
    assert!(store.images().get(&good.manifest).unwrap().is_none(), "put aside when the store is opened");
    fs::write(&path, text.replace(&good.image.hex(), &evil.image.hex())).unwrap();
    let said = named(&store.images().get(&good.manifest).unwrap_err(), &path, &good.manifest);
    filled.is_made_good(&store);
    said
}

/// The layer's record names another object, and the image's record is gone, so that a pull builds from it.
pub fn layer_record() -> String {
    let filled = Filled::new("record-layer", 82);
    let [good, evil] = [&filled.good, &filled.evil].map(|image| filled.path("layers", image.layers[0].hex()));
    fs::copy(&evil, &good).unwrap();
    fs::remove_file(filled.image_record()).unwrap();
    let store = open(&filled.bench, 42);
    let diff_id = filled.good.layers[0];
    let read: Result<Vec<_>, StoreError> =
        store.layers().entries(&diff_id).and_then(|entries| entries.collect());
    let said = named(&read.unwrap_err(), &good, &diff_id);
    // The pull that comes upon it fails, and puts it aside for the next.
    let refused = try_pull(&store, &filled.layout.reference("latest")).unwrap_err();
    assert_eq!(refused.kind(), Kind::Corrupt, "{refused}");
    assert!(refused.to_string().contains(&diff_id.to_string()), "{refused}");
    filled.is_made_good(&store);
    said
}

/// The blob's link leads to another layer, and the image's record is gone.
pub fn blob_link() -> String {
    let filled = Filled::new("record-blob", 84);
    let links: Vec<_> =
        fs::read_dir(filled.bench.store().join("blobs")).unwrap().map(|e| e.unwrap().path()).collect();
    let [good, evil] = [&filled.good, &filled.evil].map(|image| image.layers[0].to_string());
    for link in links {
        let text = fs::read_to_string(&link).unwrap();
        fs::write(&link, text.replace(&good, "?").replace(&evil, &good).replace('?', &evil)).unwrap();
    }
    fs::remove_file(filled.image_record()).unwrap();
    filled.is_made_good(&open(&filled.bench, 42));
    String::new()
}

/// Another key: nothing that was written with the first is believed.
pub fn key() -> String {
    let filled = Filled::new("record-key", 86);
    let store = open(&filled.bench, 43);
    assert!(store.images().get(&filled.good.manifest).unwrap().is_none());
    filled.is_made_good(&store);
    String::new()
}

/// What was built first differs from what is built now: refused, with both digests.
pub fn first_digest() -> String {
    let filled = Filled::new("record-first", 88);
    let manifest = filled.good.manifest;
    let store = open(&filled.bench, 42);
    let forged =
        ImageRecord { image: filled.evil.image, image_size: filled.evil.image_size, ..filled.good.clone() };
    let error = store.commit_image(&store.hold(), &forged).unwrap_err();
    let path = filled.path("digests", format!("{}.json", manifest.hex()));
    let said = named(&error, &path, &manifest);
    let both: [VerityDigest; 2] = [filled.good.image, filled.evil.image];
    assert!(both.iter().all(|digest| said.contains(&digest.hex())), "{said}");
    filled.is_made_good(&store);
    said
}
