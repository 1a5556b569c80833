use std::io::Read as _;

use std::path::Path;

use rustix::io::Errno;

use super::*;
use crate::image::verity::VerityDigest;

fn store() -> (tempfile::TempDir, Objects) {
    let dir = tempfile::tempdir().unwrap();
    Objects::create(dir.path()).unwrap();
    Objects::create(dir.path()).unwrap();
    let objects = Objects::open(dir.path(), false).unwrap();
    (dir, objects)
}

fn read(objects: &Objects, digest: &VerityDigest) -> Vec<u8> {
    let mut content = Vec::new();
    std::fs::File::from(objects.get(digest).unwrap()).read_to_end(&mut content).unwrap();
    content
}

fn all(objects: &Objects) -> Vec<VerityDigest> {
    let mut found = Vec::new();
    let visit = |digest| {
        found.push(digest);
        Ok::<_, ObjectError>(())
    };
    objects.for_each(visit).unwrap();
    found.sort();
    found
}

#[test]
fn content_is_stored_once_whichever_way_it_comes() {
    let (_dir, objects) = store();
    let content = vec![7; 10_000];
    let (digest, put) = objects.put(&content).unwrap();
    assert_eq!((digest, put), (VerityDigest::of(&content), Put::Written));
    assert_eq!(objects.put(&content).unwrap(), (digest, Put::Present));
    let mut writer = objects.writer().unwrap();
    content.chunks(999).for_each(|chunk| writer.write(chunk).unwrap());
    assert_eq!(writer.size(), 10_000);
    assert_eq!(writer.finish().unwrap(), (digest, Put::Present));
    assert_eq!(read(&objects, &digest), content);
    assert_eq!(all(&objects), [digest]);
    assert!(objects.contains(&digest, 10_000).unwrap());
    assert!(!objects.contains(&digest, 9_999).unwrap());
    assert!(objects.path(&digest).is_file());
    assert!(objects.stat(&digest).unwrap().unwrap().allocated >= 10_000);
}

#[test]
fn an_abandoned_writer_leaves_nothing() {
    let (dir, objects) = store();
    let mut writer = objects.writer().unwrap();
    writer.write(&[1; 100_000]).unwrap();
    drop(writer);
    assert!(all(&objects).is_empty());
    assert_eq!(std::fs::read_dir(dir.path().join("objects")).unwrap().count(), 256);
}

#[test]
fn an_object_of_the_wrong_size_is_absent_and_gets_replaced() {
    let (dir, objects) = store();
    let content = vec![9; 5000];
    let digest = VerityDigest::of(&content);
    // As after a power cut: the name is there, the content is not.
    std::fs::write(objects.path(&digest), b"").unwrap();
    let held = std::fs::File::open(objects.path(&digest)).unwrap();
    assert_eq!(objects.put(&content).unwrap(), (digest, Put::Written));
    assert_eq!(read(&objects, &digest), content);
    assert_eq!(held.metadata().unwrap().len(), 0, "an open descriptor keeps the old file");
    assert_eq!(std::fs::read_dir(dir.path().join("objects")).unwrap().count(), 256);
}

#[test]
fn removing_is_idempotent_and_spares_the_rest() {
    let (dir, objects) = store();
    let (one, _) = objects.put(&[1; 100]).unwrap();
    let (two, _) = objects.put(&[2; 100]).unwrap();
    std::fs::write(dir.path().join("objects/.new-1-1"), b"left over").unwrap();
    objects.remove_temporaries().unwrap();
    assert!(objects.remove(&one).unwrap());
    assert!(!objects.remove(&one).unwrap());
    assert_eq!(all(&objects), [two]);
    assert!(matches!(objects.get(&one), Err(ObjectError::Missing(_))));
    assert!(!dir.path().join("objects/.new-1-1").exists());
}

#[test]
fn racing_writers_of_the_same_content_agree() {
    let (_dir, objects) = store();
    let put: Vec<Put> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| (0..50u8).map(|i| objects.put(&[i; 3000]).unwrap().1).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(put.iter().filter(|put| **put == Put::Written).count(), 50);
    assert_eq!(all(&objects).len(), 50);
}

