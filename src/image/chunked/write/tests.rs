use std::collections::HashSet;
use std::io::Read as _;

use proptest::prelude::*;

use super::cut::PIECE_MAX;
use super::*;
use crate::image::chunked::{Positions, Segment, TarSplit, Toc, compare};
use crate::oci::manifest::Descriptor;

/// Files as an archive of ours has them: a header of a block, the content, padding.
fn written(files: &[(String, Vec<u8>)]) -> (Vec<u8>, Vec<u8>, BTreeMap<String, String>) {
    let (mut writer, mut tar) = (ChunkedWriter::new(Vec::new(), 3).unwrap(), Vec::new());
    let raw = |writer: &mut ChunkedWriter<Vec<u8>>, tar: &mut Vec<u8>, bytes: &[u8]| {
        writer.raw(bytes).unwrap();
        tar.extend_from_slice(bytes);
    };
    for (name, content) in files {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        raw(&mut writer, &mut tar, &header);
        let size = content.len() as u64;
        writer.entry(Described { sort: "reg", name: name.clone(), size, ..Described::default() }).unwrap();
        for part in content.chunks(70_001) {
            writer.content(part).unwrap();
        }
        tar.extend_from_slice(content);
        raw(&mut writer, &mut tar, &vec![0; content.len().next_multiple_of(512) - content.len()]);
    }
    raw(&mut writer, &mut tar, &[0; 1024]);
    let (blob, annotations) = writer.finish().unwrap();
    (blob, tar, annotations)
}

/// The archive from the two tables and the frames, and the digests of pieces.
fn read(blob: &[u8], annotations: BTreeMap<String, String>) -> (Vec<u8>, HashSet<Digest>) {
    let layer = Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar+zstd".to_owned(),
        digest: Digest::of(blob),
        size: blob.len() as u64,
        annotations,
    };
    let positions = Positions::of(&layer).unwrap().expect("zstd:chunked");
    let at = |range: std::ops::Range<u64>| &blob[range.start as usize..range.end as usize];
    let toc = Toc::read(at(positions.toc.range()), &positions, 1 << 20).unwrap();
    let packed = at(positions.tar_split.range());
    let open = || TarSplit::open(packed, &positions.tar_split, &toc.tar_split).unwrap();
    compare(&mut open(), &toc).unwrap();
    let (mut tar, mut files, mut pieces) = (Vec::new(), toc.files.iter(), HashSet::new());
    let mut split = open();
    while let Some(segment) = split.next_segment().unwrap() {
        match segment {
            Segment::Raw(raw) => tar.extend(raw),
            Segment::File { .. } => {
                let file = files.next().unwrap();
                let content = zstd::decode_all(at(file.frames.clone())).unwrap();
                assert_eq!(Digest::of(&content), file.digest);
                for chunk in toc.chunks(file) {
                    let piece = zstd::decode_all(at(chunk.frames.clone())).unwrap();
                    assert_eq!(piece, content[chunk.bytes.start as usize..chunk.bytes.end as usize]);
                    match chunk.digest {
                        Some(digest) => assert_eq!(Digest::of(&piece), digest),
                        None => assert!(piece.iter().all(|byte| *byte == 0)),
                    }
                    pieces.extend(chunk.digest);
                }
                tar.extend(content);
            }
        }
    }
    (tar, pieces)
}

fn noise(seed: u8, size: usize) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(|_| next()).collect()
}

#[test]
fn a_layer_is_a_plain_zstd_stream_and_can_be_put_together_from_its_parts() {
    let files = [
        ("a".to_owned(), b"small".to_vec()),
        ("empty".to_owned(), Vec::new()),
        ("large".to_owned(), noise(1, 3 << 20)),
        ("holes".to_owned(), [noise(2, 5000), vec![0; 3 << 20], noise(3, 5000)].concat()),
        ("zeros".to_owned(), vec![0; 100]),
        ("ü".to_owned(), noise(4, PIECE_MAX)),
    ];
    let (blob, tar, annotations) = written(&files);
    let mut whole = Vec::new();
    zstd::Decoder::new(&blob[..]).unwrap().read_to_end(&mut whole).unwrap();
    assert_eq!(whole, tar, "who knows nothing of tables reads the archive");
    assert_eq!(read(&blob, annotations.clone()).0, tar);
    assert_eq!(written(&files), (blob, tar, annotations), "the same again");
}

#[test]
fn a_second_version_has_the_pieces_of_the_first() {
    let content = noise(5, 4 << 20);
    let mut changed = content.clone();
    changed.splice(1 << 20..1 << 20, *b"fourteen bytes");
    let pieces = |content: Vec<u8>| {
        let (blob, _, annotations) = written(&[("large".to_owned(), content)]);
        read(&blob, annotations).1
    };
    let (before, after) = (pieces(content), pieces(changed));
    let new = after.difference(&before).count();
    assert!((1..=3).contains(&new), "{new} of {} are new", after.len());
}

#[test]
fn checksums_are_those_of_go() {
    // crc64.Checksum([]byte("123456789"), crc64.MakeTable(crc64.ISO))
    assert_eq!(CHECKSUM.checksum(b"123456789"), 0xb909_56c7_75a4_1001);
}

#[test]
fn content_that_no_entry_has_is_refused() {
    let mut writer = ChunkedWriter::new(Vec::new(), 3).unwrap();
    assert!(writer.content(b"x").is_err());
    writer.entry(Described { sort: "reg", size: 2, ..Described::default() }).unwrap();
    assert!(writer.content(b"xyz").is_err());
    let mut writer = ChunkedWriter::new(Vec::new(), 3).unwrap();
    writer.entry(Described { sort: "reg", size: 2, ..Described::default() }).unwrap();
    writer.content(b"x").unwrap();
    assert!(writer.finish().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_files_come_back(sizes in prop::collection::vec((0_usize..300_000, any::<bool>()), 0..8)) {
        let content = |number: usize, (size, zeros): (usize, bool)| match zeros {
            true => vec![0; size],
            false => noise(number as u8, size),
        };
        let files: Vec<_> = sizes.into_iter().enumerate().map(|(n, s)| (format!("f{n}"), content(n, s))).collect();
        let (blob, tar, annotations) = written(&files);
        prop_assert_eq!(zstd::decode_all(&blob[..]).unwrap(), tar.clone());
        prop_assert_eq!(read(&blob, annotations).0, tar);
    }
}
