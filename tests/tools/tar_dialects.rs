//! The tar reader against archives of real programs: what we read must be what `tar -x` makes of the same
//! archive, to the last bit of metadata. Needs root (owners, devices).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::Command;

use composefs_csi::image::entry::EntryKind;
use composefs_csi::image::tar::{Archive, Piece, TarKind, TarLimits};

use crate::support::dialects::{Features, Node, Tree, build, extracted, file_kind};
use crate::support::tools::installed;

fn run(command: &mut Command) {
    let output = command.output().expect("cannot start it");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
}

/// What we read in an archive.
fn ours(tar: &Path) -> Tree {
    let mut archive = Archive::new(BufReader::new(File::open(tar).unwrap()), TarLimits::default());
    let mut tree = Tree::new();
    let mut links: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    while let Some(entry) = archive.next_entry().unwrap() {
        let kind = match entry.kind {
            TarKind::File(size) => {
                let mut content = Vec::new();
                while let Some(piece) = archive.data().unwrap() {
                    match piece {
                        Piece::Data(bytes) => content.extend_from_slice(bytes),
                        Piece::Zeros(count) => content.resize(content.len() + count as usize, 0),
                    }
                }
                assert_eq!(content.len() as u64, size);
                file_kind(&content)
            }
            TarKind::Other(EntryKind::Hardlink(target)) => {
                links.insert(entry.path.to_vec(), target.to_vec());
                continue;
            }
            TarKind::Other(EntryKind::Directory) => "directory".into(),
            TarKind::Other(EntryKind::Symlink(target)) => format!("symlink to {}", target.escape_ascii()),
            TarKind::Other(EntryKind::CharDevice(major, minor)) => format!("char {major}:{minor}"),
            TarKind::Other(EntryKind::BlockDevice(major, minor)) => format!("block {major}:{minor}"),
            TarKind::Other(EntryKind::Fifo) => "fifo".into(),
            TarKind::Other(other) => panic!("{other:?}"),
        };
        let meta = entry.meta;
        let node = Node {
            kind,
            mode: meta.mode,
            owner: (meta.uid, meta.gid),
            mtime: (meta.mtime.secs, meta.mtime.nanos),
            xattrs: meta.xattrs.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            same_as: None,
        };
        assert!(tree.insert(entry.path.to_vec(), node).is_none(), "an entry twice");
    }
    // All names of an inode are one node; its first name is their common mark.
    let mut names: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for (name, target) in &links {
        tree.insert(name.clone(), tree[target].clone());
        names.entry(target.clone()).or_insert_with(|| vec![target.clone()]).push(name.clone());
    }
    for group in names.into_values() {
        let first = group.iter().min().unwrap();
        group.iter().for_each(|name| tree.get_mut(name).unwrap().same_as = Some(first.clone()));
    }
    tree
}

/// Archives the tree with `archive` (given source and archive), extracts with GNU tar, compares.
#[track_caller]
fn check(features: Features, archive: impl Fn(&Path, &Path)) {
    let extract = |tar: &Path, target: &Path| {
        run(Command::new(installed("tar"))
            .args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"])
            .args([tar, Path::new("-C"), target]));
    };
    check_with(features, archive, extract);
}

#[track_caller]
fn check_with(features: Features, archive: impl Fn(&Path, &Path), extract: impl Fn(&Path, &Path)) {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (source, tar, target) =
        (dir.path().join("source"), dir.path().join("a.tar"), dir.path().join("target"));
    std::fs::create_dir(&source).unwrap();
    std::fs::create_dir(&target).unwrap();
    build(&source, features);
    archive(&source, &tar);
    extract(&tar, &target);
    let (ours, mut theirs) = (ours(&tar), extracted(&target));
    if !ours.contains_key(&b""[..]) {
        theirs.remove(&b""[..]);
    }
    let names = |tree: &Tree| tree.keys().map(|name| name.escape_ascii().to_string()).collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs));
    for (path, node) in &ours {
        assert_eq!(*node, theirs[path], "{}", path.escape_ascii());
    }
    assert!(ours.len() > 20);
    // The comparison means nothing if the archive lost what it was to carry.
    assert_eq!(ours.values().any(|node| node.mtime.0 < 0), features.before_1970);
    assert_eq!(ours.values().any(|node| node.mtime.1 != 0), features.fractions);
    assert_eq!(ours.values().any(|node| !node.xattrs.is_empty()), features.xattrs);
    assert_eq!(ours.values().any(|node| node.owner.0 > 1 << 21), features.large_ids);
    assert_eq!(ours.values().any(|node| node.kind.starts_with("block")), features.devices);
    assert_eq!(ours.values().filter(|node| node.same_as.as_deref() == Some(b"another-hard")).count(), 3);
}

