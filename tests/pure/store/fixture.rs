//! A store in a temporary directory, and images made without a registry.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use composefs_csi::image::entry::{EntryKind, LayerEntry, Meta};
use composefs_csi::image::layer::RecordWriter;
use composefs_csi::image::objects::{ObjectError, Objects};
use composefs_csi::image::store::gc::Policy;
use composefs_csi::image::store::{
    CollectRequest, Collected, Held, Hold, ImageRecord, Mounted, NodeKey, Options, Store, StoreError, Swept,
};
use composefs_csi::image::tree::Rules;
use composefs_csi::image::verity::{VerityDigest, VerityHasher};
use composefs_csi::oci::choice::Choice;
use composefs_csi::oci::digest::Digest;

pub const BOOT: &str = "11111111-1111-1111-1111-111111111111";
pub const NEXT_BOOT: &str = "22222222-2222-2222-2222-222222222222";
pub const EVERYTHING: Policy = Policy::Unneeded { min_age: Duration::ZERO };

pub fn options(boot: &str) -> Options {
    // Full disks are what some tests measure, and then pull.
    let boot_id = Some(boot.to_owned());
    Options { boot_id, patience: Duration::from_secs(20), min_free: 0, ..Options::new(key()) }
}

/// The node's key, of this node in all its lives.
pub fn key() -> NodeKey {
    NodeKey::from_bytes(&[42; 32])
}

pub fn open(root: &Path) -> Store {
    Store::open(root, options(BOOT)).unwrap()
}

/// A store that nobody else uses, tidied up for certain: a program that another test starts may hold its lock for as long
/// as the machine likes.
pub fn open_alone(root: &Path) -> Store {
    Store::open(root, Options { tidy_patience: Duration::from_secs(600), ..options(BOOT) }).unwrap()
}

/// The content of file `name`: 5,000 bytes, or as many as a number at the end of the name says.
pub fn content(name: &str) -> Vec<u8> {
    let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    let size = digits.parse().unwrap_or(5000);
    name.bytes().cycle().take(size).collect()
}

/// What a layer of these files has for DiffID and for blob digest.
pub fn diff_id(files: &[&str]) -> Digest {
    Digest::of(files.join(",").as_bytes())
}

pub fn blob(files: &[&str]) -> Digest {
    Digest::of(format!("compressed {}", files.join(",")).as_bytes())
}

/// Ingests a layer as a pull does.
pub fn add_layer(store: &Store, hold: &Hold, files: &[&str]) -> Result<Digest, StoreError> {
    if let Some(known) = store.layers().of_blob(&blob(files))? {
        hold.keep_blocking(&[Held::Layer(known)])?;
        // A collection may have been faster.
        if store.layers().of_blob(&blob(files))? == Some(known) {
            return Ok(known);
        }
    }
    let objects = store.objects().under(hold)?;
    let mut writer = RecordWriter::new(store.layers().stage(hold)?);
    for name in files {
        let (digest, _) = objects.put(&content(name))?;
        let kind = EntryKind::Object(digest, content(name).len() as u64);
        writer.push(&LayerEntry { path: name.as_bytes().into(), meta: Meta::default(), kind }).unwrap();
    }
    writer.finish().unwrap().finish(&diff_id(files), &blob(files))?;
    Ok(diff_id(files))
}

/// The record of image `name`; its composefs image is a stand-in.
pub fn record(name: &str, layers: &[&[&str]]) -> ImageRecord {
    let image = content(&format!("{name}-image"));
    ImageRecord {
        manifest: manifest(name),
        choice: Choice::default(),
        image: VerityDigest::of(&image),
        image_size: image.len() as u64,
        rules: Rules::Faithful,
        builder: ImageRecord::BUILDER,
        sealed: false,
        layers: layers.iter().map(|files| diff_id(files)).collect(),
        places: Vec::new(),
        platform: None,
        names: vec![format!("registry.example/{name}:1")],
        inodes: 1,
        bytes: 1,
        created: 1,
        powers: None,
        variants: Vec::new(),
        members: Vec::new(),
    }
}

pub fn manifest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

/// Pulls image `name`, as far as the store is concerned.
pub fn pull(store: &Store, name: &str, layers: &[&[&str]]) -> Result<ImageRecord, StoreError> {
    pull_under(store, &store.hold(), name, layers)
}

