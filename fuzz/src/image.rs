//! Entries → tree → EROFS image → the composefs project's reader: what comes out is what went in.

use composefs::{dumpfile::write_dumpfile, erofs::reader::erofs_to_filesystem, fsverity::Sha256HashValue};
use composefs_csi::image::composefs::{dump, list_objects, write_image};
use composefs_csi::image::entry::{EntryKind, LayerEntry};
use composefs_csi::image::layer::{RecordReader, RecordWriter};
use composefs_csi::image::tree::{Builder, CheckedTree, Rules, TreeError};
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::oci::limits::ImageLimits;

/// Bounds on one tree of the fuzzer's.
pub const LIMITS: ImageLimits = ImageLimits { inodes: 2000, metadata_bytes: 1 << 20, ..ImageLimits::DEFAULT };

/// Folds layers, lowest first.
pub fn fold(layers: &[Vec<LayerEntry>], rules: Rules) -> Result<CheckedTree, TreeError> {
    let mut builder = Builder::with_limits(rules, LIMITS);
    for entries in layers {
        let mut layer = builder.layer();
        entries.iter().try_for_each(|entry| layer.apply(entry.clone()))?;
        layer.end()?;
    }
    let tree = builder.finish()?;
    assert!(tree.inodes() <= LIMITS.inodes as u64);
    Ok(tree)
}

/// The dump of a tree.
pub fn text(tree: &CheckedTree) -> Vec<u8> {
    let mut text = Vec::new();
    dump(tree, &mut text).expect("memory does not fail");
    text
}

/// Writes the image of a tree and reads it back. Panics where the two differ.
pub fn round_trip(tree: CheckedTree) {
    let dumped = text(&tree);
    let mut named: Vec<VerityDigest> = tree.objects().map(|(digest, _)| digest).collect();
    named.sort_unstable();
    named.dedup();
    let image = write_image(tree).expect("a checked tree has an image");
    assert_eq!(image.bytes.len() % 4096, 0);
    assert_eq!(list_objects(&image.bytes).expect("our own image"), named);
    let read = in_thread(|| {
        let read = erofs_to_filesystem::<Sha256HashValue>(&image.bytes).expect("our own image");
        let mut again = Vec::new();
        write_dumpfile(&mut again, &read).expect("a dump");
        again
    });
    if read != dumped {
        let (put, got) = (String::from_utf8_lossy(&dumped), String::from_utf8_lossy(&read));
        panic!("put:\n{put}\ngot:\n{got}");
    }
}

/// Whether this input's image is written and read back: one in eight. The driver gives the composefs crate a thread
/// with a large stack, which AddressSanitizer clears; that costs a hundred times what all the rest does.
pub fn is_sampled(input: &[u8]) -> bool {
    input.iter().fold(0u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte)).is_multiple_of(8)
}

/// Whether the composefs crate's *reader* is known to read an image differently: it takes a whiteout device
/// of the image's own for one of the 256 that hide object directories (see tests/tools/golden.rs).
pub fn reader_errs_on(entries: &[LayerEntry]) -> bool {
    entries.iter().any(|entry| matches!(entry.kind, EntryKind::CharDevice(0, 0)))
}

/// Writes a layer record and reads it back. Panics where the two differ.
pub fn record_round_trip(entries: &[LayerEntry]) {
    let mut writer = RecordWriter::new(Vec::new());
    for entry in entries {
        writer.push(entry).expect("memory does not fail");
    }
    let record = writer.finish().expect("memory does not fail");
    let read: Result<Vec<LayerEntry>, _> = RecordReader::new(&record[..]).expect("our own record").collect();
    assert_eq!(read.expect("our own record"), entries);
}

/// The crate's reader recurses by directory.
fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(16 << 20);
        thread.spawn_scoped(scope, work).expect("a thread").join().expect("no panic")
    })
}
