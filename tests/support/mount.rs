//! A store made by hand, without the store's code: objects by fs-verity digest and composefs images of them, on a
//! disk. Whatever is mounted below its directory is unmounted when it is dropped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use composefs_csi::image::composefs::write_image;
use composefs_csi::image::entry::{EntryKind, INLINE_MAX, LayerEntry, Meta};
use composefs_csi::image::tree::{Builder, Rules};
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::sys::verity::enable_verity;
use rustix::mount::UnmountFlags;

/// A directory on a real disk with `store/objects`, `state` and `targets` in it.
#[derive(Debug)]
pub struct Bench {
    pub root: PathBuf,
    pub sealed: bool,
}

/// What a test image has at a path.
pub enum Node {
    File(Vec<u8>),
    Link(&'static str),
}

impl Bench {
    /// A fresh one below `parent`.
    pub fn new(parent: &Path, name: &str, sealed: bool) -> Self {
        let root = parent.join(format!("{name}-{}", std::process::id()));
        let bench = Self { root, sealed };
        bench.clean();
        for directory in ["store/objects", "state", "targets"] {
            std::fs::create_dir_all(bench.root.join(directory)).expect("cannot prepare the test's directory");
        }
        bench
    }

    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// A new, empty target directory.
    pub fn target(&self, name: &str) -> PathBuf {
        let path = self.root.join("targets").join(name);
        std::fs::create_dir_all(&path).expect("cannot make a target");
        path
    }

    pub fn object(&self, digest: &VerityDigest) -> PathBuf {
        let hex = digest.hex();
        self.store().join("objects").join(&hex[..2]).join(&hex[2..])
    }

    /// Writes an object, sealed if the store is.
    pub fn put(&self, content: &[u8]) -> VerityDigest {
        let digest = VerityDigest::of(content);
        self.write_object(&digest, content, self.sealed);
        digest
    }

    /// Writes any bytes under any name.
    pub fn write_object(&self, digest: &VerityDigest, content: &[u8], seal: bool) {
        let path = self.object(digest);
        std::fs::create_dir_all(path.parent().expect("objects have a directory")).expect("mkdir");
        let _ = std::fs::remove_file(&path);
        let mut file = File::create(&path).expect("cannot create an object");
        file.write_all(content).expect("cannot write an object");
        file.sync_all().expect("cannot sync an object");
        drop(file);
        if seal {
            enable_verity(File::open(&path).expect("cannot open an object")).expect("cannot seal an object");
        }
    }

    /// Writes an image of these paths and its objects.
    pub fn image(&self, nodes: &[(&str, Node)]) -> VerityDigest {
        image_by(nodes, |content| self.put(content))
    }

    /// Open descriptors, and loop devices of files in here: what mounting must not leave behind.
    pub fn leftovers(&self) -> BTreeMap<&'static str, usize> {
        let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let devices = std::fs::read_dir("/sys/block").map_or(0, |entries| {
            let files = entries.flatten().map(|entry| entry.path().join("loop/backing_file"));
            files
                .filter_map(|file| std::fs::read_to_string(file).ok())
                .filter(|file| self.holds(file))
                .count()
        });
        BTreeMap::from([("descriptors", descriptors), ("loop devices", devices)])
    }

    /// Is this file of a loop device (its path from its filesystem's root) one of ours?
    fn holds(&self, backing_file: &str) -> bool {
        let name = self.root.file_name().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| backing_file.contains(&name)) || backing_file.starts_with("/objects/")
    }

    /// Unmounts everything below the directory, deepest and latest first, and removes it.
    fn clean(&self) {
        for point in mounts_below(&self.root).into_iter().rev() {
            let _ = rustix::mount::unmount(&point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.clean();
    }
}

/// The mount points at and below `directory`, in the order of the mount table.
pub fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("no mount table");
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(directory)).collect()
}

/// Bytes that differ from block to block and from `seed` to `seed`.
pub fn content(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 16);
    let mut count = 0u64;
    while bytes.len() < length {
        bytes.extend_from_slice(format!("{seed:02x} {count:012}\n").as_bytes());
        count += 1;
    }
    bytes.truncate(length);
    bytes
}

/// Writes an image of these paths, and its objects, with `put`.
pub fn image_by(nodes: &[(&str, Node)], put: impl Fn(&[u8]) -> VerityDigest) -> VerityDigest {
    let mut builder = Builder::new(Rules::Faithful);
    let mut layer = builder.layer();
    for (path, node) in nodes {
        let kind = match node {
            Node::File(content) if content.len() > INLINE_MAX => {
                EntryKind::Object(put(content), content.len() as u64)
            }
            Node::File(content) => EntryKind::Inline(content.as_slice().into()),
            Node::Link(to) => EntryKind::Symlink(to.as_bytes().into()),
        };
        let meta = Meta { mode: 0o555, ..Meta::default() };
        layer.apply(LayerEntry { path: path.as_bytes().into(), meta, kind }).expect("a sound entry");
    }
    layer.end().expect("a sound layer");
    let image = write_image(builder.finish().expect("a sound tree")).expect("a sound image");
    put(&image.bytes)
}
