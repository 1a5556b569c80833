//! The image of a tree is, byte for byte, what the composefs project's own `mkcomposefs` writes for
//! it, and its digest the one that `mkcomposefs` prints. Needs `scripts/debian-tools.sh mkcomposefs`.

use composefs_csi::image::entry::{EntryKind, LayerEntry, Mtime};

use crate::support::golden::{check, compare, dir, entry, file, with_xattr};

#[test]
fn an_empty_tree() {
    check(&[]);
}

#[test]
fn every_type_of_file() {
    check(&[
        dir("dir"),
        file("dir/inline", 5, 1),
        file("dir/object", 5000, 1),
        entry("dir/symlink", EntryKind::Symlink(b"../elsewhere".as_slice().into())),
        entry("dir/char", EntryKind::CharDevice(1, 3)),
        entry("dir/block", EntryKind::BlockDevice(259, 70_000)),
        entry("dir/fifo", EntryKind::Fifo),
        entry("dir/hardlink", EntryKind::Hardlink(b"dir/object".as_slice().into())),
    ]);
}

#[test]
fn sizes_around_every_limit() {
    let sizes = [0, 1, 2, 63, 64, 65, 100, 4095, 4096, 4097, 1 << 20, u64::from(u32::MAX), 1 << 32];
    let more = [(1 << 32) + 1, 1 << 40, (1 << 43) - 1, 1 << 43];
    let file = |(at, size): (usize, &u64)| file(format!("f{at:02}"), *size, at as u8);
    check(&sizes.iter().chain(&more).enumerate().map(file).collect::<Vec<_>>());
}

#[test]
fn equal_content_under_several_inodes_and_hard_links() {
    let mut entries = vec![dir("a"), dir("a/deep"), dir("b"), file("z", 7, 3)];
    for at in 0..20 {
        entries.push(file(format!("b/same{at}"), 9000, 1));
        entries.push(file(format!("a/small{at}"), 12, 1));
    }
    for (path, target) in [
        // The first name in order of paths is deeper than a later one.
        ("a/deep/link", "z"),
        ("a/link", "z"),
        ("b/same-link", "b/same3"),
        ("b/aaa", "b/same4"),
        ("a/deep/over-there", "b/same5"),
    ] {
        entries.push(entry(path, EntryKind::Hardlink(target.as_bytes().into())));
    }
    check(&entries);
}

#[test]
fn an_inode_with_more_links_than_a_compact_one_can_count() {
    let mut entries = vec![file("first", 10, 0)];
    for at in 0..65_536 {
        entries
            .push(entry(format!("d{:02}/l{at}", at / 1000), EntryKind::Hardlink(b"first".as_slice().into())));
    }
    check(&entries);
}

#[test]
fn owners_beyond_16_bits_and_every_mode() {
    let mut entries = vec![dir("d")];
    for (at, (uid, gid)) in
        [(0, 0), (65_535, 65_535), (65_536, 0), (0, 65_536), (u32::MAX, u32::MAX - 1)].into_iter().enumerate()
    {
        let mut owned = file(format!("d/{at}"), 10, 0);
        (owned.meta.uid, owned.meta.gid) = (uid, gid);
        entries.push(owned);
    }
    for mode in [0, 0o7777, 0o4755, 0o2755, 0o1777, 0o1, 0o400] {
        let (mut with_mode, mut dir) = (file(format!("d/m{mode:o}"), 3, 0), dir(format!("d/d{mode:o}")));
        (with_mode.meta.mode, dir.meta.mode) = (mode, mode);
        entries.extend([with_mode, dir]);
    }
    check(&entries);
}

#[test]
fn times_with_nanoseconds_and_without() {
    let times = [(0, 0), (0, 1), (1, 0), (1_700_000_000, 999_999_999), (1_700_000_000, 5), (1 << 40, 123)];
    let mut entries = Vec::new();
    for (at, (secs, nanos)) in times.into_iter().enumerate() {
        let mut timed = file(at.to_string(), 80, 0);
        timed.meta.mtime = Mtime { secs, nanos };
        entries.push(timed);
    }
    check(&entries);
    // All of the same time but not the epoch: every inode is a compact one.
    let mut root = dir("");
    root.meta.mtime = Mtime { secs: 77, nanos: 88 };
    let mut child = dir("d");
    child.meta.mtime = root.meta.mtime;
    check(&[root, child]);
}

