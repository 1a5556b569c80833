//! What the golden tests (tests/tools/golden.rs) do not see: determinism, damaged images, panics.

use proptest::prelude::*;

use super::*;
use crate::image::entry::{EntryKind, INLINE_MAX, LayerEntry, Meta};
use crate::image::tree::{Builder, Rules};
use crate::kind::Kind;

fn object(path: &str, seed: u8) -> LayerEntry {
    let kind = EntryKind::Object(VerityDigest([seed; 32]), 1000);
    LayerEntry { path: path.as_bytes().into(), meta: Meta::default(), kind }
}

fn image(entries: &[LayerEntry]) -> ImageBytes {
    let mut builder = Builder::new(Rules::Faithful);
    let mut layer = builder.layer();
    entries.iter().try_for_each(|entry| layer.apply(entry.clone())).unwrap();
    layer.end().unwrap();
    write_image(builder.finish().unwrap()).unwrap()
}

#[test]
fn inline_files_are_the_format_s() {
    assert_eq!(INLINE_MAX, ::composefs::INLINE_CONTENT_MAX_V0);
}

#[test]
fn an_image_lists_its_objects_once_and_in_order() {
    let image = image(&[object("b", 9), object("a", 9), object("d/c", 1), object("d/e", 5)]);
    assert_eq!(list_objects(&image.bytes).unwrap(), [1, 5, 9].map(|seed| VerityDigest([seed; 32])));
    assert_eq!((image.inodes, image.file_bytes), (6, 4000));
    assert_eq!(image.bytes.len() % 4096, 0);
}

#[test]
fn the_order_of_entries_does_not_show() {
    let entries: Vec<LayerEntry> =
        (0..200).map(|at| object(&format!("d{}/f{at}", at % 7), at as u8)).collect();
    let backwards: Vec<LayerEntry> = entries.iter().rev().cloned().collect();
    assert_eq!(image(&entries), image(&backwards));
    assert_ne!(image(&entries).digest(), image(&entries[1..]).digest());
}

#[test]
fn a_panic_is_an_error() {
    let error = in_own_thread::<()>(|| panic!("at the {}", "disco")).unwrap_err();
    assert!(matches!(&error, ImageError::Panic { message } if message == "at the disco"));
    assert_eq!(error.kind(), Kind::Bug);
}

#[test]
fn what_is_no_image_is_refused() {
    for bytes in [&b""[..], b"text", &[0; 4096], &[0xff; 8192]] {
        assert_eq!(list_objects(bytes).unwrap_err().kind(), Kind::Corrupt);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Corruption may go unseen here (the fs-verity digest is there for that), but must not end the process.
    #[test]
    fn a_damaged_image_is_survived(at in 0usize..12_288, byte: u8, length in 0usize..12_288) {
        let mut bytes = image(&[object("a", 1), object("d/c", 2)]).bytes.into_vec();
        let end = bytes.len();
        bytes[at % end] ^= byte;
        bytes.truncate(end.min(length.max(1)));
        let _ = list_objects(&bytes);
    }
}
