use proptest::prelude::*;

use super::*;
use crate::image::entry::{EntryKind, LayerEntry, Meta, Mtime};
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
    let fresh = proptest::collection::btree_map(bytes(20), bytes(300), 0..4);
    // Few sets that come again and again, of which one fills half of what is remembered, and sets of their own.
    let common = prop_oneof![
        20 => Just((b'a', 3)),
        20 => Just((b'b', 700)),
        1 => Just((b'c', 600_000)),
        1 => Just((b'd', 600_000)),
    ];
    let common = common.prop_map(|(name, size)| {
        let one = [name].into_iter().collect::<Box<[u8]>>();
        std::collections::BTreeMap::from([(one, vec![name; size].into_boxed_slice())])
    });
    let xattrs = prop_oneof![fresh, common];
    (0u32..=0o7777, any::<u32>(), any::<u32>(), time, xattrs).prop_map(|(mode, uid, gid, mtime, xattrs)| {
        Meta { mode, uid, gid, mtime, xattrs: xattrs.into_iter().collect() }
    })
}

fn entry() -> impl Strategy<Value = LayerEntry> {
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
        4 => (path(), meta(), kind).prop_map(|(path, meta, kind)| LayerEntry { path, meta, kind }),
        1 => (path(), bare).prop_map(|(path, kind)| LayerEntry { path, meta: Meta::default(), kind }),
    ]
}

fn write(entries: &[LayerEntry]) -> Vec<u8> {
    let mut writer = RecordWriter::new(Vec::new());
    entries.iter().for_each(|entry| writer.push(entry).unwrap());
    writer.finish().unwrap()
}

fn read(record: &[u8]) -> Result<Vec<LayerEntry>, RecordError> {
    RecordReader::new(record)?.collect()
}

fn sample() -> Vec<LayerEntry> {
    let xattrs = vec![((*b"user.a").into(), (*b"1").into()), ((*b"user.b").into(), (*b"").into())];
    let meta = Meta { mode: 0o755, mtime: Mtime { secs: -3, nanos: 5 }, xattrs, ..Meta::default() };
    vec![
        LayerEntry { path: (*b"").into(), meta: meta.clone(), kind: EntryKind::Directory },
        LayerEntry { path: (*b"etc/a").into(), meta: meta.clone(), kind: EntryKind::Inline((*b"hi").into()) },
        LayerEntry {
            path: (*b"etc/b").into(),
            meta,
            kind: EntryKind::Object(VerityDigest([7; 32]), 1 << 40),
        },
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
            record[..8].copy_from_slice(b"cfscsiL\x02");
            record[7] = 1 + (record[8..].len() % 2) as u8;
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
    record[7] = 3;
    let error = read(&record).unwrap_err();
    assert!(matches!(error, RecordError::Version(3)));
    assert_eq!(error.kind(), crate::kind::Kind::Unsupported);
}

#[test]
fn a_lying_length_allocates_nothing() {
    for version in [1, 2] {
        let record = [&b"cfscsiL"[..], &[version, 4, 0], &[0xff, 0xff, 0xff, 0xff, 0x7f]].concat();
        assert!(matches!(read(&record), Err(RecordError::Damaged { .. })));
    }
}

#[test]
fn many_small_files_take_few_bytes() {
    let entries: Vec<LayerEntry> = (0..10_000)
        .map(|i| LayerEntry {
            path: format!("usr/share/doc/package/some/file-{i:05}").into_bytes().into_boxed_slice(),
            meta: Meta { mode: 0o644, mtime: Mtime { secs: 1_700_000_000, nanos: 0 }, ..Meta::default() },
            kind: EntryKind::Object(VerityDigest([i as u8; 32]), 5000),
        })
        .collect();
    let record = write(&entries);
    assert!(record.len() < entries.len() * 56, "{} bytes", record.len());
    assert_eq!(read(&record).unwrap(), entries);
}

#[test]
fn a_set_of_attributes_that_many_entries_have_stands_in_the_record_once() {
    let set = |value: u8| -> Vec<_> {
        (0..100)
            .map(|i| (format!("user.{i:03}").into_bytes().into(), vec![value; 600].into_boxed_slice()))
            .collect()
    };
    let entry = |i: u32| LayerEntry {
        path: format!("f{i:05}").into_bytes().into(),
        meta: Meta { mode: 0o644, xattrs: set((i % 3) as u8), ..Meta::default() },
        kind: EntryKind::Inline((*b"").into()),
    };
    let mut writer = RecordWriter::new(Vec::new());
    (0..3000).for_each(|i| writer.push(&entry(i)).unwrap());
    // What an image may have is counted as before: each entry costs its reader the whole set.
    assert!(writer.bytes_in_full() > 3000 * 60_000, "{}", writer.bytes_in_full());
    let record = writer.finish().unwrap();
    assert!(record.len() < 3 * 62_000 + 3000 * 20, "{} bytes", record.len());
    let mut read = 0;
    for (i, found) in RecordReader::new(&record[..]).unwrap().enumerate() {
        assert_eq!(found.unwrap(), entry(i as u32));
        read += 1;
    }
    assert_eq!(read, 3000);
}

/// The sample as the first version wrote it.
const VERSION_1: &str = "6366736373694c01010000ed0300000505";

#[test]
fn records_of_the_first_version_are_read() {
    let bytes = |bytes: &[u8]| [&[bytes.len() as u8], bytes].concat();
    let set = [&[2][..], &bytes(b"user.a"), &bytes(b"1"), &bytes(b"user.b"), &bytes(b"")].concat();
    let meta = [&[0xed, 0x03, 0, 0, 5, 5][..], &set].concat();
    let mut record = [&b"cfscsiL\x01"[..], &[1, 0, 0], &meta].concat();
    assert_eq!(hex::encode(&record[..17]), VERSION_1);
    record.extend([&[2, 0][..], &bytes(b"etc/a"), &meta, &bytes(b"hi")].concat());
    let size = [0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
    record.extend([&[3, 4][..], &bytes(b"b"), &meta, &[7; 32], &size, &[0, 3]].concat());
    let checksum = <sha2::Sha256 as sha2::Digest>::digest(&record);
    record.extend(checksum);
    assert_eq!(read(&record).unwrap(), sample());
}

#[test]
fn a_number_that_means_no_set_is_damage() {
    let set = [1, 1, 1, b'a', 1, b'1'];
    for (number, known) in [(2u8, true), (3, false), (0x7f, false)] {
        let first = [&[1, 0, 0, 0, 0, 0, 0, 0][..], &set].concat();
        let second = [1, 0, 1, b'x', 0, 0, 0, 0, 0, number];
        let mut record = [&b"cfscsiL\x02"[..], &first, &second, &[0, 2]].concat();
        let checksum = <sha2::Sha256 as sha2::Digest>::digest(&record);
        record.extend(checksum);
        assert_eq!(read(&record).is_ok(), known, "{number}");
    }
}
