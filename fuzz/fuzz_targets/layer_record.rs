//! Layer records: the metadata of a layer, as the node keeps it.
//!
//! Input: one byte of choice, then a record, or only its entries, which are then framed here: the fuzzer does
//! not guess a SHA-256. Held: what is read writes to a record that reads the same; every cut and every changed
//! byte of a good record is noticed.

#![no_main]

use composefs_csi::image::entry::{LayerEntry, is_clean};
use composefs_csi::image::layer::{RecordError, RecordReader, RecordWriter};
use composefs_csi::image::tree::Rules;
use composefs_csi_fuzz::image;
use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    if choice & 1 == 0 {
        let _ = read(bytes);
        return;
    }
    // The number of entries is not known before they are read: it stands in the choice, and so does the version.
    let (version, count) = (1 + (choice >> 1 & 1), choice >> 2);
    let record = framed(bytes, version, count);
    let Ok(entries) = read(&record) else { return };
    assert_eq!(entries.len(), usize::from(count));
    assert!(entries.iter().all(|entry| is_clean(&entry.path)));
    let mut writer = RecordWriter::new(Vec::new());
    entries.iter().for_each(|entry| writer.push(entry).expect("memory does not fail"));
    let written = writer.finish().expect("memory does not fail");
    assert_eq!(read(&written).expect("our own record"), entries);
    let at = bytes.iter().fold(0usize, |at, byte| at.wrapping_mul(31) + usize::from(*byte)) % written.len();
    assert!(read(&written[..at]).is_err(), "cut to {at} bytes");
    let mut damaged = written;
    damaged[at] ^= 1 << (choice & 7);
    assert!(read(&damaged).is_err(), "byte {at} changed");
    if let Ok(tree) = image::fold(&[entries], Rules::Verbatim) {
        let _ = image::text(&tree);
    }
});

fn read(record: &[u8]) -> Result<Vec<LayerEntry>, RecordError> {
    RecordReader::new(record)?.collect()
}

fn framed(entries: &[u8], version: u8, count: u8) -> Vec<u8> {
    let mut record = [&b"cfscsiL"[..], &[version], entries, &[0, count]].concat();
    let hash = Sha256::digest(&record);
    record.extend_from_slice(&hash);
    record
}
