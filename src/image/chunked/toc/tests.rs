use serde_json::{Value, json};

use super::super::testing::{ChunkedRules, chunked};
use super::*;

fn parse(toc: &Value, end: u64) -> Result<Toc, Doubt> {
    Toc::parse(toc.to_string().as_bytes(), end, 1000)
}

fn digest(of: u8) -> String {
    Digest::of(&[of]).to_string()
}

/// A table with one file of two chunks and one hole, and one of one piece.
fn table() -> Value {
    json!({"version": 1, "tarSplitDigest": digest(9), "unknown": [{"deep": null}], "entries": [
        {"type": "dir", "name": "d/", "mode": 493, "xattrs": {"user.a": "YQ=="}},
        {"type": "reg", "name": "d/big", "size": 100, "digest": digest(1), "offset": 10, "endOffset": 60,
         "chunkSize": 40, "chunkDigest": digest(2)},
        {"type": "chunk", "name": "d/big", "offset": 30, "chunkOffset": 40, "chunkSize": 50, "chunkType": "zeros"},
        {"type": "chunk", "name": "d/big", "offset": 35, "chunkOffset": 90, "chunkSize": 10, "chunkDigest": digest(3)},
        {"type": "reg", "name": "empty", "mode": 420},
        {"type": "hardlink", "name": "h", "linkName": "d/big"},
        {"type": "reg", "name": "small", "size": 7, "digest": digest(4), "offset": 60, "endOffset": 70},
    ]})
}

#[test]
fn files_and_chunks_have_their_places() {
    let toc = parse(&table(), 100).unwrap();
    let [big, small] = &toc.files[..] else { panic!("{:?}", toc.files) };
    assert_eq!((&*big.name, big.size, big.frames.clone()), ("d/big", 100, 10..60));
    let chunk =
        |frames, bytes, of: Option<u8>| Chunk { frames, bytes, digest: of.map(|of| Digest::of(&[of])) };
    let expected =
        [chunk(10..30, 0..40, Some(2)), chunk(30..35, 40..90, None), chunk(35..60, 90..100, Some(3))];
    assert_eq!(toc.chunks(big), expected);
    assert_eq!((&*small.name, small.digest, toc.chunks(small)), ("small", Digest::of(&[4]), &[][..]));
    assert_eq!(toc.tar_split, Digest::of(&[9]));
}

#[test]
fn what_is_not_sound_is_a_doubt() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 17] = [
        ("another version", |t| t["version"] = 2.into()),
        ("no version", |t| drop(t.as_object_mut().unwrap().remove("version"))),
        ("no tar-split", |t| t["tarSplitDigest"] = Value::Null),
        ("a tar-split without sha256", |t| t["tarSplitDigest"] = "crc:0".into()),
        ("entries that are none", |t| t["entries"] = json!({})),
        ("no digest", |t| t["entries"][1]["digest"] = Value::Null),
        ("another digest", |t| t["entries"][1]["digest"] = "md5:00".into()),
        ("no end", |t| t["entries"][1]["endOffset"] = Value::Null),
        ("an end before the start", |t| t["entries"][1]["endOffset"] = 5.into()),
        ("an overlap", |t| t["entries"][6]["offset"] = 59.into()),
        ("a place among the tables", |t| t["entries"][6]["endOffset"] = 101.into()),
        ("a negative place", |t| t["entries"][6]["offset"] = (-1).into()),
        ("a chunk of another file", |t| t["entries"][2]["name"] = "small".into()),
        ("a chunk before its file", |t| t["entries"][2]["offset"] = 5.into()),
        ("a chunk behind its file", |t| t["entries"][3]["offset"] = 60.into()),
        ("a chunk out of order", |t| t["entries"][3]["chunkOffset"] = 30.into()),
        ("a chunk without a digest", |t| t["entries"][3]["chunkDigest"] = Value::Null),
    ];
    for (what, change) in changes {
        let mut changed = table();
        change(&mut changed);
        assert!(matches!(parse(&changed, 100), Err(Doubt::Toc(_))), "{what}");
    }
    assert!(parse(&table(), 100).is_ok());
}

#[test]
fn what_the_format_does_not_describe_is_left_to_the_whole_layer() {
    let mut twice = table();
    twice["entries"][6]["name"] = "d".into();
    assert_eq!(parse(&twice, 100), Err(Doubt::Unfit("two entries of one name")));
    let mut unknown = table();
    unknown["entries"][6]["name"] = "\u{fffd}".into();
    assert_eq!(parse(&unknown, 100), Err(Doubt::Unfit("names that are not UTF-8")));
}

#[test]
fn the_number_of_entries_is_bounded() {
    let many = Toc::parse(table().to_string().as_bytes(), 100, 6);
    assert!(matches!(many, Err(Doubt::TooLarge { bytes: 7, limit: 6, .. })));
}

#[test]
fn a_table_is_read_by_the_digest_and_within_the_bytes_that_the_manifest_states() {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(5000);
    header.set_mode(0o644);
    tar.append_data(&mut header, "a", &[7; 5000][..]).unwrap();
    let layer = chunked(&tar.into_inner().unwrap(), ChunkedRules::default());
    let descriptor = crate::oci::manifest::Descriptor {
        media_type: String::new(),
        digest: Digest::of(&layer.blob),
        size: layer.blob.len() as u64,
        annotations: layer.annotations.clone(),
    };
    let positions = Positions::of(&descriptor).unwrap().unwrap();
    let range = positions.toc.range();
    let packed = &layer.blob[range.start as usize..range.end as usize];
    let toc = Toc::read(packed, &positions, 10).unwrap();
    assert_eq!((toc.files.len(), toc.chunks(&toc.files[0]).len()), (1, 2));
    let mut short = positions;
    short.toc.unpacked -= 1;
    assert!(matches!(Toc::read(packed, &short, 10), Err(Doubt::Toc(_))));
    let other = Toc::read(&packed[1..], &positions, 10);
    assert_eq!(other, Err(Doubt::Digest("table of contents")));
}