fn gnu_tar(features: Features, options: &'static [&'static str]) {
    check(features, |source, tar| {
        let mut command = Command::new(installed("tar"));
        run(command.args(options).arg("-cf").args([tar, Path::new("-C"), source, Path::new(".")]));
    });
}

#[test]
fn gnu_tar_v7() {
    gnu_tar(Features::V7, &["--format=v7"]);
}

#[test]
fn gnu_tar_ustar() {
    gnu_tar(Features::USTAR, &["--format=ustar"]);
}

#[test]
fn gnu_tar_gnu_and_old_gnu() {
    gnu_tar(Features::GNU, &["--format=gnu"]);
    gnu_tar(Features::GNU, &["--format=oldgnu"]);
}

#[test]
fn gnu_tar_pax_with_xattrs() {
    gnu_tar(Features::PAX, &["--format=pax", "--xattrs", "--xattrs-include=*"]);
}

#[test]
fn gnu_tar_sparse_in_all_formats() {
    gnu_tar(Features::GNU, &["--format=gnu", "--sparse"]);
    let pax = Features { xattrs: false, ..Features::PAX };
    gnu_tar(pax, &["--format=pax", "--sparse", "--sparse-version=0.0"]);
    gnu_tar(pax, &["--format=pax", "--sparse", "--sparse-version=0.1"]);
    gnu_tar(pax, &["--format=pax", "--sparse", "--sparse-version=1.0"]);
}

fn bsdtar(features: Features, format: &'static str) {
    let archive = |source: &Path, tar: &Path| {
        let mut command = Command::new(installed("bsdtar"));
        // Without the root: it does not restore the root's time.
        let names = std::fs::read_dir(source).unwrap().map(|entry| entry.unwrap().file_name());
        command.arg("--format").arg(format).arg("-cf").args([tar, Path::new("-C"), source]);
        run(command.args(names));
    };
    // It puts hardlinks last, which makes GNU tar forget the times of their directories.
    let extract = |tar: &Path, target: &Path| {
        let mut command = Command::new(installed("bsdtar"));
        run(command.args(["--numeric-owner", "-xpf"]).args([tar, Path::new("-C"), target]));
    };
    check_with(features, archive, extract);
}

#[test]
fn libarchive_ustar_gnu_and_pax() {
    bsdtar(Features::USTAR, "ustar");
    bsdtar(Features { before_1970: false, ..Features::GNU }, "gnutar");
    // Fractions of times before 1970 it writes, and reads back, counting away from 1970; POSIX does not.
    bsdtar(Features { before_1970: false, ..Features::PAX }, "pax");
}

fn python(features: Features, format: &'static str) {
    const SCRIPT: &str = "import sys, tarfile
with tarfile.open(sys.argv[2], 'w', format=getattr(tarfile, sys.argv[3] + '_FORMAT')) as archive:
    archive.add(sys.argv[1], '.')";
    check(features, |source, tar| {
        run(Command::new(installed("python3")).args(["-c", SCRIPT]).args([source, tar]).arg(format));
    });
}

#[test]
fn python_ustar_gnu_and_pax() {
    python(Features::USTAR, "USTAR");
    python(Features::GNU, "GNU");
    python(Features { xattrs: false, ..Features::PAX }, "PAX");
}
