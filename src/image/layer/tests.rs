use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::*;
use crate::image::entry::{EntryKind, LayerEntry};
use crate::image::objects::Objects;
use crate::image::tar::testing::Builder;
use crate::image::verity::VerityDigest;
use crate::kind::Kind;
use crate::oci::digest::Digest;
use crate::oci::limits::{Budget, ImageLimits};
use crate::oci::manifest::LayerCompression;

fn store() -> (tempfile::TempDir, Objects) {
    let dir = tempfile::tempdir().unwrap();
    Objects::create(dir.path()).unwrap();
    let objects = Objects::open(dir.path(), false).unwrap();
    (dir, objects)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn blob_of(bytes: &[u8], compression: LayerCompression) -> Blob {
    Blob { digest: Digest::of(bytes), size: bytes.len() as u64, compression }
}

/// What a layer gave: its outcome and its entries.
type Taken = Result<(LayerOutcome, Vec<LayerEntry>), LayerError>;

/// Takes `bytes` in as what `blob` promises, in chunks of `chunk` bytes.
fn take(objects: &Objects, blob: &Blob, bytes: &[u8], chunk: usize, limits: &TarLimits) -> Taken {
    let seen = AtomicU64::new(0);
    let chunks: Vec<Bytes> = bytes.chunks(chunk).map(Bytes::copy_from_slice).collect();
    let progress = |count| {
        seen.fetch_add(count, Ordering::Relaxed);
    };
    let (outcome, record) = ingest(
        blob,
        chunks.into_iter(),
        objects,
        Vec::new(),
        limits,
        &Budget::of(&ImageLimits::default()),
        &progress,
    )?;
    assert_eq!(seen.load(Ordering::Relaxed), blob.size);
    let entries: Result<Vec<LayerEntry>, _> = RecordReader::new(&record[..]).unwrap().collect();
    Ok((outcome, entries.unwrap()))
}

fn archive() -> Vec<u8> {
    archive_with(200_000)
}

fn archive_with(size: u32) -> Vec<u8> {
    let big: Vec<u8> = (0..size).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    Builder::default()
        .entry(b'5', b"./etc/", b"")
        .file(b"./etc/small", b"hello")
        .file(b"./etc/medium", &[b'm'; 5000])
        .file(b"./big", &big)
        .file(b"./again", &big)
        .link(b'2', b"./link", b"etc/small")
        .end()
}

#[test]
fn every_compression_and_chunking_gives_the_same_layer() {
    let (_dir, objects) = store();
    let tar = archive_with(3_000_000);
    let (head, tail) = tar.split_at(700_000);
    let skippable = [&b"\x50\x2a\x4d\x18\x04\0\0\0"[..], b"skip"].concat();
    let blobs = [
        (tar.clone(), LayerCompression::None),
        (gzip(&tar), LayerCompression::Gzip),
        ([gzip(head), gzip(b""), gzip(tail)].concat(), LayerCompression::Gzip),
        (zstd(&tar), LayerCompression::Zstd),
        (
            [skippable.clone(), zstd(head), skippable.clone(), zstd(tail), skippable].concat(),
            LayerCompression::Zstd,
        ),
        // Mislabelled, as old exporters do.
        (gzip(&tar), LayerCompression::None),
        (tar.clone(), LayerCompression::Gzip),
    ];
    let mut first = None;
    for (bytes, compression) in blobs {
        for chunk in [977, 65_536, usize::MAX] {
            let blob = blob_of(&bytes, compression);
            let (outcome, entries) = take(&objects, &blob, &bytes, chunk, &TarLimits::default()).unwrap();
            assert_eq!(outcome.diff_id, Digest::of(&tar));
            assert_eq!(outcome.tar_bytes, tar.len() as u64);
            assert_eq!(outcome.contents.bytes, 6_005_005);
            let new = if first.is_none() { 2 } else { 0 };
            assert_eq!(outcome.contents.new_objects, new, "only the first time");
            assert_eq!(first.get_or_insert_with(|| entries.clone()), &entries);
        }
    }
    let entries = first.unwrap();
    assert_eq!(entries[1].kind, EntryKind::Inline((*b"hello").into()));
    assert_eq!(entries[2].kind, EntryKind::Object(VerityDigest::of(&[b'm'; 5000]), 5000));
    assert_eq!(entries[3].kind, entries[4].kind);
}

/// The layer is refused with this kind, and the message names the blob and contains this.
#[track_caller]
fn refused(blob: &Blob, bytes: &[u8], kind: Kind, says: &str) {
    refused_within(&TarLimits::for_blob(&Default::default(), blob.size), blob, bytes, kind, says);
}

#[track_caller]
fn refused_within(limits: &TarLimits, blob: &Blob, bytes: &[u8], kind: Kind, says: &str) {
    let (_dir, objects) = store();
    for chunk in [500, usize::MAX] {
        let error = take(&objects, blob, bytes, chunk, limits).expect_err("accepted");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(&blob.digest.to_string()), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn a_blob_of_another_size_or_digest_is_refused_whatever_it_contains() {
    for bytes in [archive(), gzip(&archive()), zstd(&archive()), b"not a layer at all".to_vec()] {
        let blob = blob_of(&bytes, LayerCompression::None);
        for cut in [1, 12, bytes.len() / 2, bytes.len()] {
            let says = format!("{cut} bytes short of {}", bytes.len());
            refused(&blob, &bytes[..bytes.len() - cut], Kind::Corrupt, &says);
        }
        refused(&blob, &[&bytes[..], b"x"].concat(), Kind::Corrupt, "longer than");
        let mut other = bytes.clone();
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            other[at] ^= 1;
            refused(&blob, &other, Kind::Corrupt, &Digest::of(&other).to_string());
            other[at] ^= 1;
        }
    }
    refused(&blob_of(b"something", LayerCompression::Gzip), b"", Kind::Corrupt, "9 bytes short of 9");
}

#[test]
fn damaged_compression_under_the_right_digest_is_the_builders_fault() {
    let tar = archive();
    for (bytes, compression) in [(gzip(&tar), LayerCompression::Gzip), (zstd(&tar), LayerCompression::Zstd)] {
        for length in [4, 20, bytes.len() / 2, bytes.len() - 1] {
            let cut = &bytes[..length];
            refused(
                &blob_of(cut, compression),
                cut,
                Kind::Invalid,
                &format!("its {compression} data is damaged"),
            );
        }
        for rest in [&b"garbage"[..], b"\0\0garbage", &[&[0; 600], &bytes[..]].concat()] {
            let garbage = [&bytes[..], rest].concat();
            refused(&blob_of(&garbage, compression), &garbage, Kind::Invalid, "damaged");
        }
    }
    let neither = vec![b'?'; 5000];
    refused(&blob_of(&neither, LayerCompression::Zstd), &neither, Kind::Invalid, "media type says zstd");
    refused(&blob_of(&neither, LayerCompression::None), &neither, Kind::Invalid, "header at byte 0");
}

/// The digests of what goes in and what comes out say more than gzip's own checksum, which is therefore not computed.
#[test]
fn the_members_of_a_gzip_file_are_read_whatever_their_headers_and_trailers_say() {
    let (_dir, objects) = store();
    let tar = archive();
    let (head, tail) = tar.split_at(700);
    let plain = gzip(head);
    let mut wrong_sum = plain.clone();
    let at = wrong_sum.len() - 6;
    wrong_sum[at] ^= 1;
    // Extra field, name, comment and the header's own checksum.
    let header = b"\x1f\x8b\x08\x1e\0\0\0\0\0\x03\x04\0some\x6eame\0\x63omment\0\x12\x34";
    let full = [header, plain.get(10..).unwrap()].concat();
    for first in [wrong_sum, full] {
        let bytes = [&first[..], &gzip(tail), &[0; 3]].concat();
        let blob = blob_of(&bytes, LayerCompression::Gzip);
        for chunk in [1, 10, usize::MAX] {
            let (outcome, _) = take(&objects, &blob, &bytes, chunk, &TarLimits::default()).unwrap();
            assert_eq!(outcome.diff_id, Digest::of(&tar));
        }
    }
    for header in [&b"\x1f\x8b\x07\0"[..], b"\x1f\x8b\x08\x20", b"\x1f\x8c\x08\0", b"\x1f\x8b\x08"] {
        let bytes = [&plain[..], header].concat();
        refused(&blob_of(&bytes, LayerCompression::Gzip), &bytes, Kind::Invalid, "damaged");
    }
}

#[test]
fn zeros_behind_compressed_data_are_padding() {
    let (_dir, objects) = store();
    let tar = archive();
    for (whole, part) in [(gzip(&tar), gzip as fn(&[u8]) -> Vec<u8>), (zstd(&tar), zstd)] {
        let (head, tail) = tar.split_at(1000);
        let in_parts = [part(head), part(b""), part(tail)].concat();
        for bytes in [whole, in_parts] {
            for padding in [1, 2, 9, 512, 10_240] {
                let padded = [&bytes[..], &vec![0; padding]].concat();
                let blob = blob_of(&padded, LayerCompression::Gzip);
                for chunk in [1000, bytes.len(), bytes.len() + 1, usize::MAX] {
                    let (outcome, entries) =
                        take(&objects, &blob, &padded, chunk, &TarLimits::default()).unwrap();
                    assert_eq!((outcome.diff_id, entries.len()), (Digest::of(&tar), 6));
                }
            }
        }
    }
}

#[test]
fn gzip_headers_may_have_every_field() {
    let (_dir, objects) = store();
    let tar = archive();
    let builder = flate2::GzBuilder::new().extra(vec![0; 300]).filename("a.tar").comment("b").mtime(7);
    let mut encoder = builder.write(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &tar).unwrap();
    let mut bytes = encoder.finish().unwrap();
    let layer = |bytes: &[u8], chunk| {
        let blob = blob_of(bytes, LayerCompression::Gzip);
        take(&objects, &blob, bytes, chunk, &TarLimits::default()).map(|(outcome, _)| outcome.diff_id)
    };
    assert_eq!(layer(&bytes, 7).unwrap(), Digest::of(&tar));
    // With a checksum of the header, which nobody compares.
    let body = 10 + 2 + 300 + b"a.tar\0b\0".len();
    bytes[3] |= 2;
    bytes.splice(body..body, [1, 2]);
    assert_eq!(layer(&bytes, 7).unwrap(), Digest::of(&tar));
    for cut in [1, 5, 11, 100, body - 3, body, body + 1] {
        let cut = &bytes[..cut];
        refused(&blob_of(cut, LayerCompression::Gzip), cut, Kind::Invalid, "");
    }
    bytes[3] |= 0x20;
    refused(&blob_of(&bytes, LayerCompression::Gzip), &bytes, Kind::Invalid, "unknown flags");
}

#[test]
fn a_blob_of_no_bytes_is_a_layer_without_entries() {
    let (_dir, objects) = store();
    for compression in [LayerCompression::None, LayerCompression::Gzip, LayerCompression::Zstd] {
        let blob = blob_of(b"", compression);
        let (outcome, entries) = take(&objects, &blob, b"", 10, &TarLimits::default()).unwrap();
        assert_eq!((outcome.diff_id, outcome.tar_bytes, entries.len()), (Digest::of(b""), 0, 0));
        // Nor is a compressed nothing anything.
        for bytes in [gzip(b""), zstd(b"")] {
            let blob = blob_of(&bytes, compression);
            let (outcome, entries) = take(&objects, &blob, &bytes, 10, &TarLimits::default()).unwrap();
            assert_eq!((outcome.diff_id, entries.len()), (Digest::of(b""), 0));
        }
    }
}

#[test]
fn a_compression_that_layers_do_not_have_is_named() {
    for (start, name) in [
        (&b"\xfd7zXZ\0\0\x04"[..], "xz"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\x5d\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff", "lzma"),
        (b"\x04\x22\x4d\x18\x64\x40", "lz4"),
        (b"PK\x03\x04\x14", "zip"),
    ] {
        let bytes = [start, &[7; 900]].concat();
        for compression in [LayerCompression::None, LayerCompression::Gzip, LayerCompression::Zstd] {
            for bytes in [&bytes[..], start] {
                let says = format!("its bytes are {name}, and layers may be plain, gzip or zstd");
                refused(&blob_of(bytes, compression), bytes, Kind::Unsupported, &says);
            }
        }
    }
    // An archive may begin with a file of such a name, in a format without a magic number.
    let (_dir, objects) = store();
    let header =
        crate::image::tar::testing::Raw::new(b'0', b"BZh91AY&SY", 0).put(257, &[0; 8]).with_checksum();
    let blob = blob_of(&header, LayerCompression::Gzip);
    let (_, entries) = take(&objects, &blob, &header, 100, &TarLimits::default()).unwrap();
    assert_eq!(&*entries[0].path, b"BZh91AY&SY");
}

/// A sparse file in GNU's old format: data at the beginning and at the end.
fn sparse(name: &[u8], data: &[u8], size: u64) -> Builder {
    let mut header = crate::image::tar::testing::Raw::new(b'S', name, 2 * data.len() as u64);
    header.put(257, b"ustar  \0");
    let number = |number: u64| [&[0x80, 0, 0, 0][..], &number.to_be_bytes()].concat();
    for (at, value) in [
        (386, 0),
        (398, data.len() as u64),
        (410, size - data.len() as u64),
        (422, data.len() as u64),
        (483, size),
    ] {
        header.put(at, &number(value));
    }
    Builder::default().raw(&header.with_checksum()).content(&[data, data].concat())
}

#[test]
fn holes_are_no_bomb_and_take_no_space() {
    let (_dir, objects) = store();
    // More than the blob's ratio and what is free allow.
    let size = 50 << 30;
    let tar = sparse(b"disk.img", &[7; 3000], size).end();
    for bytes in [gzip(&tar), tar.clone()] {
        let blob = blob_of(&bytes, LayerCompression::Gzip);
        let limits = TarLimits::for_blob(&ImageLimits::default(), blob.size);
        assert!(limits.bytes < size);
        let (outcome, entries) = take(&objects, &blob, &bytes, 1000, &limits).unwrap();
        assert_eq!(outcome.contents.bytes, size);
        let EntryKind::Object(digest, found) = &entries[0].kind else { panic!("{:?}", entries[0].kind) };
        assert_eq!(*found, size);
        assert!(objects.stat(digest).unwrap().unwrap().allocated < 64 << 10);
    }
    // They count for what readers must expect of a layer.
    let image = ImageLimits { layer_bytes: size - 1, ..ImageLimits::default() };
    let blob = blob_of(&tar, LayerCompression::None);
    refused_within(
        &TarLimits::for_blob(&image, blob.size),
        &blob,
        &tar,
        Kind::Exhausted,
        "--max-layer-bytes",
    );
    // Small ones, too, are as large as they were.
    let tar = sparse(b"small", b"ab", 100_000).end();
    let blob = blob_of(&tar, LayerCompression::None);
    let (_, entries) = take(&objects, &blob, &tar, 1000, &TarLimits::default()).unwrap();
    let content = [&b"ab"[..], &vec![0; 99_996], b"ab"].concat();
    assert_eq!(entries[0].kind, EntryKind::Object(VerityDigest::of(&content), 100_000));
}

#[test]
fn a_hostile_archive_is_refused_by_name() {
    let good = || Builder::default().file(b"good", &[1; 3000]);
    for (tar, kind, says) in [
        (good().file(b"../../etc/passwd", b"x").end(), Kind::Invalid, "entry \"../../etc/passwd\""),
        (good().file(b"/../etc/passwd", b"x").end(), Kind::Invalid, "entry \"/../etc/passwd\""),
        (good().link(b'1', b"hard", b"../../etc/shadow").end(), Kind::Invalid, "entry \"hard\""),
        (good().0[..2000].to_vec(), Kind::Invalid, "entry \"good\": the archive is cut off"),
        (good().raw(&[9; 512]).end(), Kind::Invalid, "checksum"),
    ] {
        for (bytes, compression) in
            [(gzip(&tar), LayerCompression::Gzip), (tar.clone(), LayerCompression::None)]
        {
            refused(&blob_of(&bytes, compression), &bytes, kind, says);
        }
    }
}

/// Zeros, `megabytes` of them, compressed as a stream.
fn zeros(megabytes: usize, mut encoder: impl std::io::Write) {
    let block = vec![0; 1 << 20];
    (0..megabytes).for_each(|_| encoder.write_all(&block).unwrap());
}

#[test]
fn a_bomb_is_refused_wherever_it_hides() {
    // After the end of the archive, which no reader parses.
    let limits = TarLimits { bytes: 50 << 20, ..TarLimits::default() };
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(&Builder::default().file(b"a", b"x").end()).unwrap();
    zeros(60, &mut encoder);
    let bytes = encoder.finish().unwrap();
    refused_within(&limits, &blob_of(&bytes, LayerCompression::Zstd), &bytes, Kind::Exhausted, "bomb");
    // In an extended header, which must be gathered in memory.
    let header = crate::image::tar::testing::Raw::new(b'x', b"pax", 1 << 32).with_checksum();
    let bytes = zstd(&header);
    refused(&blob_of(&bytes, LayerCompression::Zstd), &bytes, Kind::Exhausted, "extended header");
    // In a file whose header admits it.
    let header = crate::image::tar::testing::Raw::new(b'0', b"huge", 1 << 32).with_checksum();
    let bytes = gzip(&header);
    refused(&blob_of(&bytes, LayerCompression::Gzip), &bytes, Kind::Exhausted, "entry \"huge\"");
}

#[test]
fn bytes_after_the_archive_count_for_the_diff_id_and_are_not_kept() {
    let (_dir, objects) = store();
    let tar = [archive(), vec![0; 10 << 20]].concat();
    let bytes = zstd(&tar);
    let blob = blob_of(&bytes, LayerCompression::Zstd);
    let (outcome, entries) = take(&objects, &blob, &bytes, 4096, &TarLimits::default()).unwrap();
    assert_eq!((outcome.diff_id, entries.len()), (Digest::of(&tar), 6));
}

#[test]
fn a_zstd_window_that_needs_too_much_memory_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.window_log(27).unwrap();
    zeros(200, &mut encoder);
    let bytes = encoder.finish().unwrap();
    refused(&blob_of(&bytes, LayerCompression::Zstd), &bytes, Kind::Exhausted, "window");
}

#[test]
fn a_full_store_and_a_full_record_are_exhausted() {
    #[derive(Debug)]
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (_dir, objects) = store();
    let bytes = gzip(&archive());
    let blob = blob_of(&bytes, LayerCompression::Gzip);
    let chunks = std::iter::once(Bytes::from(bytes));
    let error = ingest(
        &blob,
        chunks,
        &objects,
        Full,
        &TarLimits::default(),
        &Budget::of(&ImageLimits::default()),
        &|_| {},
    )
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted, "{error}");
}

#[test]
fn ending_the_chunks_ends_every_thread_at_once() {
    let (_dir, objects) = store();
    let bytes = gzip(&archive());
    let blob = blob_of(&bytes, LayerCompression::Gzip);
    let (sender, mut receiver) = tokio::sync::mpsc::channel(2);
    let taken = std::thread::spawn(move || {
        let chunks = std::iter::from_fn(move || receiver.blocking_recv());
        ingest(
            &blob,
            chunks,
            &objects,
            Vec::new(),
            &TarLimits::default(),
            &Budget::of(&ImageLimits::default()),
            &|_| {},
        )
    });
    sender.blocking_send(Bytes::copy_from_slice(&bytes[..1000])).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!taken.is_finished(), "it waits for more");
    drop(sender);
    let error = taken.join().unwrap().unwrap_err();
    assert!(matches!(error.fault, LayerFault::Short { got: 1000, .. }), "{error}");
}

