//! A source tree with every kind of file, and what an extraction by a real `tar` made of it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use composefs_csi::oci::digest::Digest;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

/// What the dialect under test can carry; the tree is built accordingly.
#[derive(Debug, Clone, Copy, Default)]
pub struct Features {
    pub long_names: bool,
    pub devices: bool,
    pub large_ids: bool,
    pub fractions: bool,
    pub before_1970: bool,
    pub xattrs: bool,
}

impl Features {
    pub const V7: Self = Self {
        long_names: false,
        devices: false,
        large_ids: false,
        fractions: false,
        before_1970: false,
        xattrs: false,
    };
    pub const USTAR: Self = Self { devices: true, ..Self::V7 };
    pub const GNU: Self = Self { long_names: true, large_ids: true, before_1970: true, ..Self::USTAR };
    pub const PAX: Self = Self { fractions: true, xattrs: true, ..Self::GNU };
}

/// One inode as a reader of the filesystem or of the archive sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub kind: String,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, u32),
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first of its names, if it has several.
    pub same_as: Option<Vec<u8>>,
}

pub type Tree = BTreeMap<Vec<u8>, Node>;

pub fn file_kind(content: &[u8]) -> String {
    format!("file of {} bytes, {}", content.len(), Digest::of(content).short())
}

/// Makes the tree below `root`. Needs root for owners and devices.
pub fn build(root: &Path, features: Features) {
    let dir = |name: &str, mode| {
        fs::create_dir_all(root.join(name)).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let file = |name: &str, content: &[u8], mode| {
        fs::write(root.join(name), content).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let bytes =
        |size: u32| (0..size).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>();
    for (name, mode) in [("etc", 0o755), ("tmp", 0o1777), ("shared", 0o2775), ("empty", 0o700)] {
        dir(name, mode);
    }
    for size in [0, 1, 64, 65, 511, 512, 513, 4096, 10_000, 2_500_000] {
        file(&format!("etc/size-{size}"), &bytes(size), 0o644);
    }
    file("etc/setuid", b"#!/bin/true\n", 0o4755);
    file("shared/caf\u{e9} \"quoted\" \\ back", b"name", 0o600);
    file(&format!("etc/{}", "n".repeat(90)), b"long", 0o444);
    std::os::unix::fs::symlink("../etc/size-1", root.join("shared/link")).unwrap();
    std::os::unix::fs::symlink("/absolute/../target", root.join("dangling")).unwrap();
    fs::hard_link(root.join("etc/size-513"), root.join("shared/hard")).unwrap();
    fs::hard_link(root.join("etc/size-513"), root.join("another-hard")).unwrap();
    let sparse = fs::File::create(root.join("etc/sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    for at in 0..40 {
        sparse.write_all_at(&[at + 1; 4096], u64::from(at) * 65_536 + 8192).unwrap();
    }
    if features.long_names {
        for length in [99, 100, 101, 200, 255] {
            file(&format!("etc/{}", "x".repeat(length)), b"long name", 0o644);
        }
        let deep = format!("deep/{0}/{0}", "d".repeat(200));
        dir(&deep, 0o755);
        file(&format!("{deep}/file"), b"deep", 0o644);
        std::os::unix::fs::symlink("t".repeat(300), root.join("long-target")).unwrap();
        fs::hard_link(root.join(format!("{deep}/file")), root.join("hard-to-deep")).unwrap();
    }
    if features.devices {
        for (name, kind, device) in [
            ("fifo", FileType::Fifo, (0, 0)),
            ("char", FileType::CharacterDevice, (5, 1)),
            ("block", FileType::BlockDevice, (259, 300)),
        ] {
            let device = rustix::fs::makedev(device.0, device.1);
            rustix::fs::mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
        }
    }
    if features.xattrs {
        for (name, value) in
            [("user.text", &b"value"[..]), ("user.binary", b"\0=\n\xff"), ("user.empty", b"")]
        {
            rustix::fs::setxattr(root.join("etc/size-1"), name, value, XattrFlags::empty()).unwrap();
        }
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        rustix::fs::setxattr(
            root.join("etc/size-65"),
            "security.capability",
            &capability,
            XattrFlags::empty(),
        )
        .unwrap();
        rustix::fs::setxattr(root.join("shared"), "user.dir", b"d", XattrFlags::empty()).unwrap();
    }
    owners_and_times(root, features);
}

fn owners_and_times(root: &Path, features: Features) {
    let mut paths = Vec::new();
    walk(root, root, &mut |path, _| paths.push(root.join(OsStr::from_bytes(path))));
    // Children first: changing them does not touch their directory's time, but making them did.
    for (index, path) in paths.iter().rev().enumerate() {
        let id = if features.large_ids && index % 3 == 0 { 3_000_000_000 } else { 1000 + index as u32 };
        // chown clears set-user-ID and capabilities: spare the files that have them.
        if !path.ends_with("etc/setuid") && !path.ends_with("etc/size-65") {
            std::os::unix::fs::lchown(path, Some(id), Some(id / 2)).unwrap();
            let mode = fs::symlink_metadata(path).unwrap().mode();
            assert_eq!(mode & 0o6000 != 0, path.ends_with("shared") && mode & 0o2000 != 0);
        }
        let secs = if features.before_1970 && index % 4 == 0 { -1000 } else { 1_600_000_000 } + index as i64;
        let nsecs = if features.fractions { 123_456_789 } else { 0 };
        let time = Timespec { tv_sec: secs, tv_nsec: nsecs };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// Calls `visit` for `dir` (as the empty path) and everything below it.
fn walk(root: &Path, dir: &Path, visit: &mut impl FnMut(&[u8], &fs::Metadata)) {
    let relative = dir.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
    visit(&relative, &fs::symlink_metadata(dir).unwrap());
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            walk(root, &path, visit);
        } else {
            visit(path.strip_prefix(root).unwrap().as_os_str().as_bytes(), &metadata);
        }
    }
}

/// What the filesystem has below `root`.
pub fn extracted(root: &Path) -> Tree {
    let mut names: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut found = Vec::new();
    walk(root, root, &mut |path, metadata| found.push((path.to_vec(), metadata.clone())));
    for (path, metadata) in &found {
        let first = names.entry(metadata.ino()).or_insert_with(|| path.clone());
        *first = first.clone().min(path.clone());
    }
    let node = |path: &[u8], metadata: &fs::Metadata| {
        let full = root.join(OsStr::from_bytes(path));
        let (kind, device) = (metadata.file_type(), metadata.rdev());
        let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        Node {
            kind: if kind.is_dir() {
                "directory".into()
            } else if kind.is_symlink() {
                format!("symlink to {}", fs::read_link(&full).unwrap().as_os_str().as_bytes().escape_ascii())
            } else if kind.is_char_device() {
                format!("char {device}")
            } else if kind.is_block_device() {
                format!("block {device}")
            } else if kind.is_fifo() {
                "fifo".into()
            } else {
                file_kind(&fs::read(&full).unwrap())
            },
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            mtime: (metadata.mtime(), metadata.mtime_nsec() as u32),
            xattrs: if kind.is_symlink() { BTreeMap::new() } else { xattrs(&full) },
            same_as: (!kind.is_dir() && metadata.nlink() > 1).then(|| names[&metadata.ino()].clone()),
        }
    };
    found.iter().map(|(path, metadata)| (path.clone(), node(path, metadata))).collect()
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect()
}
