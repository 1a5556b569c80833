//! Trees of every sort, written by us and by the composefs crate: the bytes must be the same. Trees here may hold what no
//! layer brings into one, since the writer takes every checked tree. `tests/tools/golden.rs` compares with `mkcomposefs`.

mod fixtures;
mod oracle;
mod random;

use super::*;
use crate::image::entry::{EntryKind, Mtime};
use crate::kind::Kind;
use fixtures::{check, compare, dir, entry, file, tree, with_xattr};

#[test]
fn an_empty_tree() {
    check(&[]);
}

#[test]
fn a_root_with_labels_which_the_stubs_have_too() {
    let root = with_xattr(dir(""), "security.selinux", b"system_u:object_r:root_t:s0\0");
    check(std::slice::from_ref(&root));
    check(&[
        with_xattr(root.clone(), "user.x", b""),
        with_xattr(file("f", 3, 0), "security.selinux", b"another\0"),
    ]);
    let same = with_xattr(file("f", 3, 0), "security.selinux", b"system_u:object_r:root_t:s0\0");
    check(&[root, same]);
}

#[test]
fn whiteout_devices_with_the_names_of_stubs() {
    let stub = |path: &str| {
        let mut stub = entry(path, EntryKind::CharDevice(0, 0));
        stub.meta.mode = 0o644;
        stub
    };
    let mut owned = stub("ab");
    owned.meta.uid = 1;
    let mut late = stub("ac");
    late.meta.mtime = Mtime { secs: 1_700_000_000, nanos: 7 };
    let mut executable = stub("ad");
    executable.meta.mode = 0o755;
    // The root has the metadata of fixtures, and so the first is a stub.
    check(&[dir(""), stub("00"), owned, late, executable, with_xattr(stub("ae"), "user.x", b""), stub("AF")]);
    let label = |entry| with_xattr(entry, "security.selinux", b"label\0");
    check(&[
        label(dir("")),
        label(stub("00")),
        stub("01"),
        with_xattr(stub("02"), "security.selinux", b"other\0"),
    ]);
    check(&[dir(""), dir("d"), stub("d/00"), stub("ff"), file("7f", 3, 0), dir("80")]);
}

#[test]
fn attributes_that_overlayfs_takes_for_itself() {
    let names = [
        "trusted.overlay.",
        "trusted.overlay.redirect",
        "trusted.overlay.metacopy",
        "trusted.overlay.opaque",
    ];
    let more =
        ["trusted.overlay.overlay.whiteout", "user.overlay.whiteout", "user.overlay.opaque", "trusted.other"];
    let mut entries = vec![dir("d"), entry("d/w", EntryKind::CharDevice(0, 0))];
    for at in 0..4 {
        let bare = file(format!("d/f{at}"), 300 + at % 2, (at % 2) as u8);
        let all = names.iter().chain(&more).enumerate();
        entries.push(all.fold(bare, |entry, (number, name)| {
            with_xattr(entry, name, if number % 2 == 0 { b"x" } else { if at == 0 { b"y" } else { b"" } })
        }));
    }
    // The image's own are added to those: some are in the inode twice.
    entries.push(with_xattr(entry("w", EntryKind::CharDevice(0, 0)), more[1], b""));
    entries.push(with_xattr(with_xattr(dir(""), more[2], b"x"), names[3], b"y"));
    check(&entries);
}

#[test]
fn names_that_begin_like_those_of_the_format() {
    let names = [
        "system.posix_acl_accessory",
        "system.posix_acl_default",
        "lustre.lov",
        "security",
        "user.",
        "x",
        "user",
    ];
    let entries: Vec<_> = (0..3)
        .map(|at| {
            names
                .iter()
                .take(5 + at)
                .fold(file(format!("f{at}"), 9, 0), |f, name| with_xattr(f, name, &[at as u8 / 2]))
        })
        .collect();
    check(&entries);
}

#[test]
fn as_many_attributes_as_an_inode_may_have() {
    for shared in [0u32, 60, 120] {
        let entries: Vec<_> = (0..3u32)
            .map(|inode| {
                (0..120u32).fold(file(format!("f{inode}"), 100, inode as u8), |f, at| {
                    let value = if at < shared { at } else { at + 1000 * inode };
                    with_xattr(f, &format!("user.a{at:03}"), &value.to_le_bytes())
                })
            })
            .collect();
        check(&entries);
    }
}