#[test]
fn a_full_filesystem_is_exhausted_and_names_the_store() {
    let error = ObjectError::new(Errno::NOSPC, "write", Path::new("/var/lib/store/objects"));
    assert_eq!(error.kind(), crate::kind::Kind::Exhausted);
    assert!(error.to_string().contains("/var/lib/store/objects"), "{error}");
}

#[test]
fn holes_are_content_but_take_no_space() {
    let (_dir, objects) = store();
    let mut writer = objects.writer().unwrap();
    writer.zeros(1 << 20);
    writer.write(b"middle").unwrap();
    writer.zeros(3 << 20);
    let (digest, _) = writer.finish().unwrap();
    let content = [vec![0; 1 << 20], b"middle".to_vec(), vec![0; 3 << 20]].concat();
    assert_eq!(digest, VerityDigest::of(&content));
    assert_eq!(read(&objects, &digest), content);
    assert!(objects.stat(&digest).unwrap().unwrap().allocated < 64 << 10);
}

/// Bytes that a file of this content takes on the disk.
fn allocated(objects: &Objects, content: &[u8], write: impl FnOnce(&Objects) -> VerityDigest) -> u64 {
    let digest = write(objects);
    assert_eq!(digest, VerityDigest::of(content));
    assert_eq!(read(objects, &digest), content);
    let allocated = objects.stat(&digest).unwrap().unwrap().allocated;
    objects.remove(&digest).unwrap();
    allocated
}

#[test]
fn long_runs_of_zeros_become_holes_whichever_way_they_come() {
    let (_dir, objects) = store();
    let zeros = |count: usize| vec![0; count];
    let data = |count: usize| vec![5; count];
    for (parts, at_most) in [
        (vec![data(3), zeros(1 << 20), data(3)], 16 << 10),
        (vec![zeros(1 << 20)], 0),
        (vec![data(100_000), zeros(300_000), data(100_000), zeros(100_000)], 220_000),
        (vec![zeros(70_000), data(1), zeros(200_000)], 16 << 10),
        // Not worth it, except at the end.
        (vec![data(10_000), zeros(50_000), data(10_000)], 80_000),
    ] {
        let content = parts.concat();
        let whole = allocated(&objects, &content, |objects| objects.put(&content).unwrap().0);
        assert!(whole <= at_most, "{whole} of at most {at_most}");
        for size in [999, 4096, 130_000] {
            let in_pieces = allocated(&objects, &content, |objects| {
                let mut writer = objects.writer().unwrap();
                content.chunks(size).for_each(|chunk| writer.write(chunk).unwrap());
                writer.finish().unwrap().0
            });
            assert!(in_pieces <= at_most, "{in_pieces} of at most {at_most} by {size}");
        }
    }
    let dense = [data(10_000), zeros(50_000), data(10_000)].concat();
    let put = |objects: &Objects| objects.put(&dense).unwrap().0;
    assert!(allocated(&objects, &dense, put) >= 70_000, "a hole here is not worth its extent");
}

/// Data, zeros and holes in any order and length, in pieces of any size.
#[test]
fn what_is_written_with_holes_is_read() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    let (_dir, objects) = store();
    let parts = proptest::collection::vec((0..3u8, 0..150_000usize), 0..8);
    let cuts = proptest::collection::vec(1..140_000usize, 1..4);
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    let check = |(parts, cuts): (Vec<(u8, usize)>, Vec<usize>)| {
        let mut writer = objects.writer().unwrap();
        let mut content = Vec::new();
        let mut cuts = cuts.iter().cycle();
        for (kind, length) in parts {
            let data = (0..length).map(|at| (at / 999) as u8);
            let part: Vec<u8> = if kind == 0 { data.collect() } else { vec![0; length] };
            content.extend_from_slice(&part);
            if kind == 2 {
                writer.zeros(length as u64);
                continue;
            }
            let mut rest = &part[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                writer.write(now).unwrap();
                rest = later;
            }
        }
        let (digest, _) = writer.finish().unwrap();
        prop_assert_eq!(digest, VerityDigest::of(&content));
        prop_assert_eq!(read(&objects, &digest), content);
        Ok(())
    };
    TestRunner::new(config).run(&(parts, cuts), check).unwrap();
}