#[test]
fn extended_attributes_alone_and_shared() {
    let mut entries = vec![dir("d")];
    let value = |size: usize| vec![b'v'; size];
    for at in 0..40 {
        let mut shared = file(format!("d/f{at}"), if at % 2 == 0 { 30 } else { 300 }, at);
        shared = with_xattr(shared, "security.selinux", b"system_u:object_r:usr_t:s0\0");
        shared = with_xattr(shared, "user.number", &[at / 4]);
        shared = with_xattr(shared, &format!("user.only-{at}"), &value(usize::from(at) * 50));
        shared = with_xattr(shared, "security.capability", &[1, 0, 0, 2, at % 2, 4]);
        shared = with_xattr(shared, "lustre.lov", b"x");
        shared = with_xattr(shared, "unknown.namespace", b"");
        entries.push(shared);
    }
    entries.push(with_xattr(dir("d/e"), "user.long", &value(30_000)));
    entries.push(with_xattr(file("d/e/f", 20, 0), &format!("user.{}", "n".repeat(250)), &value(3000)));
    entries.push(with_xattr(dir(""), "security.selinux", b"system_u:object_r:root_t:s0\0"));
    check(&entries);
}

#[test]
fn as_many_attributes_as_an_inode_may_have() {
    let mut entries = Vec::new();
    for at in 0..3 {
        let name = |number: u32| (format!("user.a{number:03}"), number.to_le_bytes());
        let many = (0..120).map(name).fold(file(format!("f{at}"), 10, 0), |f, (n, v)| with_xattr(f, &n, &v));
        entries.push(many);
    }
    check(&entries);
}

#[test]
fn access_control_lists() {
    let acl = [2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255];
    let access = with_xattr(file("f", 100, 0), "system.posix_acl_access", &acl);
    check(&[access.clone(), with_xattr(dir("d"), "system.posix_acl_default", &acl)]);
    check(&[with_xattr(dir("d"), "system.posix_acl_default", &acl)]);
    check(&[access]);
}

#[test]
fn names_of_every_length_and_byte() {
    let mut entries: Vec<LayerEntry> =
        (1..=255).map(|length| file("n".repeat(length), 70, length as u8)).collect();
    for byte in (1..=255).filter(|byte| ![b'/', b'.'].contains(byte)) {
        entries.push(file([byte], 3, byte));
        entries.push(entry([b'x', byte, b'y'], EntryKind::Symlink([byte, b' ', byte].as_slice().into())));
    }
    entries.push(entry("dash", EntryKind::Symlink(b"-".as_slice().into())));
    entries.push(entry("-", EntryKind::Inline(b"-".as_slice().into())));
    check(&entries);
}