#[test]
fn attributes_as_large_as_an_inode_may_have() {
    let large = |path: &str, size: usize| with_xattr(file(path, 70, 1), "user.large", &vec![7; size]);
    for size in [3900, 3950, 4000, 4050, 4096, 8000, 32_700] {
        check(&[large("a", size), large("b", size + 1), file("c", 64, 0), large("d", size)]);
    }
}

#[test]
fn symbolic_links_of_every_length_beside_attributes_of_every_length() {
    let link = |path: String, length: usize| entry(path, EntryKind::Symlink(vec![b't'; length].into()));
    check(&(1..4096).step_by(37).map(|length| link(format!("{length:04}"), length)).collect::<Vec<_>>());
    let near = (3940..4096).map(|length| {
        let mut near = link(format!("{length}"), length);
        // Some are compact inodes.
        near.meta.mtime.nanos = (length % 2) as u32;
        if length % 3 == 0 { with_xattr(near, "user.x", &vec![b'v'; length % 90]) } else { near }
    });
    check(&near.collect::<Vec<_>>());
}

#[test]
fn directories_that_just_fill_a_block_and_half_a_block() {
    // `.` and `..` take 27 bytes, and each name its length and 12.
    for (full, half) in [(4096, false), (2048, true)] {
        for more in -2i64..=2 {
            let names = (full - 27 + more) as usize;
            let (count, last) = (names / 100 - 1, names % 100 + 100 - 12);
            let mut entries = vec![dir("d")];
            entries.extend((0..count).map(|at| file(format!("d/{at:088}"), 3, 0)));
            entries.push(file(format!("d/{}", "z".repeat(last)), 3, 0));
            let longest = usize::from(half) * 40;
            entries.extend((0..longest).map(|at| file(format!("e{at:050}"), 64, 0)));
            check(&entries);
        }
    }
}

#[test]
fn more_names_and_directories_than_a_compact_inode_can_count() {
    let mut entries = vec![dir("many"), file("first", 10, 0)];
    for at in 0..65_534u32 {
        entries.push(dir(format!("many/{at}")));
        entries.push(entry(
            format!("links/{}/{at}", at / 1000),
            EntryKind::Hardlink(b"first".as_slice().into()),
        ));
    }
    check(&entries);
    entries.push(dir("many/one-more"));
    entries.push(entry("one-more", EntryKind::Hardlink(b"first".as_slice().into())));
    entries.push(entry("last", EntryKind::Hardlink(b"first".as_slice().into())));
    check(&entries);
}

#[test]
fn a_tree_as_deep_as_paths_can_be() {
    check(&[dir(["d"; 2046].join("/")), file(format!("{}/f", ["d"; 2046].join("/")), 90, 0)]);
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let link = |to: &str| EntryKind::Hardlink(to.as_bytes().into());
    for (entries, word) in [
        (vec![entry("w", EntryKind::CharDevice(0, 0)), entry("x", link("w"))], "whiteout"),
        (vec![file("f", (1 << 43) + 1, 0)], "8 TiB"),
        (vec![entry("f", EntryKind::Inline([0; 65].into()))], "without an object"),
        (vec![entry("l", EntryKind::Symlink(vec![b'x'; 4096].into()))], "too long"),
    ] {
        let error = Image::of(tree(&entries)).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn pieces_are_bounded_and_the_first_error_ends_them() {
    let entries: Vec<_> = (0..5000).map(|at| file(format!("{at:0200}"), 1000, at as u8)).collect();
    let image = Image::of(tree(&entries)).unwrap();
    let mut sizes = Vec::new();
    let Ok(()) = image.each_piece(|piece| {
        sizes.push(piece.len());
        Ok::<_, Infallible>(())
    });
    assert_eq!(sizes.iter().sum::<usize>() as u64, image.size());
    assert!(sizes.len() > 3 && sizes.iter().all(|size| (1..=64 << 10).contains(size)), "{sizes:?}");
    let mut taken = 0;
    let ended = image.each_piece(|_| {
        taken += 1;
        if taken == 2 { Err("enough") } else { Ok(()) }
    });
    assert_eq!((ended, taken), (Err("enough"), 2));
}

#[test]
fn the_comparison_sees_a_difference() {
    let one = tree(&[file("a", 3, 0)]);
    assert!(compare(&one, &tree(&[file("a", 3, 1)])).is_err());
}
