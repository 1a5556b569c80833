//! Archives as a whole: what is read of them, and what is refused.

mod sparse_files;

use std::io::{BufReader, Read};

use proptest::prelude::*;

use super::testing::{Builder, Raw};
use super::*;
use crate::image::entry::{EntryKind, Mtime};
use crate::kind::Kind;
use crate::oci::limits;

/// Entries with the content of files, read through a buffer of `buffer` bytes.
fn read_with(tar: impl Read, limits: TarLimits, buffer: usize) -> Result<Vec<(TarEntry, Vec<u8>)>, TarError> {
    let mut archive = Archive::new(BufReader::with_capacity(buffer, tar), limits);
    let mut entries = Vec::new();
    while let Some(entry) = archive.next_entry()? {
        let mut content = Vec::new();
        while let Some(piece) = archive.data()? {
            match piece {
                Piece::Data(bytes) => content.extend_from_slice(bytes),
                Piece::Zeros(count) => content.resize(content.len() + count as usize, 0),
            }
        }
        entries.push((entry, content));
    }
    Ok(entries)
}

fn read(tar: &[u8]) -> Result<Vec<(TarEntry, Vec<u8>)>, TarError> {
    read_with(tar, TarLimits::default(), 1000)
}

fn one(tar: &[u8]) -> (TarEntry, Vec<u8>) {
    let mut entries = read(tar).unwrap();
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

/// The archive is refused with this kind, and the message contains this.
#[track_caller]
fn refused(tar: &[u8], kind: Kind, says: &str) {
    let error = read(tar).expect_err("accepted");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(says), "{error}");
}

/// Every extension in one archive: the corpus for truncation and random damage.
fn rich() -> Vec<u8> {
    Builder::default()
        .pax(b'g', &[(b"comment", b"global"), (b"mtime", b"7.5")])
        .entry(b'5', b"dir/", b"")
        .file(b"dir/file", &[1; 700])
        .pax(b'x', &[(b"path", b"dir/pax name"), (b"SCHILY.xattr.user.a", b"\0\n"), (b"mtime", b"-1.25")])
        .file(b"ignored", b"pax")
        .entry(b'L', b"././@LongLink", &[&[b'n'; 150][..], b"\0"].concat())
        .entry(b'K', b"././@LongLink", &[&[b't'; 150][..], b"\0"].concat())
        .link(b'2', b"n", b"t")
        .link(b'1', b"hard", b"dir/file")
        .end()
}

#[test]
fn extensions_override_the_header_they_precede() {
    let entries = read(&rich()).unwrap();
    let names: Vec<_> = entries.iter().map(|(entry, _)| &entry.path[..]).collect();
    assert_eq!(names, [&b"dir"[..], b"dir/file", b"dir/pax name", &[b'n'; 150], b"hard"]);
    assert_eq!(entries[1].0.meta.mtime, Mtime::default(), "a global header counts for nothing");
    assert_eq!(entries[2].0.meta.mtime, Mtime { secs: -2, nanos: 750_000_000 }, "its own");
    assert_eq!(&entries[2].0.meta.xattrs[0].1[..], b"\0\n");
    assert_eq!(entries[3].0.kind, TarKind::Other(EntryKind::Symlink([b't'; 150].into())));
    assert_eq!(entries[3].0.meta.xattrs, [], "an extension is for one entry");
    assert_eq!(entries[4].0.kind, TarKind::Other(EntryKind::Hardlink((*b"dir/file").into())));
}

#[test]
fn every_truncation_is_noticed_unless_it_is_between_entries() {
    let tar = rich();
    // Where the two files' contents end, until their padding does.
    let paddings = [2748..3072, 4611..5120];
    let whole = read(&tar).unwrap().len();
    let mut clean_ends = 0;
    for length in 0..tar.len() {
        match read(&tar[..length]) {
            Ok(entries) => {
                let padding = paddings.iter().any(|padding| padding.contains(&length));
                assert!(length % 512 == 0 || padding, "cut to {length} bytes");
                assert!(entries.len() <= whole);
                clean_ends += 1;
            }
            Err(error) => assert!(matches!(error, TarError::Truncated(_)), "{length}: {error}"),
        }
    }
    // At each of the five entries' ends, before and behind the global header, in the end's zeros, and in
    // the paddings.
    assert_eq!(clean_ends, 8 + paddings.iter().map(ExactSizeIterator::len).sum::<usize>());
    refused(&tar[..512 * 5], Kind::Invalid, "dir/file");
}

