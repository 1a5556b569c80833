//! A store made by hand, without the store's code: objects by fs-verity digest and composefs images of them, on a
//! disk. Whatever is mounted below its directory is unmounted when it is dropped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use composefs::erofs::format::FormatVersion;
use composefs::erofs::writer::{ValidatedFileSystem, mkfs_erofs_versioned};
use composefs::fsverity::{FsVerityHashValue, Sha256HashValue, compute_verity};
use composefs::generic_tree::Stat;
use composefs::tree::{Directory, FileSystem, Inode, LeafContent, RegularFile};
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::sys::verity::enable_verity;
use rustix::mount::UnmountFlags;

/// Longer files than this are objects.
const INLINE: usize = 64;

/// A directory on a real disk with `store/objects`, `state` and `targets` in it.
#[derive(Debug)]
pub struct Bench {
    pub root: PathBuf,
    sealed: bool,
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
        let digest = digest_of(content);
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
        let stat = |mode| Stat { st_mode: mode, ..Stat::default() };
        let mut tree = FileSystem::<Sha256HashValue>::new(stat(0o755));
        for (path, node) in nodes {
            let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
            let leaf = match node {
                Node::File(content) if content.len() > INLINE => {
                    self.put(content);
                    let external = RegularFile::External(compute_verity(content), content.len() as u64);
                    tree.push_leaf(stat(0o555), LeafContent::Regular(external))
                }
                Node::File(content) => {
                    let inline = RegularFile::Inline(content.clone().into_boxed_slice());
                    tree.push_leaf(stat(0o555), LeafContent::Regular(inline))
                }
                Node::Link(to) => tree.push_leaf(
                    stat(0o777),
                    LeafContent::Symlink(AsRef::<std::ffi::OsStr>::as_ref(to).into()),
                ),
            };
            let mut directory = &mut tree.root;
            for parent in parents.split('/').filter(|name| !name.is_empty()) {
                if directory.lookup(parent.as_ref()).is_none() {
                    let new = Inode::Directory(Box::new(Directory::new(stat(0o755))));
                    directory.insert(parent.as_ref(), new);
                }
                directory = directory.get_directory_mut(parent.as_ref()).expect("a parent is a directory");
            }
            directory.insert(name.as_ref(), Inode::leaf(leaf));
        }
        let tree = ValidatedFileSystem::new(tree).expect("the test's tree is sound");
        self.put(&mkfs_erofs_versioned(&tree, FormatVersion::V1))
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

/// The fs-verity digest of `content`.
pub fn digest_of(content: &[u8]) -> VerityDigest {
    VerityDigest::from_hex(&compute_verity::<Sha256HashValue>(content).to_hex()).expect("64 digits")
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

/// Open descriptors, attached loop devices: what a mount must not leave behind.
pub fn leftovers() -> BTreeMap<&'static str, usize> {
    let count = |directory: &str| std::fs::read_dir(directory).map_or(0, Iterator::count);
    let loops = std::fs::read_dir("/sys/block").map_or(0, |entries| {
        entries.flatten().filter(|entry| entry.path().join("loop/backing_file").exists()).count()
    });
    BTreeMap::from([("descriptors", count("/proc/self/fd")), ("loop devices", loops)])
}