#[test]
fn a_refused_layer_stops_taking_chunks() {
    // The rest of a layer is read to learn whether its digest is right, but not if a limit was reached.
    let (_dir, objects) = store();
    let tar = Builder::default()
        .raw(&crate::image::tar::testing::Raw::new(b'0', b"huge", 1 << 30).with_checksum())
        .0;
    let blob = Blob { digest: Digest::of(b""), size: 1 << 34, compression: LayerCompression::None };
    let endless =
        std::iter::once(Bytes::from(tar)).chain(std::iter::repeat_with(|| Bytes::from_static(&[0; 4096])));
    let error = ingest(
        &blob,
        endless,
        &objects,
        Vec::new(),
        &TarLimits { bytes: 1 << 20, ..TarLimits::default() },
        &Budget::of(&ImageLimits::default()),
        &|_| {},
    )
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted, "{error}");
}

#[test]
fn the_layers_of_an_image_share_what_they_may_unpack_to() {
    let (_dir, objects) = store();
    let tar = archive();
    let blob = blob_of(&tar, LayerCompression::None);
    let image = Budget::of(&ImageLimits { image_bytes: 2 * tar.len() as u64, ..ImageLimits::default() });
    let take = || {
        let chunks = std::iter::once(Bytes::copy_from_slice(&tar));
        ingest(&blob, chunks, &objects, Vec::new(), &TarLimits::default(), &image, &|_| {})
    };
    assert!(take().is_ok() && take().is_ok());
    let error = take().unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted);
    assert!(error.to_string().contains("--max-image-bytes"), "{error}");
}