#[test]
fn content_comes_in_pieces_of_any_size() {
    let tar = rich();
    let whole = read(&tar).unwrap();
    for buffer in [1, 3, 511, 512, 513, 100_000] {
        assert_eq!(read_with(&tar[..], TarLimits::default(), buffer).unwrap(), whole);
    }
}

#[test]
fn what_follows_the_end_is_left_in_the_stream() {
    let tar = Builder::default().file(b"a", b"x").raw(&[0; 1024]).raw(&[7; 5000]).0;
    let mut archive = Archive::new(&tar[..], TarLimits::default());
    while archive.next_entry().unwrap().is_some() {}
    assert_eq!(archive.into_source(), [7; 5000]);
    // An archive without any block of zeros is accepted, too.
    assert_eq!(read(&Builder::default().file(b"a", b"x").0).unwrap().len(), 1);
    assert_eq!(read(b"").unwrap(), []);
    let lone = Builder::default().raw(&[0; 512]).file(b"a", b"x").end();
    refused(&lone, Kind::Invalid, "lone block of zeros");
}

#[test]
fn directories_in_all_their_guises() {
    for flag in [b'5', b'\0', b'D'] {
        let (entry, content) = one(&Builder::default().entry(flag, b"./d/", b"").end());
        assert_eq!((&entry.path[..], entry.kind), (&b"d"[..], TarKind::Other(EntryKind::Directory)));
        assert!(content.is_empty());
    }
    for root in [&b"."[..], b"./", b"/", b"", b"//", b"./."] {
        for flag in [b'5', b'D'] {
            let (entry, _) = one(&Builder::default().entry(flag, root, b"").end());
            assert_eq!((&*entry.path, entry.kind), (&b""[..], TarKind::Other(EntryKind::Directory)));
        }
    }
    for flag in [b'0', b'\0', b'7'] {
        let (entry, _) = one(&Builder::default().entry(flag, b"./", b"").end());
        assert_eq!((&*entry.path, entry.kind), (&b""[..], TarKind::Other(EntryKind::Directory)));
        refused(&Builder::default().entry(flag, b"", b"").end(), Kind::Invalid, "name is empty");
    }
    let root = Builder::default().pax(b'x', &[(b"path", b"")]).entry(b'5', b"./", b"");
    assert_eq!(&*one(&root.end()).0.path, b"");
    // Anything else that ends in a slash is what its type says.
    for (flag, content) in [(b'0', &b""[..]), (b'0', b"content"), (b'7', b"content")] {
        let (entry, read) = one(&Builder::default().entry(flag, b"./d/", content).end());
        assert_eq!((&*entry.path, entry.kind), (&b"d"[..], TarKind::File(content.len() as u64)));
        assert_eq!(read, content);
    }
    let (link, _) = one(&Builder::default().link(b'2', b"l/", b"target/").end());
    assert_eq!(link.kind, TarKind::Other(EntryKind::Symlink((*b"target/").into())));
    // A directory, link or pipe has no content, whatever its size says.
    for flag in b'1'..=b'6' {
        let mut header = Raw::new(flag, b"sized", 5000);
        let tar =
            Builder::default().raw(&header.put(157, b"target").with_checksum()).file(b"next", b"n").end();
        let entries = read(&tar).unwrap();
        assert_eq!(entries.len(), 2, "type {}", flag as char);
        assert_eq!(entries[1].1, b"n");
    }
    refused(&Builder::default().entry(b'\0', b"d/", b"content").end(), Kind::Invalid, "entry \"d/\"");
    refused(&Builder::default().file(b".", b"content").end(), Kind::Invalid, "root");
}

#[test]
fn prefixes_of_ustar_and_star_and_none_in_gnu() {
    let mut header = Raw::new(b'0', b"name", 0);
    header.put(345, &[b'p'; 155]);
    assert_eq!(one(&header.with_checksum()).0.path.len(), 160);
    header
        .put(508, b"tar\0")
        .put(345, &[0; 155])
        .put(345, &[b'p'; 131])
        .put(476, b"00000000001 00000000001 ");
    assert_eq!(one(&header.with_checksum()).0.path.len(), 136);
    header.put(257, b"ustar  \0");
    assert_eq!(&one(&header.with_checksum()).0.path[..], b"name");
    header.put(257, &[0; 8]);
    assert_eq!(&one(&header.with_checksum()).0.path[..], b"name");
}

