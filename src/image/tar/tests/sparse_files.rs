//! Sparse files in GNU's four formats.

use super::*;

/// A file of old GNU's: header with segments, extension blocks, content.
fn old_gnu(segments: &[(u64, u64)], size: u64, content: &[u8]) -> Vec<u8> {
    let table = |segments: &[(u64, u64)]| -> Vec<u8> {
        segments.iter().flat_map(|(o, l)| format!("{o:011o}\0{l:011o}\0").into_bytes()).collect()
    };
    let mut header = Raw::new(b'S', b"sparse", content.len() as u64);
    header.put(257, b"ustar  \0").put(386, &table(&segments[..segments.len().min(4)]));
    header.put(483, format!("{size:011o}\0").as_bytes());
    let rest: Vec<_> = segments.get(4..).unwrap_or_default().chunks(21).collect();
    header.put(482, &[u8::from(!rest.is_empty())]);
    let mut builder = Builder::default().raw(&header.with_checksum());
    for (index, chunk) in rest.iter().enumerate() {
        let mut block = [0; 512];
        let table = table(chunk);
        block[..table.len()].copy_from_slice(&table);
        block[504] = u8::from(index + 1 < rest.len());
        builder = builder.raw(&block);
    }
    builder.content(content).file(b"next", b"n").end()
}

fn check(tar: &[u8], expected: &[u8]) {
    let entries = read(tar).unwrap();
    assert_eq!(&entries[0].0.path[..], b"sparse");
    assert_eq!(entries[0].0.kind, TarKind::File(expected.len() as u64));
    assert_eq!(entries[0].1, expected);
    assert_eq!(entries[1].1, b"n");
}

#[test]
fn old_gnu_with_and_without_extension_blocks() {
    check(&old_gnu(&[(5, 3), (10, 0)], 10, b"abc"), b"\0\0\0\0\0abc\0\0");
    check(&old_gnu(&[], 5, b""), &[0; 5]);
    let segments: Vec<_> = (0..50).map(|i| (i * 2, 1)).collect();
    let expected: Vec<u8> = (0..100).map(|i| if i % 2 == 0 { b'x' } else { 0 }).collect();
    check(&old_gnu(&segments, 100, &[b'x'; 50]), &expected);
}

#[test]
fn pax_in_its_three_formats() {
    let expected = b"\0\0ab\0cd\0";
    let zero = Builder::default()
        .pax(
            b'x',
            &[
                (b"GNU.sparse.size", b"8"),
                (b"GNU.sparse.numblocks", b"2"),
                (b"GNU.sparse.offset", b"2"),
                (b"GNU.sparse.numbytes", b"2"),
                (b"GNU.sparse.offset", b"5"),
                (b"GNU.sparse.numbytes", b"2"),
            ],
        )
        .file(b"sparse", b"abcd");
    let one = Builder::default()
        .pax(
            b'x',
            &[
                (b"GNU.sparse.size", b"8"),
                (b"GNU.sparse.numblocks", b"2"),
                (b"GNU.sparse.map", b"2,2,5,2"),
                (b"GNU.sparse.name", b"sparse"),
            ],
        )
        .file(b"GNUSparseFile.1/sparse", b"abcd");
    let mut content = b"2\n2\n2\n5\n2\n".to_vec();
    content.resize(512, 0);
    content.extend_from_slice(b"abcd");
    let two = Builder::default()
        .pax(
            b'x',
            &[
                (b"GNU.sparse.major", b"1"),
                (b"GNU.sparse.minor", b"0"),
                (b"GNU.sparse.name", b"sparse"),
                (b"GNU.sparse.realsize", b"8"),
            ],
        )
        .file(b"GNUSparseFile.1/sparse", &content);
    for builder in [zero, one, two] {
        check(&builder.file(b"next", b"n").end(), expected);
    }
}

#[test]
fn maps_that_lie_are_refused() {
    for (segments, size, content) in [
        (&[(5u64, 3u64)][..], 7, &b"abc"[..]), // beyond the end
        (&[(5, 3)], 10, b"ab"),                // fewer bytes than the map says
        (&[(5, 3)], 10, b"abcd"),              // more
        (&[(5, 2), (1, 1)], 10, b"abc"),       // out of order
        (&[(0, 2), (1, 2)], 10, b"abcd"),      // overlapping
        (&[(8_589_934_591, 3)], 10, b"abc"),
    ] {
        refused(&old_gnu(segments, size, content), Kind::Invalid, "entry \"sparse\"");
    }
    let pax = |records: &[(&[u8], &[u8])], content: &[u8]| {
        Builder::default().pax(b'x', records).file(b"sparse", content).end()
    };
    for map in [
        &b"1"[..],
        b"1,2,3",
        b"1,x",
        b",",
        b"99999999999999999999,1",
        b"9223372036854775807,9223372036854775807",
    ] {
        refused(&pax(&[(b"GNU.sparse.size", b"8"), (b"GNU.sparse.map", map)], b"ab"), Kind::Invalid, "");
    }
    refused(&pax(&[(b"GNU.sparse.map", b"0,2")], b"ab"), Kind::Invalid, "real size");
    let version_1: [(&[u8], &[u8]); 2] = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"8")];
    for map in [&b"x"[..], b"\n", b"1\n1\n", b"2\n"] {
        refused(&pax(&version_1, map), Kind::Invalid, "sparse");
    }
    let mut many = b"99999999\n".to_vec();
    many.resize(512, 0);
    refused(&pax(&version_1, &many), Kind::Exhausted, "segments");
}

#[test]
fn holes_count_for_the_layer_and_not_for_the_ratio() {
    let tar = old_gnu(&[(0, 1)], 1 << 32, b"x");
    let within = |layer_bytes| {
        let image = limits::ImageLimits { layer_bytes, ..limits::ImageLimits::DEFAULT };
        let limits = TarLimits::for_blob(&image, 100);
        assert!(limits.bytes < 1 << 32);
        let mut archive = Archive::new(&tar[..], limits);
        archive.next_entry().map(|entry| entry.map(|entry| entry.kind))
    };
    assert_eq!(within(1 << 32).unwrap(), Some(TarKind::File(1 << 32)));
    let error = within((1 << 32) - 1).unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted);
    for part in ["entry \"sparse\"", "--max-layer-bytes"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}