/// A sink that counts what it is given.
#[derive(Debug)]
struct Counted(u64);

impl std::io::Write for &mut Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Entries with a hundred attributes each.
fn attributes(entries: usize) -> Vec<u8> {
    let mut records = Vec::new();
    for number in 0..100 {
        let record = format!(" SCHILY.xattr.user.{number:03}={}\n", "v".repeat(600));
        // With the three digits of the length itself.
        records.extend(format!("{}{record}", record.len() + 3).into_bytes());
    }
    let mut archive = tar::Builder::new(Vec::new());
    for number in 0..entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_size(records.len() as u64);
        archive.append_data(&mut header, "pax", &records[..]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("f{number}"), &[][..]).unwrap();
    }
    archive.into_inner().unwrap()
}

#[test]
fn a_record_is_not_written_beyond_what_its_image_may_have() {
    let (_dir, objects) = store();
    let tar = attributes(200);
    let blob = blob_of(&tar, LayerCompression::None);
    let image = Budget::of(&ImageLimits { metadata_bytes: 1 << 20, ..ImageLimits::default() });
    let mut sink = Counted(0);
    let chunks = std::iter::once(Bytes::from(tar));
    let error =
        ingest(&blob, chunks, &objects, &mut sink, &TarLimits::default(), &image, &|_| {}).unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted);
    assert!(error.to_string().contains("--max-metadata-bytes"), "{error}");
    // What is over the limit is noticed once it is in the writer's buffer: one buffer, and one entry.
    assert!(sink.0 <= (1 << 20) + (128 << 10), "{} bytes were written", sink.0);
}

