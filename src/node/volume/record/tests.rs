//! Records on a real directory.

use std::fs;

use super::*;
use crate::kind::Kind;

fn record(id: &VolumeId) -> VolumeRecord {
    let request = Requested {
        image: "r.example/a:1".into(),
        path: "".into(),
        platform: None,
        choice: Choice::new(["a/*"], ["a/b"]).unwrap(),
        upper: Some(1 << 20),
        upper_on_disk: false,
        follow: false,
    };
    let (manifest, composefs) = (Digest::of(b"m"), VerityDigest([3; 32]));
    let image = request.choice.key(&manifest);
    let members = vec![PinnedMember { image: Digest::of(b"n"), manifest: Digest::of(b"n") }];
    let pinned = PinnedImage { image, manifest, composefs, bytes: 10, inodes: 2, members };
    let mut record = VolumeRecord::new(id, request, pinned, "boot-1");
    let mode = AccessMode::SingleNodeWriter;
    record.targets.push(PublishedTarget {
        path: "/k/pods/p/mount".into(),
        noexec: true,
        mode,
        least: Integrity::Mount,
        namespace: Some("shop".to_owned()),
    });
    record
}

#[test]
fn round_trip_and_the_field_that_the_sweep_reads() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(directory.path().join("volumes")).unwrap();
    let id: VolumeId = "../csi-1".parse().unwrap();
    assert_eq!(records.read(&id).unwrap(), None);
    records.write(&id, &record(&id)).unwrap();
    assert_eq!(records.read(&id).unwrap(), Some(record(&id)));
    let all = records.all().unwrap();
    assert_eq!(all.len(), 1);
    let json: serde_json::Value = serde_json::from_slice(&fs::read(&all[0].0).unwrap()).unwrap();
    assert_eq!(json["format"], 1);
    let chosen = record(&id);
    assert_eq!(json["image"], chosen.request.choice.key(&Digest::of(b"m")).to_string());
    assert_eq!(
        (json["manifest"].as_str(), chosen.pinned().manifest),
        (Some(&*Digest::of(b"m").to_string()), Digest::of(b"m"))
    );
    assert_eq!(json["request"]["choice"], serde_json::json!({"include": ["a/*"], "exclude": ["a/b"]}));
    assert_eq!(json["composefs"], "03".repeat(32));
    records.remove(&id).unwrap();
    records.remove(&id).unwrap();
    assert!(records.all().unwrap().is_empty());
}

#[test]
fn what_cannot_be_read_is_an_error_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(directory.path().to_owned()).unwrap();
    let id: VolumeId = "v".parse().unwrap();
    let file = directory.path().join(format!("{}.json", id.file_stem()));
    for (contents, kind) in
        [("", Kind::Corrupt), ("{\"format\":1}", Kind::Corrupt), ("{\"format\":2}", Kind::Unsupported)]
    {
        fs::write(&file, contents).unwrap();
        assert_eq!(records.read(&id).unwrap_err().kind(), kind, "{contents}");
    }
    let other: VolumeId = "w".parse().unwrap();
    fs::write(&file, serde_json::to_vec(&record(&other)).unwrap()).unwrap();
    assert!(matches!(records.read(&id), Err(RecordError::Damaged { .. })));
}

#[test]
fn a_start_removes_what_a_killed_writer_has_left() {
    let directory = tempfile::tempdir().unwrap();
    let id: VolumeId = "v".parse().unwrap();
    Records::open(directory.path().to_owned()).unwrap().write(&id, &record(&id)).unwrap();
    let left = directory.path().join("other.tmp");
    fs::write(&left, "{").unwrap();
    let records = Records::open(directory.path().to_owned()).unwrap();
    assert!(!left.exists());
    assert_eq!(records.read(&id).unwrap(), Some(record(&id)));
}

#[test]
fn a_record_of_an_earlier_release_names_no_namespace() {
    let (id, path): (VolumeId, _) = ("v".parse().unwrap(), std::path::Path::new("/r"));
    let mut written = serde_json::to_value(record(&id)).unwrap();
    assert_eq!(written["targets"][0]["namespace"], "shop");
    written["targets"][0].as_object_mut().unwrap().remove("namespace");
    let read = VolumeRecord::parse(path, written.to_string().as_bytes()).unwrap();
    assert_eq!(read.targets[0].namespace, None);
    assert_eq!(serde_json::to_value(&read).unwrap(), written);
}
