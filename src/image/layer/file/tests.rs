use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::image::layer::RecordReader;
use crate::image::verity::VerityDigest;
use crate::oci::limits::ImageLimits;
use crate::oci::manifest::LayerCompression;

fn blob(bytes: &[u8]) -> Blob {
    Blob { digest: Digest::of(bytes), size: bytes.len() as u64, compression: LayerCompression::None }
}

/// Takes `bytes` in as what `blob` promises, in small chunks.
fn take(objects: &Objects, blob: &Blob, bytes: &[u8]) -> Result<(LayerOutcome, EntryKind), LayerError> {
    take_within(objects, blob, bytes, &TarLimits::default())
}

fn take_within(
    objects: &Objects,
    blob: &Blob,
    bytes: &[u8],
    limits: &TarLimits,
) -> Result<(LayerOutcome, EntryKind), LayerError> {
    let chunks: Vec<Bytes> = bytes.chunks(100_000).map(Bytes::copy_from_slice).collect();
    let (budget, seen) = (Budget::of(&ImageLimits::default()), AtomicU64::new(0));
    let progress = |count| {
        seen.fetch_add(count, Ordering::Relaxed);
    };
    let (outcome, record) =
        ingest_file(blob, chunks.into_iter(), objects, Vec::new(), limits, &budget, &progress)?;
    assert_eq!(seen.into_inner(), blob.size);
    let entries: Vec<LayerEntry> = RecordReader::new(&record[..]).unwrap().map(Result::unwrap).collect();
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    Ok((outcome, entry.kind.clone()))
}

fn store() -> (tempfile::TempDir, Objects) {
    let dir = tempfile::tempdir().unwrap();
    Objects::create(dir.path()).unwrap();
    let objects = Objects::open(dir.path(), false).unwrap();
    (dir, objects)
}

#[test]
fn every_size_gives_the_content_once() {
    let (_dir, objects) = store();
    for size in [0, 1, INLINE_MAX, INLINE_MAX + 1, GATHER_MAX as usize, GATHER_MAX as usize + 1, 3 << 20] {
        let content: Vec<u8> = (0..size).map(|i| ((i * 7) >> 3) as u8).collect();
        let blob = blob(&content);
        let (outcome, kind) = take(&objects, &blob, &content).unwrap();
        assert_eq!((outcome.blob, outcome.diff_id), (blob.digest, file_id(&blob.digest)));
        assert_eq!((outcome.tar_bytes, outcome.contents.bytes), (blob.size, blob.size));
        if size <= INLINE_MAX {
            assert_eq!(kind, EntryKind::Inline(content.into()));
            continue;
        }
        assert_eq!(kind, EntryKind::Object(VerityDigest::of(&content), blob.size));
        assert_eq!((outcome.contents.new_objects, outcome.contents.shared_bytes), (1, 0), "{size}");
        let (again, _) = take(&objects, &blob, &content).unwrap();
        assert_eq!((again.contents.new_objects, again.contents.shared_bytes), (0, blob.size), "{size}");
    }
}

#[test]
fn a_blob_that_is_another_one_is_refused_whatever_its_size() {
    let (_dir, objects) = store();
    for size in [10usize, 5_000, 3 << 20] {
        let content = vec![7; size];
        let fault = |bytes: &[u8]| take(&objects, &blob(&content), bytes).unwrap_err().fault;
        assert!(matches!(fault(&content[1..]), LayerFault::Short { .. }), "{size}");
        assert!(matches!(fault(&[&content[..], b"x"].concat()), LayerFault::Long { .. }), "{size}");
        let mut other = content.clone();
        other[size - 1] = 8;
        assert!(matches!(fault(&other), LayerFault::Digest { .. }), "{size}");
    }
}

#[test]
fn a_blob_beyond_the_limit_is_refused_before_its_first_byte() {
    let (_dir, objects) = store();
    let content = vec![1; 1000];
    let limits = TarLimits { bytes: 999, ..TarLimits::default() };
    let refused = take_within(&objects, &blob(&content), &[], &limits).unwrap_err();
    assert!(matches!(refused.fault, LayerFault::TooLong(_)), "{refused}");
}

#[test]
fn a_file_is_not_the_archive_of_the_same_bytes() {
    let digest = Digest::of(b"x");
    assert_ne!(file_id(&digest), digest);
    assert_ne!(file_id(&digest), file_id(&Digest::of(b"y")));
    // A part of the store's format: a change makes every stored artifact unreadable.
    let id = "0371e73d5634079f88f339fb87a165d6409fed407bd8042a28e6b83e64ff6864";
    assert_eq!(file_id(&digest).hex(), id);
}
