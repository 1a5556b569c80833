//! What is written is what the program's own reader of layers finds, whatever names, links, modes and contents there are;
//! and the seal is that of the tree which it makes of them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::compress::Compression;
use super::describe::{Form, Plan};
use super::error::PushError;
use super::item::{Item, ItemKind};
use super::scan::{ScanRules, Times, scan};
use crate::image::entry::{EntryKind, Meta, Mtime};
use crate::image::tar::{Archive, Piece, TarEntry, TarKind, TarLimits};
use crate::oci::digest::Digest;

const RULES: ScanRules = ScanRules {
    times: Times::Kept(None),
    owners: true,
    follow_links: false,
    files_only: false,
    entries_max: 10_000,
};

fn plan(root: &Path, compression: Compression) -> Plan {
    let items = Arc::new(scan(root, &RULES).unwrap());
    let all = (0..items.len()).collect();
    Plan::new(&items, all, Form::Layer(compression), true, "layer 1".to_owned())
}

fn unpacked(blob: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::Chunked | Compression::Zstd => zstd::decode_all(blob).unwrap(),
        Compression::Gzip => {
            let mut tar = Vec::new();
            std::io::copy(&mut flate2::read::GzDecoder::new(blob), &mut tar).unwrap();
            tar
        }
    }
}

/// A path, its metadata, and the content of a file or what else stands there.
type Found = (Box<[u8]>, Meta, Result<Vec<u8>, EntryKind>);

/// What the reader finds.
fn read(tar: &[u8]) -> Vec<Found> {
    let mut archive = Archive::new(tar, TarLimits::default());
    let mut found = Vec::new();
    while let Some(TarEntry { path, meta, kind }) = archive.next_entry().unwrap() {
        let kind = match kind {
            TarKind::Other(kind) => Err(kind),
            TarKind::File(_) => {
                let mut content = Vec::new();
                while let Some(piece) = archive.data().unwrap() {
                    match piece {
                        Piece::Data(bytes) => content.extend_from_slice(bytes),
                        Piece::Zeros(count) => content.resize(content.len() + count as usize, 0),
                    }
                }
                Ok(content)
            }
        };
        found.push((path, meta, kind));
    }
    found
}

fn expected(item: &Item) -> Found {
    let kind = match &item.kind {
        ItemKind::Directory => Err(EntryKind::Directory),
        ItemKind::File(file) => Ok(fs::read(&file.path).unwrap()),
        ItemKind::Symlink(target) => Err(EntryKind::Symlink(target.clone())),
        ItemKind::Hardlink(first) => Err(EntryKind::Hardlink(first.clone())),
    };
    (item.path.clone(), item.meta.clone(), kind)
}

fn check(root: &Path, compression: Compression) {
    let plan = plan(root, compression);
    let mut blob = Vec::new();
    let facts = plan.write(true, &|_| (), &mut blob).unwrap();
    let tar = unpacked(&blob, compression);
    assert_eq!(facts.diff_id, Some(Digest::of(&tar)));
    let (found, wanted): (Vec<_>, Vec<_>) = (read(&tar), plan.items().map(expected).collect());
    for (found, wanted) in found.iter().zip(&wanted) {
        assert_eq!((&found.0, &found.2), (&wanted.0, &wanted.2));
        if !matches!(wanted.2, Err(EntryKind::Hardlink(_))) {
            assert_eq!(found.1, wanted.1, "{}", String::from_utf8_lossy(&wanted.0));
        }
    }
    assert_eq!(found.len(), wanted.len());
    let described = plan.describe(&|_| ()).unwrap();
    assert_eq!((described.new.digest, described.new.size), (Digest::of(&blob), blob.len() as u64));
}

fn tree(root: &Path) {
    let long = "n".repeat(250);
    fs::create_dir_all(root.join(format!("d/{long}/{long}"))).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join(format!("d/{long}/{long}/f")), b"deep").unwrap();
    fs::write(root.join("日本語"), vec![7; 513]).unwrap();
    fs::write(root.join("none"), b"").unwrap();
    fs::write(root.join("block"), vec![1; 512]).unwrap();
    fs::hard_link(root.join("block"), root.join("z")).unwrap();
    symlink(format!("{long}/{long}"), root.join("long link")).unwrap();
    symlink("../é", root.join("link")).unwrap();
    fs::set_permissions(root.join("none"), fs::Permissions::from_mode(0o4710)).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 1 << 20).unwrap();
    // Where the filesystem has them.
    let flags = rustix::fs::XattrFlags::empty();
    let _ = rustix::fs::setxattr(root.join("block"), "user.colour", b"bl\0ue=\n\xff", flags);
}

