//! What the golden tests (tests/tools/golden.rs) do not see: determinism, damaged images, panics.

use proptest::prelude::*;

use super::*;
use crate::image::entry::{EntryKind, INLINE_MAX, LayerEntry, Meta};
use crate::image::tree::{Builder, Combiner, Rules, Stop, TreeError};
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

/// The image again, from what is read of it below `path`.
fn again(bytes: &[u8], path: &str) -> Result<ImageBytes, ImageError> {
    let mut combiner = Combiner::new(Default::default(), &Stop::default());
    combiner.begin("the image", b"");
    each_entry(bytes, path.as_bytes(), |entry| combiner.add(entry))?.unwrap();
    write_image(combiner.finish())
}

fn entry(path: &str, kind: EntryKind) -> LayerEntry {
    LayerEntry { path: path.as_bytes().into(), meta: Meta::default(), kind }
}

fn symlink(path: &str, target: &str) -> LayerEntry {
    entry(path, EntryKind::Symlink(target.as_bytes().into()))
}

#[test]
fn a_directory_is_found_as_when_it_is_mounted() {
    let tree = [
        object("v1/model", 1),
        symlink("latest", "/v1"),
        symlink("up", "../../../v1/."),
        symlink("file", "v1/model"),
        symlink("loop", "loop"),
    ];
    let bytes = image(&tree).bytes;
    let v1 = again(&bytes, "v1").unwrap();
    assert_eq!((v1.inodes, v1.file_bytes), (2, 1000));
    for path in ["latest", "up", "latest/../up"] {
        assert_eq!(again(&bytes, path).unwrap(), v1, "{path}");
    }
    for (path, word) in
        [("v2", "exist"), ("file", "not a directory"), ("v1/model/x", "not a"), ("loop", "many")]
    {
        let error = again(&bytes, path).unwrap_err();
        assert!(error.to_string().contains(word), "{path}: {error}");
        assert_eq!(error.kind(), Kind::Invalid);
    }
}

#[test]
fn the_first_error_ends_the_walk() {
    let bytes = image(&[object("a", 1), object("b", 2)]).bytes;
    let mut seen = 0;
    let ended = each_entry(&bytes, b"", |_| {
        seen += 1;
        if seen == 2 { Err(TreeError::Stopped) } else { Ok(()) }
    });
    assert!(matches!(ended, Ok(Err(TreeError::Stopped))));
    assert_eq!(seen, 2);
}

fn any_entry() -> impl Strategy<Value = LayerEntry> {
    let kind = prop_oneof![
        2 => Just(EntryKind::Directory),
        2 => proptest::collection::vec(any::<u8>(), 0..=INLINE_MAX).prop_map(|b| EntryKind::Inline(b.into())),
        2 => (any::<u8>(), 65..1u64 << 40).prop_map(|(d, size)| EntryKind::Object(VerityDigest([d; 32]), size)),
        1 => "[a-z/.]{1,80}".prop_map(|target| EntryKind::Symlink(target.into_bytes().into())),
        1 => "[ab](/[ab]){0,2}".prop_map(|target| EntryKind::Hardlink(target.into_bytes().into())),
        1 => (0u32..0x1000, 1u32..0x10_0000).prop_map(|(a, b)| EntryKind::CharDevice(a, b)),
        1 => (0u32..0x1000, 0u32..0x10_0000).prop_map(|(a, b)| EntryKind::BlockDevice(a, b)),
        1 => Just(EntryKind::Fifo),
    ];
    let xattr = ("user\\.[a-c]{1,3}|security.capability|system.posix_acl_access", "[a-z]{0,40}");
    let xattrs = proptest::collection::btree_map(xattr.0, xattr.1, 0..3);
    let numbers = (0u32..0o10000, any::<u32>(), any::<u32>(), 0i64..1 << 33, 0u32..1_000_000_000);
    ("[ab](/[ab]){0,3}", kind, numbers, xattrs).prop_map(
        |(path, kind, (mode, uid, gid, secs, nanos), xattrs)| {
            let xattrs =
                xattrs.into_iter().map(|(n, v)| (n.into_bytes().into(), v.into_bytes().into())).collect();
            let mtime = crate::image::entry::Mtime { secs, nanos };
            LayerEntry { path: path.into_bytes().into(), meta: Meta { mode, uid, gid, mtime, xattrs }, kind }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever an image holds is read from it again.
    #[test]
    fn what_is_read_gives_the_same_image(entries in proptest::collection::vec(any_entry(), 0..24)) {
        let mut builder = Builder::new(Rules::Verbatim);
        for entry in entries {
            // Each a layer of its own: later ones replace earlier ones, and none fails for another one's sake.
            let mut layer = builder.layer();
            if layer.apply(entry).is_err() || layer.end().is_err() {
                return Ok(());
            }
        }
        let Ok(tree) = builder.finish() else { return Ok(()) };
        let image = write_image(tree).unwrap();
        prop_assert!(again(&image.bytes, "").unwrap() == image);
    }

    /// Corruption may go unseen here (the fs-verity digest is there for that), but must not end the process.
    #[test]
    fn a_damaged_image_is_survived(at in 0usize..12_288, byte: u8, length in 0usize..12_288) {
        let mut bytes = image(&[object("a", 1), object("d/c", 2)]).bytes.into_vec();
        let end = bytes.len();
        bytes[at % end] ^= byte;
        bytes.truncate(end.min(length.max(1)));
        let _ = list_objects(&bytes);
        let _ = each_entry(&bytes, b"d", |_| Ok::<_, TreeError>(()));
    }
}
