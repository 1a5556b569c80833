//! Random trees: whatever the examples do not think of.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::fixtures::{compare, entry, file, tree};
use super::*;
use crate::image::entry::LayerEntry;

/// Few names, so that entries meet; some long, odd or reserved.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let odd: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    prop_oneof![
        6 => select(vec![&b"a"[..], b"b", b"c", b"dir", b"00", b"ff", b"!", b".a", b"..."]).prop_map(<[u8]>::to_vec),
        1 => vec(select(odd), 1..=255).prop_filter("no name", |name| name != b"." && name != b".."),
        1 => (1..=255usize).prop_map(|length| vec![b'n'; length]),
    ]
}

fn kind() -> impl Strategy<Value = EntryKind> {
    let size =
        prop_oneof![65u64..10_000, 65u64..1 << 43, Just(1 << 43), (12..43u32).prop_map(|bits| 1u64 << bits)];
    let target = prop_oneof![4 => 1..300usize, 1 => 3000..4096usize];
    prop_oneof![
        3 => Just(EntryKind::Directory),
        2 => vec(any::<u8>(), 0..=64).prop_map(|bytes| EntryKind::Inline(bytes.into())),
        3 => (0..12u8, size).prop_map(|(seed, size)| file("", size, seed).kind),
        1 => (any::<[u8; 32]>(), 65..1000u64).prop_map(|(digest, size)| EntryKind::Object(VerityDigest(digest), size)),
        2 => target.prop_map(|length| EntryKind::Symlink(vec![b't'; length].into())),
        // To a file that comes before, see [`fitted`].
        2 => Just(EntryKind::Hardlink(Box::default())),
        1 => (0..4096u32, 0..1_048_576u32).prop_map(|(major, minor)| EntryKind::CharDevice(major, minor)),
        1 => (0..4096u32, 0..1_048_576u32).prop_map(|(major, minor)| EntryKind::BlockDevice(major, minor)),
        2 => Just(EntryKind::CharDevice(0, 0)),
        1 => Just(EntryKind::Fifo),
    ]
}

fn random_entry() -> impl Strategy<Value = (LayerEntry, Index)> {
    let names = select(vec![
        "security.capability",
        "security.selinux",
        "system.posix_acl_access",
        "system.posix_acl_default",
        "system.other",
        "trusted.overlay.metacopy",
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "trusted.overlay.zzz",
        "trusted.overlay.overlay.whiteout",
        "trusted.zzz",
        "user.a",
        "user.b",
        "user.longer-name",
        "user.overlay.opaque",
        "user.overlay.whiteout",
        "zzz",
    ]);
    let value = prop_oneof![4 => vec(0..2u8, 0..3), 1 => vec(any::<u8>(), 0..2000)];
    let xattrs = prop_oneof![1 => Just(BTreeMap::new()), 2 => btree_map(names, value, 0..6)];
    let owner = prop_oneof![3 => Just(0u32), 1 => any::<u32>(), 1 => 65_530..65_540u32];
    let secs = prop_oneof![3 => Just(1_700_000_000i64), 1 => -10..1i64 << 33];
    let nanos = prop_oneof![3 => Just(0u32), 1 => 0..1_000_000_000u32];
    let path = vec(name(), 0..6).prop_map(|names| names.join(&b'/'));
    let mode = prop_oneof![Just(0o644u32), 0..0o10000u32];
    (path, kind(), mode, owner.clone(), owner, secs, nanos, xattrs, any::<Index>()).prop_map(
        |(path, kind, mode, uid, gid, secs, nanos, xattrs, index)| {
            let mut random = entry(path, kind);
            (random.meta.mode, random.meta.uid, random.meta.gid) = (mode, uid, gid);
            random.meta.mtime = Mtime { secs, nanos };
            let pairs = xattrs.into_iter().map(|(name, value)| (name.as_bytes().into(), value.into()));
            random.meta.xattrs = pairs.collect();
            (random, index)
        },
    )
}

/// The entries that fit those before them. Links lead to any file before.
fn fitted(entries: Vec<(LayerEntry, Index)>) -> Vec<LayerEntry> {
    let mut fitted: Vec<LayerEntry> = Vec::new();
    let mut is_dir: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
    for (mut entry, index) in entries {
        let ends: Vec<usize> = (0..entry.path.len()).filter(|at| entry.path[*at] == b'/').collect();
        let parents: Vec<Vec<u8>> = ends.iter().map(|end| entry.path[..*end].to_vec()).collect();
        let is_in_file = parents.iter().any(|parent| is_dir.get(parent) == Some(&false));
        let is_root_file = entry.path.is_empty() && entry.kind != EntryKind::Directory;
        if is_in_file || is_root_file || is_dir.contains_key(&*entry.path) {
            continue;
        }
        if let EntryKind::Hardlink(target) = &mut entry.kind {
            let is_target = |entry: &&LayerEntry| {
                !matches!(
                    entry.kind,
                    EntryKind::Directory | EntryKind::Hardlink(_) | EntryKind::CharDevice(0, 0)
                )
            };
            let targets: Vec<&LayerEntry> = fitted.iter().filter(is_target).collect();
            if targets.is_empty() {
                continue;
            }
            *target = index.get(&targets).path.clone();
        }
        is_dir.extend(parents.into_iter().map(|parent| (parent, true)));
        is_dir.insert(entry.path.to_vec(), entry.kind == EntryKind::Directory);
        fitted.push(entry);
    }
    fitted
}

/// Enough of them that a change of any rule of the format shows.
fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn trees(entries in vec(random_entry(), 0..60)) {
        let entries = fitted(entries);
        compare(&tree(&entries), &tree(&entries)).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn directories(lengths in vec(prop_oneof![1..=20usize, 1..=255usize], 0..300), at_root: bool) {
        let at = if at_root { "" } else { "d/" };
        let mut names = std::collections::BTreeSet::new();
        names.extend(lengths.iter().enumerate().map(|(at, length)| format!("{at:0length$}")));
        let entries: Vec<_> = names.iter().filter(|name| name.len() < 256).map(|name| file(format!("{at}{name}"), 10, 0)).collect();
        compare(&tree(&entries), &tree(&entries)).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn attributes_and_what_is_beside_them(inodes in vec((0..40usize, 0..3900usize, 0..4096usize, 0..2u32), 1..40)) {
        let inode = |(at, (names, bytes, tail, nanos)): (usize, &(usize, usize, usize, u32))| {
            let kind = match at % 3 {
                0 => EntryKind::Symlink(vec![b't'; (*tail).max(1)].into()),
                1 => EntryKind::Inline(vec![b'i'; tail % 65].into()),
                _ => EntryKind::Object(VerityDigest([(tail % 5) as u8; 32]), 100),
            };
            let mut inode = entry(format!("{at:02}"), kind);
            inode.meta.mtime.nanos = *nanos;
            inode.meta.xattrs = (0..*names).map(|name| {
                let size = if name == 0 { *bytes } else { name * tail % 7 };
                (format!("user.{name:02}").into_bytes().into(), vec![0; size].into())
            }).collect();
            inode
        };
        let entries: Vec<LayerEntry> = inodes.iter().enumerate().map(inode).collect();
        compare(&tree(&entries), &tree(&entries)).map_err(TestCaseError::fail)?;
    }
}