#[test]
fn checksums_are_verified_signed_or_unsigned() {
    let mut header = Raw::new(b'0', b"caf\xe9", 0);
    let mut block = header.with_checksum();
    assert_eq!(&one(&block).0.path[..], b"caf\xe9");
    let signed: i64 = block
        .iter()
        .enumerate()
        .map(|(i, b)| if (148..156).contains(&i) { 32 } else { i64::from(*b as i8) })
        .sum();
    block[148..156].copy_from_slice(format!("{signed:06o}\0 ").as_bytes());
    assert_eq!(&one(&block).0.path[..], b"caf\xe9");
    block[0] ^= 1;
    refused(&block, Kind::Invalid, "header at byte 0");
    refused(&header.put(148, b"notanum ").0, Kind::Invalid, "checksum");
    let second = Builder::default().file(b"a", b"x").raw(&[b'x'; 512]).end();
    refused(&second, Kind::Invalid, "header at byte 1024");
}

#[test]
fn names_that_lead_out_of_the_tree_are_refused() {
    for name in [&b"../x"[..], b"a/../../x", b"..", b"/../x", b"//../x", b".wh...", b".wh.", b"a/.wh.b/c"] {
        let shown = name.escape_ascii().to_string();
        refused(&Builder::default().file(name, b"x").end(), Kind::Invalid, &shown);
        let pax = Builder::default().pax(b'x', &[(b"path", name)]).file(b"fine", b"x").end();
        refused(&pax, Kind::Invalid, &shown);
    }
    for target in [&b"../x"[..], b"/../etc/passwd", b"a/../../x"] {
        refused(&Builder::default().link(b'1', b"hard", target).end(), Kind::Invalid, "entry \"hard\"");
        assert_eq!(read(&Builder::default().link(b'2', b"soft", target).end()).unwrap().len(), 1);
    }
    let nul = Builder::default().pax(b'x', &[(b"path", b"a\0b")]).file(b"fine", b"x").end();
    refused(&nul, Kind::Invalid, "NUL");
    refused(&Builder::default().link(b'2', b"soft", b"").end(), Kind::Invalid, "soft");
    let long = [&b"d/"[..], &[b'n'; 256]].concat();
    refused(&Builder::default().pax(b'x', &[(b"path", &long)]).file(b"x", b"").end(), Kind::Invalid, "255");
}

#[test]
fn absolute_names_begin_at_the_root_of_the_tree() {
    let tar = Builder::default()
        .entry(b'5', b"/", b"")
        .file(b"/ko-app/tool", b"x")
        .link(b'1', b"//ko-app/again", b"/ko-app/tool")
        .link(b'2', b"/link", b"/ko-app")
        .file(b"/ko-app/.wh.old", b"")
        .end();
    let entries = read(&tar).unwrap();
    let paths: Vec<_> = entries.iter().map(|(entry, _)| &entry.path[..]).collect();
    assert_eq!(paths, [&b""[..], b"ko-app/tool", b"ko-app/again", b"link", b"ko-app/old"]);
    assert_eq!(entries[2].0.kind, TarKind::Other(EntryKind::Hardlink((*b"ko-app/tool").into())));
    assert_eq!(entries[3].0.kind, TarKind::Other(EntryKind::Symlink((*b"/ko-app").into())), "verbatim");
    assert_eq!(entries[4].0.kind, TarKind::Other(EntryKind::Whiteout));
}

#[test]
fn whiteouts_have_no_content_and_aufs_bookkeeping_is_skipped() {
    let tar = Builder::default()
        .file(b"a/.wh.gone", b"ignored content")
        .file(b"b/.wh..wh..opq", b"")
        .entry(b'5', b".wh..wh.plnk/", b"")
        .file(b".wh..wh.plnk/1.2", b"x")
        .link(b'2', b".wh..wh.plnk/3.4", b"x")
        .file(b".wh..wh.orph/5", b"x")
        .link(b'1', b".wh..wh.aufs", b"../x")
        .link(b'1', b"name", b"./.wh..wh.plnk/1.2")
        .file(b"kept", b"k")
        .end();
    let entries = read(&tar).unwrap();
    let kinds: Vec<_> = entries.iter().map(|(entry, _)| (&entry.path[..], entry.kind.clone())).collect();
    assert_eq!(
        kinds,
        [
            (&b"a/gone"[..], TarKind::Other(EntryKind::Whiteout)),
            (b"b", TarKind::Other(EntryKind::Opaque)),
            (b".wh..wh.plnk/1.2", TarKind::File(1)),
            (b"name", TarKind::Other(EntryKind::Hardlink((*b".wh..wh.plnk/1.2").into()))),
            (b"kept", TarKind::File(1)),
        ]
    );
}