#[test]
fn the_layers_of_an_image_share_its_entries() {
    let (_dir, objects) = store();
    let tar = archive();
    let blob = blob_of(&tar, LayerCompression::None);
    let entries = take_one(&blob, &tar, &objects, &Budget::of(&ImageLimits::default())).unwrap();
    let image = Budget::of(&ImageLimits { entries: 2 * entries, ..ImageLimits::default() });
    let take = || take_one(&blob, &tar, &objects, &image);
    assert!(take().is_ok() && take().is_ok());
    let error = take().unwrap_err();
    assert!(error.to_string().contains("--max-entries"), "{error}");
}

/// Takes a layer in within the image's budget, and returns how many entries it has.
fn take_one(blob: &Blob, tar: &[u8], objects: &Objects, image: &Budget) -> Result<u64, LayerError> {
    let chunks = std::iter::once(Bytes::copy_from_slice(tar));
    let taken = ingest(blob, chunks, objects, Vec::new(), &TarLimits::default(), image, &|_| {});
    taken.map(|(outcome, _)| outcome.contents.entries)
}

#[test]
fn what_a_layer_may_unpack_to_is_told_by_the_cap_that_counts() {
    let image = crate::oci::limits::ImageLimits { layer_bytes: 100_000, ..Default::default() };
    let bytes = zstd(&archive());
    let blob = blob_of(&bytes, LayerCompression::Zstd);
    let limits = TarLimits::for_blob(&image, blob.size);
    refused_within(&limits, &blob, &bytes, Kind::Exhausted, "--max-layer-bytes");
}

