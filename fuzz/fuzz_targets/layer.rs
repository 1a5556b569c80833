//! The whole intake of a layer: blob digest → decompression → DiffID → tar → objects and record.
//!
//! Input: a byte that says how the blob is announced, a byte for the size of the chunks, then the blob. Every
//! second time the rest is an archive that is compressed here, because mutation hardly ever gets past a CRC.
//! Held: a layer is taken in only if its DiffID is that of the decompressed stream; the same answer for the
//! same blob in other chunks; a wrong digest or size never passes; objects have the content of their name.

#![no_main]

use std::io::{Read as _, Write as _};
use std::sync::LazyLock;

use bytes::Bytes;
use composefs_csi::image::entry::{EntryKind, LayerEntry};
use composefs_csi::image::layer::{
    Blob, Contents, LayerError, LayerOutcome, RecordReader, TarLimits, ingest,
};
use composefs_csi::image::objects::Objects;
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::oci::digest::Digest;
use composefs_csi::oci::limits::{Budget, ImageLimits};
use composefs_csi::oci::manifest::LayerCompression;
use composefs_csi_fuzz::archive;
use libfuzzer_sys::fuzz_target;

/// In memory, and emptied with the process: fuzzing makes small objects only.
static OBJECTS: LazyLock<Objects> = LazyLock::new(|| {
    let store = std::path::PathBuf::from(format!("/dev/shm/composefs-csi-fuzz.{}", std::process::id()));
    std::fs::create_dir(&store).expect("a directory in /dev/shm");
    Objects::create(&store).expect("objects");
    Objects::open(&store, false).expect("objects")
});

fuzz_target!(|input: &[u8]| {
    let [how, chunk, rest @ ..] = input else { return };
    let compression =
        [LayerCompression::None, LayerCompression::Gzip, LayerCompression::Zstd][usize::from(how % 3)];
    let (blob, tar) = match how >> 2 & 3 {
        0 => (rest.to_vec(), None),
        1 => {
            let tar = archive::with_checksums(rest);
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&tar).expect("memory");
            (gzip.finish().expect("memory"), Some(tar))
        }
        2 => {
            let tar = archive::with_checksums(rest);
            (zstd::encode_all(&tar[..], 1).expect("memory"), Some(tar))
        }
        _ => {
            let tar = archive::with_checksums(rest);
            (tar.clone(), Some(tar))
        }
    };
    let limits = TarLimits { bytes: 1 << 20, bytes_with_holes: 1 << 20, ..archive::limits(how >> 4) };
    let stated = Blob { digest: Digest::of(&blob), size: blob.len() as u64, compression };
    let whole = take(&stated, &blob, blob.len().max(1), &limits);
    let pieces = take(&stated, &blob, usize::from(*chunk) + 1, &limits);
    match (&whole, &pieces) {
        (Ok((first, one)), Ok((second, other))) => {
            let known = |outcome: &LayerOutcome| LayerOutcome { contents: Contents::default(), ..*outcome };
            assert_eq!((known(first), one), (known(second), other));
            if let Some(tar) = &tar {
                assert!(first.diff_id == Digest::of(tar) || decompressed(tar) == Some(first.diff_id));
            }
            assert!(first.tar_bytes <= limits.bytes);
            check(one);
        }
        (Err(one), Err(other)) => assert_eq!(one.to_string(), other.to_string()),
        (one, other) => panic!("{one:?} in one piece, {other:?} in several"),
    }
    let forged = Blob { digest: Digest::of(b"something else"), ..stated };
    assert!(take(&forged, &blob, 1 << 16, &limits).is_err(), "a wrong digest passed");
    let longer = Blob { size: stated.size + 1, ..stated };
    assert!(take(&longer, &blob, 1 << 16, &limits).is_err(), "a short blob passed");
});

type Taken = Result<(LayerOutcome, Vec<LayerEntry>), LayerError>;

fn take(blob: &Blob, bytes: &[u8], chunk: usize, limits: &TarLimits) -> Taken {
    let chunks: Vec<Bytes> = bytes.chunks(chunk).map(Bytes::copy_from_slice).collect();
    let (outcome, record) =
        ingest(blob, chunks.into_iter(), &OBJECTS, Vec::new(), limits, &Budget::of(&ImageLimits { image_bytes: limits.bytes, ..ImageLimits::DEFAULT }), &|_| {})?;
    let entries: Result<Vec<LayerEntry>, _> =
        RecordReader::new(&record[..]).expect("our own record").collect();
    Ok((outcome, entries.expect("our own record")))
}

/// What a mutated archive that begins like a compressed file hashes to when it is decompressed.
fn decompressed(bytes: &[u8]) -> Option<Digest> {
    let mut out = Vec::new();
    // An error may be the padding behind the data, which these decoders do not know, or a checksum, which ours does not.
    let _ = match bytes {
        [0x1f, 0x8b, ..] => flate2::read::MultiGzDecoder::new(bytes).take(2 << 20).read_to_end(&mut out),
        _ => zstd::Decoder::new(bytes).ok()?.take(2 << 20).read_to_end(&mut out),
    };
    Some(Digest::of(&out))
}

/// Every object that the entries name is there and has the content of its name.
fn check(entries: &[LayerEntry]) {
    for entry in entries {
        if let EntryKind::Object(digest, size) = &entry.kind
            && *size < 1 << 16
        {
            let bytes = std::fs::read(OBJECTS.path(digest)).expect("the object");
            assert_eq!((bytes.len() as u64, VerityDigest::of(&bytes)), (*size, *digest));
        }
    }
}
