//! Layers as archives: tar → entries → layer record → tree → EROFS image → the composefs project's reader.
//!
//! Input: one byte of choices, then one or more archives; the text `--next layer--` stands between two.
//! Held: every limit; the same entries whatever the size of the buffer; a record that reads back; an image
//! that reads back to the tree it was made of.

#![no_main]

use composefs_csi::image::tree::Rules;
use composefs_csi_fuzz::{archive, image};
use libfuzzer_sys::fuzz_target;

const BETWEEN: &[u8] = b"--next layer--";

fuzz_target!(|input: &[u8]| {
    let Some((choice, tars)) = input.split_first() else { return };
    let limits = archive::limits(*choice);
    let mut layers = Vec::new();
    for tar in split(tars).take(4) {
        let tar = archive::with_checksums(tar);
        let small = archive::read(&tar, limits, 1 + usize::from(choice >> 1));
        match (small, archive::read(&tar, limits, 1 << 16)) {
            (Ok(small), Ok(large)) => {
                assert_eq!(small, large);
                image::record_round_trip(&large);
                layers.push(large);
            }
            (Err(small), Err(large)) => assert_eq!(small.to_string(), large.to_string()),
            (small, large) => panic!("{small:?} through a small buffer, {large:?} through a large one"),
        }
    }
    if layers.iter().all(Vec::is_empty) || layers.iter().any(|entries| image::reader_errs_on(entries)) {
        return;
    }
    if let Ok(tree) = image::fold(&layers, Rules::Verbatim)
        && image::is_sampled(input)
    {
        image::round_trip(tree);
    }
});

fn split(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest.take()?;
        let Some(at) = bytes.windows(BETWEEN.len()).position(|window| window == BETWEEN) else {
            return Some(bytes);
        };
        rest = Some(&bytes[at + BETWEEN.len()..]);
        Some(&bytes[..at])
    })
}