#[test]
fn symbolic_links_of_every_length() {
    let target = |length: usize| EntryKind::Symlink(vec![b't'; length].into());
    check(
        &(1..=4095)
            .step_by(61)
            .chain([4000, 4030, 4031, 4032, 4033, 4063, 4064, 4065, 4095])
            .enumerate()
            .map(|(at, length)| entry(format!("l{at:03}"), target(length)))
            .collect::<Vec<_>>(),
    );
    check(
        &(3900..=4095)
            .map(|length| with_xattr(entry(length.to_string(), target(length)), "user.x", b"1"))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn directories_of_every_size() {
    // Around the half block that is kept beside the inode, and around full blocks.
    for count in [1, 2, 60, 80, 100, 120, 150, 200, 250, 300, 400] {
        check(&(0..count).map(|at| file(format!("d/{at:010}"), 3, 0)).collect::<Vec<_>>());
    }
    check(&(0..10_000).map(|at| file(format!("d/number-{at}"), 100, at as u8)).collect::<Vec<_>>());
}

#[test]
fn deep_nesting() {
    check(&[file(["d"; 400].join("/") + "/f", 90, 0)]);
    check(&[dir(["d"; 2047].join("/"))]);
}

#[test]
fn names_that_the_image_reserves_at_its_root() {
    // 00 to ff at the root are whiteouts that hide the objects' directories, unless the tree has them.
    check(&[
        dir("00"),
        file("00/f", 100, 0),
        file("7f", 3, 0),
        file("ff", 3, 0),
        file("100", 3, 0),
        dir("FF"),
    ]);
}

#[test]
fn whiteout_devices_of_the_image() {
    let whiteout = |path: &str| entry(path, EntryKind::CharDevice(0, 0));
    check(&[whiteout("w")]);
    check(&[dir("d"), whiteout("d/w1"), whiteout("d/w2"), file("d/f", 3, 0), dir("e"), whiteout("e/ab")]);
    let labelled = with_xattr(whiteout("d/w"), "security.selinux", b"label\0");
    check(&[with_xattr(dir("d"), "user.x", b"1"), labelled]);
}

mod random {
    //! Random trees: whatever the examples above do not think of.

    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    /// Few names, so that entries meet; some long, odd or reserved.
    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            6 => prop::sample::select(vec![&b"a"[..], b"b", b"c", b"dir", b"00", b"ff"]).prop_map(<[u8]>::to_vec),
            1 => vec(prop::sample::select((b'!'..=255).filter(|byte| *byte != b'/').collect::<Vec<u8>>()), 1..=255)
                .prop_filter("not a name", |name| name != b"." && name != b".."),
        ]
    }

    fn path() -> impl Strategy<Value = Vec<u8>> {
        vec(name(), 1..5).prop_map(|names| names.join(&b'/'))
    }

    fn kind() -> impl Strategy<Value = EntryKind> {
        prop_oneof![
            3 => Just(EntryKind::Directory),
            3 => vec(any::<u8>(), 0..=64).prop_map(|bytes| EntryKind::Inline(bytes.into())),
            3 => (0..6u8, prop_oneof![65u64..10_000, 65u64..1 << 40]).prop_map(|(seed, size)| file("", size, seed).kind),
            2 => vec(1..=255u8, 1..300).prop_map(|target| EntryKind::Symlink(target.into())),
            2 => path().prop_map(|target| EntryKind::Hardlink(target.into())),
            1 => (0..4096u32, 0..1_048_576u32).prop_map(|(major, minor)| EntryKind::CharDevice(major, minor)),
            1 => (0..4096u32, 0..1_048_576u32).prop_map(|(major, minor)| EntryKind::BlockDevice(major, minor)),
            1 => Just(EntryKind::CharDevice(0, 0)),
            1 => Just(EntryKind::Fifo),
        ]
    }

    fn random_entry() -> impl Strategy<Value = LayerEntry> {
        let xattr_name = prop::sample::select(vec![
            "security.capability",
            "security.selinux",
            "system.posix_acl_access",
            "system.posix_acl_default",
            "user.a",
            "user.b",
            "user.longer-name",
        ]);
        let xattrs = btree_map(xattr_name, prop_oneof![vec(0..3u8, 0..3), vec(any::<u8>(), 0..2000)], 0..4);
        let owner = prop_oneof![3 => Just(0u32), 1 => any::<u32>()];
        let secs = prop_oneof![3 => Just(1_700_000_000i64), 1 => -10..1i64 << 33];
        let nanos = prop_oneof![3 => Just(0u32), 1 => 0..1_000_000_000u32];
        (path(), kind(), 0..0o10000u32, owner.clone(), owner, secs, nanos, xattrs).prop_map(
            |(path, kind, mode, uid, gid, secs, nanos, xattrs)| {
                let mut random = entry(path, kind);
                random.meta.mode = mode;
                (random.meta.uid, random.meta.gid) = (uid, gid);
                random.meta.mtime = Mtime { secs, nanos };
                xattrs.into_iter().fold(random, |entry, (name, value)| with_xattr(entry, name, &value))
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

        #[test]
        fn trees(entries in vec(random_entry(), 0..40)) {
            let mut entries = entries;
            // The crate's reader takes an image's own whiteout device for one of the 256 that hide objects.
            let reserved = |path: &[u8]| path.ends_with(b"00") || path.ends_with(b"ff");
            entries.retain(|entry| entry.kind != EntryKind::CharDevice(0, 0) || !reserved(&entry.path));
            // Entries that do not fit the tree so far (a file for a parent, a link to nowhere) are left out.
            compare(&crate::support::golden::fitting(entries)).map_err(TestCaseError::fail)?;
        }
    }
}
