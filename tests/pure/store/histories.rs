//! Random histories of a store: pulls, mounts, volumes, pins, repairs, new keys, other builders, crashes, collections.
//! Some pulls are slow: collections and everything else happen between their steps, in a process of their own as far as
//! the store can tell. Whatever has happened, no collection changes a byte that a mount shows or a pull relies on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use composefs_csi::image::composefs;
use composefs_csi::image::store::gc::{Amount, Policy};
use composefs_csi::image::store::{
    Hold, ImageRecord, Measure, NodeKey, Options, PinNote, Space, Store, StoreError, Variant,
};
use composefs_csi::image::tree::{Builder, Reduction, Rules};
use composefs_csi::image::verity::VerityDigest;
use proptest::prelude::*;

use super::fixture::*;

/// What the images are made of. They share layers and files.
const IMAGES: [(&str, &[&[&str]]); 4] = [
    ("a", &[&["common"], &["a"]]),
    ("b", &[&["common"], &["b", "shared"]]),
    ("c", &[&["shared", "c"]]),
    ("d", &[&["d"], &["common"]]),
];

#[derive(Debug, Clone, Copy)]
enum Act {
    Pull(usize),
    /// Mounts an image that the store has.
    Mount(usize),
    /// Mounts another form of it, which is built if need be.
    MountVariant(usize),
    Unmount(usize),
    /// A volume record of an image that the store has.
    Publish(usize),
    Unpublish(usize),
    Pin(usize),
    Unpin(usize),
    /// Damages an object of the image and repairs the store: its records go.
    Repair(usize, usize),
    /// Removes the image's record as a power cut may.
    Tear(usize),
    /// Another release builds another composefs image of the same layers.
    Rebuild(usize),
    /// The node's key is replaced: no record is believed any more.
    NewKey,
    /// The process is killed, and starts again. Slow pulls are of other processes.
    Restart,
    /// A slow pull begins.
    Begin(usize),
    /// One of the slow pulls takes its next step: a layer, the image, the mount.
    Advance(usize),
    /// One of them fails or is killed.
    Abort(usize),
    Collect,
    CollectByWatermark,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let image = 0..IMAGES.len();
    let act = prop_oneof![
        4 => image.clone().prop_map(Act::Pull),
        4 => image.clone().prop_map(Act::Mount),
        3 => image.clone().prop_map(Act::MountVariant),
        1 => image.clone().prop_map(Act::Unmount),
        2 => image.clone().prop_map(Act::Publish),
        1 => image.clone().prop_map(Act::Unpublish),
        1 => image.clone().prop_map(Act::Pin),
        1 => image.clone().prop_map(Act::Unpin),
        2 => (image.clone(), 0..4usize).prop_map(|(image, object)| Act::Repair(image, object)),
        1 => image.clone().prop_map(Act::Tear),
        1 => image.clone().prop_map(Act::Rebuild),
        3 => image.clone().prop_map(Act::Begin),
        8 => image.clone().prop_map(Act::Advance),
        1 => image.prop_map(Act::Abort),
        1 => Just(Act::NewKey),
        1 => Just(Act::Restart),
        2 => Just(Act::Collect),
        3 => Just(Act::CollectByWatermark),
    ];
    proptest::collection::vec(act, 1..32)
}

/// A node: a store whose filesystem is always fuller than the mark, and what is mounted.
struct Node {
    directory: tempfile::TempDir,
    key: u8,
    store: Store,
    /// The composefs image of each mounted image.
    mounted: BTreeMap<usize, VerityDigest>,
    slow: Vec<SlowPull>,
}

/// A pull between two of its steps.
struct SlowPull {
    image: usize,
    store: Store,
    hold: Hold,
    layers_done: usize,
    record: Option<ImageRecord>,
}

impl SlowPull {
    fn new(root: &Path, key: u8, image: usize) -> Self {
        let store = opened(root, key);
        Self { image, hold: store.hold(), store, layers_done: 0, record: None }
    }

