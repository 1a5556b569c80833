use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::entry::{Entry, EntryKind};
use super::*;
use crate::image::digest::Digest;
use crate::image::manifest::LayerCompression;
use crate::image::store::Objects;
use crate::image::tar::testing::Builder;
use crate::image::verity::VerityDigest;

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
type Taken = Result<(LayerOutcome, Vec<Entry>), LayerError>;

/// Takes `bytes` in as what `blob` promises, in chunks of `chunk` bytes.
fn take(objects: &Objects, blob: &Blob, bytes: &[u8], chunk: usize, limits: &Limits) -> Taken {
    let seen = AtomicU64::new(0);
    let chunks: Vec<Bytes> = bytes.chunks(chunk).map(Bytes::copy_from_slice).collect();
    let progress = |count| drop(seen.fetch_add(count, Ordering::Relaxed));
    let (outcome, record) = ingest(blob, chunks.into_iter(), objects, Vec::new(), limits, &progress)?;
    assert_eq!(seen.load(Ordering::Relaxed), blob.size);
    let entries: Result<Vec<Entry>, _> = RecordReader::new(&record[..]).unwrap().collect();
    Ok((outcome, entries.unwrap()))
}

fn archive() -> Vec<u8> {
    let big: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
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
    let tar = archive();
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
            let (outcome, entries) = take(&objects, &blob, &bytes, chunk, &Limits::default()).unwrap();
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