#[test]
fn our_reader_finds_what_was_there() {
    let root = tempfile::tempdir().unwrap();
    tree(root.path());
    for compression in [Compression::Chunked, Compression::Zstd, Compression::Gzip] {
        check(root.path(), compression);
    }
}

#[test]
fn names_that_are_no_text_have_no_table_of_contents() {
    use std::os::unix::ffi::OsStrExt as _;
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), b"content").unwrap();
    check(root.path(), Compression::Chunked);
    let described = plan(root.path(), Compression::Chunked).describe(&|_| ()).unwrap();
    assert!(described.facts.annotations.is_empty());
    fs::remove_file(root.path().join(std::ffi::OsStr::from_bytes(b"\xff\xfe"))).unwrap();
    fs::write(root.path().join("text"), b"content").unwrap();
    let described = plan(root.path(), Compression::Chunked).describe(&|_| ()).unwrap();
    assert_eq!(described.facts.annotations.len(), 3);
}

/// Numbers that no header holds, which no test can make files of.
#[test]
fn large_numbers_and_old_times_are_read_back() {
    for (uid, mtime) in [
        (u32::MAX - 1, Mtime { secs: -5, nanos: 250_000_000 }),
        (1 << 21, Mtime { secs: 1 << 34, nanos: 1 }),
        ((1 << 21) - 1, Mtime { secs: (1 << 33) - 1, nanos: 0 }),
    ] {
        let meta = Meta { mode: 0o7777, uid, gid: uid, mtime, xattrs: Vec::new() };
        let item = Item { path: b"d".as_slice().into(), meta: meta.clone(), kind: ItemKind::Directory };
        let mut tar = super::header::header(&item);
        tar.resize(tar.len() + 1024, 0);
        assert_eq!(read(&tar), [(item.path, meta, Err(EntryKind::Directory))]);
    }
}

#[test]
fn a_file_that_changes_is_refused() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a"), b"before").unwrap();
    let plan = plan(root.path(), Compression::Chunked);
    fs::write(root.path().join("a"), b"behind").unwrap();
    assert!(matches!(plan.describe(&|_| ()), Err(PushError::Changed { path }) if path == "a"));
    fs::remove_file(root.path().join("a")).unwrap();
    assert!(matches!(plan.describe(&|_| ()), Err(PushError::Changed { .. })));
    // While it is read: what is seen of it grows it.
    fs::write(root.path().join("a"), vec![0; 600_000]).unwrap();
    let plan = self::plan(root.path(), Compression::Gzip);
    let grow = |_: u64| {
        use std::io::Write as _;
        let file = fs::OpenOptions::new().append(true).open(root.path().join("a"));
        file.unwrap().write_all(b"more").unwrap();
    };
    assert!(matches!(plan.describe(&grow), Err(PushError::Changed { .. })));
}

#[test]
fn the_contents_for_a_seal_are_those_of_the_files() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a"), b"small").unwrap();
    fs::write(root.path().join("b"), vec![3; 5000]).unwrap();
    let contents = plan(root.path(), Compression::Chunked).describe(&|_| ()).unwrap().facts.contents;
    let digest = crate::image::verity::VerityDigest::of(&[3; 5000]);
    assert_eq!(contents, [EntryKind::Inline(b"small".as_slice().into()), EntryKind::Object(digest, 5000)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_tree_is_read_back(
        files in prop::collection::btree_map("[a-zé ]{1,40}(/[a-z=\n]{1,120}){0,2}", (0_usize..5000, 0_u32..0o10000), 1..12),
    ) {
        let root = tempfile::tempdir().unwrap();
        for (path, (size, mode)) in &files {
            let at = root.path().join(path);
            // A file may stand where a directory is wanted.
            if at.parent().is_some_and(|parent| fs::create_dir_all(parent).is_ok()) && !at.exists() {
                fs::write(&at, vec![b'x'; *size]).unwrap();
                fs::set_permissions(&at, fs::Permissions::from_mode(*mode | 0o400)).unwrap();
            }
        }
        for compression in [Compression::Chunked, Compression::Gzip] {
            check(root.path(), compression);
        }
    }
}