/// All bytes of the blob are checked, and only what is taken is stored.
#[test]
fn files_that_a_choice_leaves_out_are_not_stored() {
    let (dir, objects) = store();
    let tar =
        Builder::default().file(b"in/a", &[1; 5_000]).file(b"out/b", &[2; 7_000]).file(b"out/c", b"3").end();
    let blob = blob_of(&tar, LayerCompression::None);
    let choice = crate::oci::choice::Choice::new(["in"], [""; 0]).unwrap();
    let chunks = || [Bytes::from(tar.clone())].into_iter();
    let (limits, budget) = (TarLimits::default(), Budget::of(&ImageLimits::default()));
    let (outcome, record) =
        ingest_chosen(&blob, chunks(), &objects, Vec::new(), (&limits, &choice), &budget, &|_| {}).unwrap();
    assert_eq!((outcome.diff_id, outcome.contents.new_objects), (Digest::of(&tar), 1));
    assert_eq!(outcome.contents.left_out_bytes, 7_000);
    let entries: Result<Vec<LayerEntry>, _> = RecordReader::new(&record[..]).unwrap().collect();
    let entries = entries.unwrap();
    let left_out: Vec<_> =
        entries.iter().filter(|entry| matches!(entry.kind, EntryKind::LeftOut(7_000))).collect();
    assert_eq!(left_out.len(), 1);
    assert_eq!(&*left_out[0].path, b"out/b");
    let forged = Blob { digest: Digest::of(b"other"), ..blob };
    assert!(
        ingest_chosen(&forged, chunks(), &objects, Vec::new(), (&limits, &choice), &budget, &|_| {}).is_err()
    );
    drop(dir);
}