#[test]
fn impossible_numbers_are_refused() {
    let with = |at: usize, field: &[u8]| Raw::new(b'0', b"odd", 0).put(at, field).with_checksum();
    refused(&with(124, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), Kind::Invalid, "negative");
    refused(&with(124, b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), Kind::Invalid, "size");
    refused(&with(124, b"0000000x000\0"), Kind::Invalid, "size");
    refused(&with(108, b"\x80\0\0\x01\0\0\0\0"), Kind::Invalid, "32 bits");
    refused(&with(100, b"rw-r--r-"), Kind::Invalid, "mode");
    refused(&with(116, b"\xfe\0\0\x01\0\0\0\0"), Kind::Invalid, "32 bits");
    // 8 EiB, 1 TiB: more than any layer may have, and not a byte of it was there.
    refused(&with(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"), Kind::Exhausted, "entry \"odd\"");
    refused(&with(124, b"\x80\0\0\0\0\0\x01\0\0\0\0\x01"), Kind::Exhausted, "limit");
    let pax = Builder::default().pax(b'x', &[(b"size", b"-5")]).file(b"x", b"").end();
    refused(&pax, Kind::Invalid, "PAX number");
    let device =
        Builder::default().raw(&Raw::new(b'3', b"dev", 0).put(329, b"7777777\0").with_checksum()).end();
    assert_eq!(one(&device).0.kind, TarKind::Other(EntryKind::CharDevice(0o7_777_777, 0)));
}

#[test]
fn owners_are_the_32_bits_that_chown_gets() {
    let binary = |id: i64| [&[if id < 0 { 0xff } else { 0x80 }][..], &id.to_be_bytes()[1..]].concat();
    for (id, owner) in [
        (-2, u32::MAX - 1),
        (i64::from(i32::MIN), 1 << 31),
        (-1, 0),
        (i64::from(u32::MAX), 0),
        (i64::from(u32::MAX) - 1, u32::MAX - 1),
        (3_000_000_000, 3_000_000_000),
    ] {
        let header = Raw::new(b'0', b"f", 0).put(108, &binary(id)).put(116, &binary(id)).with_checksum();
        let pax = Builder::default()
            .pax(b'x', &[(b"uid", id.to_string().as_bytes()), (b"gid", id.to_string().as_bytes())])
            .file(b"f", b"");
        for tar in [header, pax.end()] {
            let meta = one(&tar).0.meta;
            assert_eq!((meta.uid, meta.gid), (owner, owner), "{id}");
        }
    }
    for id in [i64::from(i32::MIN) - 1, 1 << 32] {
        refused(&Raw::new(b'0', b"f", 0).put(108, &binary(id)).with_checksum(), Kind::Invalid, "32 bits");
    }
}

#[test]
fn numbers_may_begin_with_nuls() {
    let header = Raw::new(b'0', b"f", 0)
        .put(100, b"\0\0\0\x000755")
        .put(108, b"\0\0\0\x001750")
        .put(116, b"\0 1751\0 ")
        .put(136, b"\0\0\0\0\0\0\0\0\x00017")
        .with_checksum();
    let meta = one(&header).0.meta;
    assert_eq!((meta.mode, meta.uid, meta.gid, meta.mtime.secs), (0o755, 1000, 1001, 15));
}

#[test]
fn of_several_names_the_one_counts_that_go_takes() {
    let name = |tar: Builder| String::from_utf8(one(&tar.end()).0.path.to_vec()).unwrap();
    let gnu = |tar: Builder, name: &[u8]| tar.entry(b'L', b"././@LongLink", &[name, b"\0"].concat());
    let pax = |tar: Builder, name: &[u8]| tar.pax(b'x', &[(b"path", name)]);
    let new = Builder::default;
    assert_eq!(name(pax(gnu(new(), b"gnul"), b"paxn").file(b"x", b"1")), "gnul");
    assert_eq!(name(gnu(pax(new(), b"paxn"), b"gnul").file(b"x", b"1")), "gnul");
    assert_eq!(name(gnu(gnu(new(), b"one"), b"two").file(b"x", b"1")), "two");
    assert_eq!(name(pax(gnu(new(), b""), b"paxn").file(b"x", b"1")), "paxn");
    assert_eq!(name(pax(pax(new(), b"one"), b"").file(b"x", b"1")), "x", "the last header counts alone");
    let both = pax(new(), b"paxn").pax(b'x', &[(b"mtime", b"7")]);
    assert_eq!(name(both.file(b"x", b"1")), "x");
    // A global header counts for nothing, and ends what was said before it.
    assert_eq!(name(new().pax(b'g', &[(b"path", b"all"), (b"size", b"9")]).file(b"x", b"1")), "x");
    assert_eq!(name(pax(new(), b"paxn").pax(b'g', &[(b"comment", b"c")]).file(b"x", b"1")), "x");
    assert_eq!(name(new().entry(b'g', b"pax", b"no record at all").file(b"x", b"1")), "x");
    let target = new()
        .pax(b'x', &[(b"linkpath", b"paxt")])
        .entry(b'K', b"././@LongLink", b"gnut\0")
        .link(b'2', b"l", b"t");
    assert_eq!(one(&target.end()).0.kind, TarKind::Other(EntryKind::Symlink((*b"gnut").into())));
}

#[test]
fn lying_extended_headers_are_refused() {
    for body in [&b"99 path=x\n"[..], b"garbage", b"5 a=b\n"] {
        refused(&Builder::default().entry(b'x', b"pax", body).file(b"x", b"").end(), Kind::Invalid, "PAX");
    }
    let huge = Raw::new(b'x', b"pax", 1 << 30).with_checksum();
    refused(&huge, Kind::Exhausted, "extended header");
    let huge = Raw::new(b'L', b"long", 1 << 30).with_checksum();
    refused(&huge, Kind::Exhausted, "extended header");
    let long = Builder::default().entry(b'L', b"long", &[b'x'; 5000]).file(b"x", b"").end();
    refused(&long, Kind::Exhausted, "4095");
    let dangling = Builder::default().pax(b'x', &[(b"path", b"x")]).end();
    refused(&dangling, Kind::Invalid, "cut off");
    refused(&Builder::default().entry(b'M', b"part", b"").end(), Kind::Unsupported, "multi-volume");
    refused(&Builder::default().entry(b'?', b"odd", b"").end(), Kind::Unsupported, "entry \"odd\"");
    assert_eq!(read(&Builder::default().entry(b'V', b"label", b"").end()).unwrap(), []);
}

#[test]
fn limits_hold() {
    let many = Builder::default().file(b"a", b"").file(b"b", b"").file(b"c", b"").end();
    let limits = TarLimits { headers: 2, ..TarLimits::default() };
    assert_eq!(read_with(&many[..], limits, 512).unwrap_err().kind(), Kind::Exhausted);
    let limits = TarLimits { bytes: 1000, ..TarLimits::default() };
    let fits = Builder::default().file(b"a", &[0; 500]).file(b"b", &[0; 500]).end();
    assert_eq!(read_with(&fits[..], limits, 512).unwrap().len(), 2);
    let over = Builder::default().file(b"a", &[0; 500]).file(b"b", &[0; 501]).end();
    let error = read_with(&over[..], limits, 512).unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted);
    assert!(error.to_string().contains("entry \"b\""), "{error}");
    let image = limits::ImageLimits::DEFAULT;
    assert_eq!(TarLimits::for_blob(&image, 10).bytes, 1 << 30);
    assert_eq!(TarLimits::for_blob(&image, 1 << 30).bytes, 200 << 30);
    assert_eq!(TarLimits::for_blob(&image, u64::MAX), TarLimits::default());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    /// Corruption with checksums put right again, so that the parsers behind them are reached.
    #[test]
    fn damage_is_an_error_or_another_archive_but_never_worse(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        cut_at_all in any::<bool>(),
    ) {
        let mut tar = rich();
        for (index, byte) in changes {
            let at = index.index(tar.len());
            tar[at] = byte;
            let start = at / 512 * 512;
            let block: [u8; 512] = tar[start..start + 512].try_into().unwrap();
            if block[257..].starts_with(b"ustar") {
                tar[start..start + 512].copy_from_slice(&Raw(block).with_checksum());
            }
        }
        if cut_at_all {
            tar.truncate(cut.index(tar.len()));
        }
        let limits = TarLimits { bytes: 1 << 20, bytes_with_holes: 1 << 22, ..TarLimits::default() };
        if let Ok(entries) = read_with(&tar[..], limits, 4096) {
            for (entry, content) in entries {
                prop_assert!(crate::image::entry::is_clean(&entry.path));
                match entry.kind {
                    TarKind::File(size) => prop_assert_eq!(size, content.len() as u64),
                    TarKind::Other(_) => prop_assert!(content.is_empty()),
                }
            }
        }
    }
}