pub fn pull_under(
    store: &Store,
    hold: &Hold,
    name: &str,
    layers: &[&[&str]],
) -> Result<ImageRecord, StoreError> {
    for files in layers {
        add_layer(store, hold, files)?;
    }
    let record = record(name, layers);
    store.objects().under(hold)?.put(&content(&format!("{name}-image")))?;
    store.commit_image(hold, &record)?;
    store.names().remember(hold, &record.names, &"linux/amd64".parse().unwrap(), record.manifest)?;
    Ok(record)
}

pub fn collect(store: &Store, policy: Policy, mounted: &[VerityDigest]) -> Result<Collected, StoreError> {
    let mounted = Mounted { here: mounted.iter().copied().collect(), ..Mounted::default() };
    store.collect(&CollectRequest { policy, mounted: &|| Ok(mounted.clone()), dry_run: false })
}

/// A sweep of a node on which nothing is mounted.
pub fn sweep(store: &Store, grace: Duration) -> Result<Swept, StoreError> {
    store.sweep(grace, &|| Ok(Mounted::default()))
}

/// Says that the image was last used `ago`.
pub fn used(store: &Store, manifest: &Digest, ago: Duration) {
    let path = store.root().join("images").join(format!("{}.json", manifest.hex()));
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - ago).unwrap();
}

pub fn names(store: &Store) -> Vec<Digest> {
    store.images().list().unwrap().images.iter().map(|image| image.record.manifest).collect()
}

/// Empty as long as the store is being made.
pub fn all_objects(root: &Path) -> BTreeSet<VerityDigest> {
    let mut found = BTreeSet::new();
    if !root.join("objects/ff").exists() {
        return found;
    }
    let objects = Objects::open(root, false).unwrap();
    objects
        .for_each::<ObjectError>(|digest| {
            found.insert(digest);
            Ok(())
        })
        .unwrap();
    found
}

/// Whether an object's content is what its name says.
pub fn is_whole(root: &Path, digest: &VerityDigest) -> bool {
    let objects = Objects::open(root, false).unwrap();
    let Ok(file) = objects.get(digest) else { return false };
    let mut content = Vec::new();
    std::fs::File::from(file).read_to_end(&mut content).unwrap();
    let mut hasher = VerityHasher::default();
    hasher.update(&content);
    hasher.finish() == *digest
}

/// What must be true of a store at all times: images and layers have all that they name.
pub fn check(store: &Store) {
    let listing = store.images().list().unwrap();
    assert!(listing.unreadable.is_empty(), "{:?}", listing.unreadable);
    for image in listing.images {
        for own in image.record.images() {
            assert!(is_whole(store.root(), &own.image), "composefs image of {:?}", image.record.names);
        }
        for layer in &image.record.layers {
            check_layer(store, layer);
        }
    }
    for directory in [format!("staging/{BOOT}"), format!("staging/{NEXT_BOOT}"), "layers".to_owned()] {
        let Ok(entries) = std::fs::read_dir(store.root().join(directory)) else { continue };
        for entry in entries {
            let hex = entry.unwrap().file_name().into_string().unwrap();
            // Put aside, and nobody's any more.
            if hex.ends_with(".forged") {
                continue;
            }
            check_layer(store, &format!("sha256:{hex}").parse().unwrap());
        }
    }
}

fn check_layer(store: &Store, diff_id: &Digest) {
    for entry in store.layers().entries(diff_id).unwrap() {
        let EntryKind::Object(digest, _) = entry.unwrap().kind else { continue };
        assert!(is_whole(store.root(), &digest), "object {digest} of layer {diff_id}");
    }
}

/// The objects that the images in the store need, and no more.
pub fn needed(store: &Store) -> BTreeSet<VerityDigest> {
    let images = store.images().list().unwrap().images;
    images.iter().flat_map(|image| objects_of(store, &image.record)).collect()
}

pub fn objects_of(store: &Store, record: &ImageRecord) -> BTreeSet<VerityDigest> {
    let mut needed: BTreeSet<_> = record.images().map(|own| own.image).collect();
    for layer in &record.layers {
        needed.extend(store.layers().entries(layer).unwrap().filter_map(|entry| match entry.unwrap().kind {
            EntryKind::Object(digest, _) => Some(digest),
            _ => None,
        }));
    }
    needed
}
