use proptest::prelude::*;

use super::*;
use crate::image::entry::{Entry, EntryKind, Meta, Mtime};
use crate::image::verity::VerityDigest;

fn component() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'.'), Just(0xff), 1u8..=255], 1..12).prop_map(
        |mut name| {
            name.iter_mut().filter(|byte| **byte == b'/').for_each(|byte| *byte = b'_');
            if name == b"." || name == b".." {
                name.push(b'x');
            }
            name
        },
    )
}

fn path() -> impl Strategy<Value = Box<[u8]>> {
    proptest::collection::vec(component(), 0..5).prop_map(|parts| parts.join(&b'/').into_boxed_slice())
}

fn bytes(max: usize) -> impl Strategy<Value = Box<[u8]>> {
    proptest::collection::vec(any::<u8>(), 0..max).prop_map(Vec::into_boxed_slice)
}

fn meta() -> impl Strategy<Value = Meta> {
    let time = (any::<i64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| Mtime { secs, nanos });
    let xattrs = proptest::collection::btree_map(bytes(20), bytes(300), 0..4);
    (0u32..=0o7777, any::<u32>(), any::<u32>(), time, xattrs).prop_map(|(mode, uid, gid, mtime, xattrs)| {
        Meta { mode, uid, gid, mtime, xattrs: xattrs.into_iter().collect() }
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let kind = prop_oneof![
        Just(EntryKind::Directory),
        Just(EntryKind::Fifo),
        bytes(65).prop_map(EntryKind::Inline),
        (any::<[u8; 32]>(), any::<u64>()).prop_map(|(d, size)| EntryKind::Object(VerityDigest(d), size)),
        bytes(100).prop_map(EntryKind::Symlink),
        (any::<u32>(), any::<u32>()).prop_map(|(a, b)| EntryKind::CharDevice(a, b)),
        (any::<u32>(), any::<u32>()).prop_map(|(a, b)| EntryKind::BlockDevice(a, b)),
    ];
    let bare = prop_oneof![
        Just(EntryKind::Whiteout),
        Just(EntryKind::Opaque),
        path().prop_map(EntryKind::Hardlink),
    ];
    prop_oneof![
        4 => (path(), meta(), kind).prop_map(|(path, meta, kind)| Entry { path, meta, kind }),
        1 => (path(), bare).prop_map(|(path, kind)| Entry { path, meta: Meta::default(), kind }),
    ]
}

fn write(entries: &[Entry]) -> Vec<u8> {
    let mut writer = RecordWriter::new(Vec::new());
    entries.iter().for_each(|entry| writer.push(entry).unwrap());
    writer.finish().unwrap()
}

fn read(record: &[u8]) -> Result<Vec<Entry>, RecordError> {
    RecordReader::new(record)?.collect()
}

fn sample() -> Vec<Entry> {
    let meta = Meta { mode: 0o755, mtime: Mtime { secs: -3, nanos: 5 }, ..Meta::default() };
    vec![
        Entry { path: (*b"").into(), meta: meta.clone(), kind: EntryKind::Directory },
        Entry { path: (*b"etc/a").into(), meta: meta.clone(), kind: EntryKind::Inline((*b"hi").into()) },
        Entry { path: (*b"etc/b").into(), meta, kind: EntryKind::Object(VerityDigest([7; 32]), 1 << 40) },
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_written_is_read(entries in proptest::collection::vec(entry(), 0..40)) {
        prop_assert_eq!(read(&write(&entries)).unwrap(), entries);
    }

    #[test]
    fn foreign_bytes_are_an_error_and_nothing_worse(
        mut record in proptest::collection::vec(any::<u8>(), 0..600),
        honest in any::<bool>(),
    ) {
        if honest && record.len() >= 8 {
            record[..8].copy_from_slice(b"cfscsiL\x01");
        }
        prop_assert!(read(&record).is_err());
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_is_refused() {
    let record = write(&sample());
    assert!(read(&record).is_ok());
    for length in 0..record.len() {
        assert!(read(&record[..length]).is_err(), "cut to {length} bytes");
    }
    for bit in 0..record.len() * 8 {
        let mut record = record.clone();
        record[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&record).is_err(), "bit {bit} flipped");
    }
    assert!(read(&[&record[..], b"x"].concat()).is_err());
}

#[test]
fn a_record_of_another_version_says_so() {
    let mut record = write(&[]);
    record[7] = 2;
    let error = read(&record).unwrap_err();
    assert!(matches!(error, RecordError::Version(2)));
    assert_eq!(error.kind(), crate::kind::Kind::Unsupported);
}

#[test]
fn a_lying_length_allocates_nothing() {
    let record = [&b"cfscsiL\x01\x04\x00"[..], &[0xff, 0xff, 0xff, 0xff, 0x7f]].concat();
    assert!(matches!(read(&record), Err(RecordError::Damaged { .. })));
}

#[test]
fn many_small_files_take_few_bytes() {
    let entries: Vec<Entry> = (0..10_000)
        .map(|i| Entry {
            path: format!("usr/share/doc/package/some/file-{i:05}").into_bytes().into_boxed_slice(),
            meta: Meta { mode: 0o644, mtime: Mtime { secs: 1_700_000_000, nanos: 0 }, ..Meta::default() },
            kind: EntryKind::Object(VerityDigest([i as u8; 32]), 5000),
        })
        .collect();
    let record = write(&entries);
    assert!(record.len() < entries.len() * 56, "{} bytes", record.len());
    assert_eq!(read(&record).unwrap(), entries);
}