    /// Takes the next step; true once there is an image to mount.
    fn advance(&mut self, builder: u32) -> bool {
        let (name, layers) = IMAGES[self.image];
        if let Some(files) = layers.get(self.layers_done) {
            add_layer(&self.store, &self.hold, files).unwrap();
            self.layers_done += 1;
        } else if self.record.is_none() {
            let rules = if builder == ImageRecord::BUILDER { Rules::Faithful } else { Rules::Verbatim };
            let (image, image_size) = self.build(builder, rules);
            let record = ImageRecord { image, image_size, builder, rules, ..record(name, layers) };
            self.store.commit_image(&self.hold, &record).unwrap();
            self.record = Some(record);
        } else {
            return true;
        }
        false
    }

    /// Builds a real composefs image, which has other bytes by another builder; returns it and its size.
    fn build(&self, builder: u32, rules: Rules) -> (VerityDigest, u64) {
        let mut tree = Builder::new(rules);
        for files in IMAGES[self.image].1 {
            let mut layer = tree.layer();
            for entry in self.store.layers().entries(&diff_id(files)).unwrap() {
                let mut entry = entry.unwrap();
                entry.meta.mode = if builder == ImageRecord::BUILDER { 0o755 } else { 0o600 };
                layer.apply(entry).unwrap();
            }
            layer.end().unwrap();
        }
        let image = composefs::write_image(tree.finish().unwrap()).unwrap();
        let (digest, _) = self.store.objects().under(&self.hold).unwrap().put(&image.bytes).unwrap();
        (digest, image.bytes.len() as u64)
    }

    /// What it has found or made.
    fn relies_on(&self) -> BTreeSet<VerityDigest> {
        let files = IMAGES[self.image].1[..self.layers_done].concat();
        let objects = files.into_iter().map(|name| VerityDigest::of(&content(name)));
        objects.chain(self.record.as_ref().map(|record| record.image)).collect()
    }
}

fn opened(root: &Path, key: u8) -> Store {
    opened_with(root, key, Duration::from_secs(20))
}

fn opened_with(root: &Path, key: u8, patience: Duration) -> Store {
    let full = |_: &Path| {
        let total = Amount { bytes: 100 << 20, inodes: 0 };
        Ok(Space { total, used: Amount { bytes: 99 << 20, inodes: 0 } })
    };
    let options = Options {
        boot_id: Some(BOOT.to_owned()),
        patience,
        measure: Measure::new(full),
        min_free: 0,
        ..Options::new(NodeKey::from_bytes(&[key; 32]))
    };
    Store::open(root, options).unwrap()
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = opened(directory.path(), 1);
        Self { directory, key: 1, store, mounted: BTreeMap::new(), slow: Vec::new() }
    }

    fn restart(&mut self, key: u8) {
        self.key = key;
        self.store = opened(self.directory.path(), key);
    }

    fn pull(&self, image: usize, builder: u32) {
        let mut pull = SlowPull::new(self.directory.path(), self.key, image);
        while !pull.advance(builder) {}
    }

    /// The store for what may find things held, which only another act can change.
    fn impatient(&self) -> Store {
        opened_with(self.directory.path(), self.key, Duration::ZERO)
    }

    /// The variant of a stored image; built once.
    fn variant(&self, record: ImageRecord, image: usize) -> VerityDigest {
        let rules = Rules::Reduced { to: Reduction::NotExecutable, special_files: false };
        if let Some(found) = record.image_by(rules) {
            return found;
        }
        let mut pull = SlowPull::new(self.directory.path(), self.key, image);
        for _ in IMAGES[image].1 {
            pull.advance(ImageRecord::BUILDER);
        }
        let builder = ImageRecord::BUILDER;
        let (digest, image_size) = pull.build(builder, rules);
        assert_ne!(digest, record.image);
        let variant = Variant { rules, builder, image: digest, image_size };
        self.store.commit_variant(&pull.hold, &record.manifest, variant).unwrap();
        digest
    }

    fn record(&self, image: usize) -> Option<ImageRecord> {
        self.store.images().get_or_set_aside(&manifest(IMAGES[image].0)).unwrap()
    }

    fn act(&mut self, act: Act) {
        let volume = |image: usize| self.store.volumes().directory().join(format!("{image}.json"));
        match act {
            Act::Pull(image) if self.record(image).is_none() => self.pull(image, ImageRecord::BUILDER),
            Act::Rebuild(image) => self.pull(image, 1),
            Act::Mount(image) => {
                if let Some(record) = self.record(image) {
                    self.mounted.insert(image, record.image);
                }
            }
            Act::MountVariant(image) => {
                if let Some(record) = self.record(image) {
                    let variant = self.variant(record, image);
                    self.mounted.insert(image, variant);
                }
            }
            Act::Unmount(image) => drop(self.mounted.remove(&image)),
            Act::Publish(image) => {
                if let Some(record) = self.record(image) {
                    let text = format!(
                        r#"{{"format":1,"volume":"v","image":"{}","composefs":"{}","boot":"{BOOT}"}}"#,
                        record.manifest, record.image
                    );
                    std::fs::write(volume(image), text).unwrap();
                }
            }
            Act::Unpublish(image) => drop(std::fs::remove_file(volume(image))),
            Act::Pin(image) if self.record(image).is_some() => {
                self.store.pin(&manifest(IMAGES[image].0), &PinNote::default()).unwrap();
            }
            Act::Unpin(image) => drop(self.store.pins().remove(&manifest(IMAGES[image].0)).unwrap()),
            Act::Repair(image, object) => {
                let files: Vec<_> = IMAGES[image].1.concat();
                let digest = VerityDigest::of(&content(files[object % files.len()]));
                match self.impatient().remove_damaged(&BTreeSet::from([digest])) {
                    Err(StoreError::Busy { .. }) => {
                        assert!(self.slow.iter().any(|pull| pull.relies_on().contains(&digest)));
                    }
                    repaired => drop(repaired.unwrap()),
                }
            }
            Act::Tear(image) => {
                let name = format!("{}.json", manifest(IMAGES[image].0).hex());
                let _ = std::fs::remove_file(self.directory.path().join("images").join(name));
            }
            Act::NewKey => {
                self.slow.clear();
                self.restart(self.key + 1);
            }
            Act::Begin(image) => self.slow.push(SlowPull::new(self.directory.path(), self.key, image)),
            Act::Advance(slot) if slot < self.slow.len() => {
                if self.slow[slot].advance(ImageRecord::BUILDER) {
                    let mut done = self.slow.remove(slot);
                    self.mounted.extend(done.record.take().map(|record| (done.image, record.image)));
                }
            }
            Act::Abort(slot) if slot < self.slow.len() => drop(self.slow.remove(slot)),
            Act::Restart => self.restart(self.key),
            Act::Collect => self.collect(EVERYTHING),
            Act::CollectByWatermark => {
                self.collect(Policy::Watermarks {
                    high: 85,
                    low: 80,
                    min_age: Duration::ZERO,
                    recent: Duration::ZERO,
                    idle_bytes: None,
                });
            }
            Act::Pull(_) | Act::Pin(_) | Act::Advance(_) | Act::Abort(_) => {}
        }
    }

    /// What mounts show: the images themselves, and every object that they name and that is there.
    fn shown(&self) -> BTreeSet<VerityDigest> {
        let path = |digest: &VerityDigest| self.store.objects().path(digest);
        let mut shown = BTreeSet::new();
        for image in self.mounted.values() {
            shown.insert(*image);
            shown.extend(composefs::list_objects(&std::fs::read(path(image)).unwrap()).unwrap());
        }
        shown.retain(|digest| path(digest).exists());
        shown
    }

    fn collect(&self, policy: Policy) {
        let before = self.shown();
        let held: BTreeSet<_> = self.slow.iter().flat_map(SlowPull::relies_on).collect();
        let mounted: Vec<_> = self.mounted.values().copied().collect();
        let collected = collect(&self.store, policy, &mounted);
        let after = self.shown();
        assert_eq!(before, after, "a collection took what a mount shows: {collected:?}");
        for digest in after.union(&held) {
            assert!(is_whole(self.directory.path(), digest), "object {digest} was changed");
        }
        collected.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn no_collection_changes_a_byte_that_a_mount_shows(acts in acts()) {
        let mut node = Node::new();
        for act in acts {
            node.act(act);
        }
        // However many collections came between its steps, every pull ends with a whole image.
        while let Some(mut pull) = node.slow.pop() {
            while !pull.advance(ImageRecord::BUILDER) {}
            for object in objects_of(&pull.store, pull.record.as_ref().unwrap()) {
                prop_assert!(is_whole(pull.store.root(), &object), "object {object}");
            }
        }
    }
}
