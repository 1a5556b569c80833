use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::super::testing::{ChunkedLayer, ChunkedRules, chunked};
use super::super::{ContentsEntry, Found, Part, PlanRules, Positions, StoredContent, Wanted, compare};
use super::*;
use crate::image::entry::INLINE_MAX;
use crate::oci::digest::Digest;
use crate::oci::manifest::Descriptor;

/// An archive of these files, with a directory before them.
fn archive(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, sort, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(sort);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content).unwrap();
    };
    add("dir/", tar::EntryType::Directory, b"");
    files.iter().for_each(|(name, content)| add(name, tar::EntryType::Regular, content));
    tar.into_inner().unwrap()
}

/// A layer with its tables read.
struct Opened {
    layer: ChunkedLayer,
    positions: Positions,
    toc: Toc,
}

impl Opened {
    fn of(files: &BTreeMap<String, Vec<u8>>) -> Self {
        Self::open(chunked(&archive(files), ChunkedRules { chunk: 1000, zeros: 200 })).unwrap()
    }

    fn open(layer: ChunkedLayer) -> Result<Self, Doubt> {
        let descriptor = Descriptor {
            media_type: String::new(),
            digest: Digest::of(&layer.blob),
            size: layer.blob.len() as u64,
            annotations: layer.annotations.clone(),
        };
        let positions = Positions::of(&descriptor)?.unwrap();
        let toc = positions.toc.range();
        let toc = Toc::read(&layer.blob[toc.start as usize..toc.end as usize], &positions, 10_000)?;
        let opened = Self { layer, positions, toc };
        compare(&mut opened.split()?, &opened.toc)?;
        Ok(opened)
    }

    fn split(&self) -> Result<TarSplit<zstd::Decoder<'static, &[u8]>>, Doubt> {
        let range = self.positions.tar_split.range();
        let packed = &self.layer.blob[range.start as usize..range.end as usize];
        TarSplit::open(packed, &self.positions.tar_split, &self.toc.tar_split)
    }

    /// What the store would list of the layer, once its files are in it.
    fn stored(&self, files: &BTreeMap<String, Vec<u8>>, objects: &Objects) -> Vec<ContentsEntry> {
        let each = self.toc.files.iter().map(|file| {
            let content = &files[&*file.name];
            let stored = match content.len() {
                0..=INLINE_MAX => StoredContent::Inline(content.as_slice().into()),
                _ => StoredContent::Object(objects.put(content).unwrap().0),
            };
            ContentsEntry::of(&self.toc, file, stored)
        });
        each.collect()
    }

    fn found(&self, lists: &[ContentsEntry]) -> Found {
        let (wanted, mut found) = (Wanted::of(&self.toc), Found::default());
        lists.iter().for_each(|entry| wanted.take(entry, &mut found));
        found
    }

    /// The tar, put together by a plan, from the blob cut into parts of `part` bytes.
    fn rebuilt(&self, plan: &Plan, objects: &Objects, part: u64) -> io::Result<Vec<u8>> {
        let runs = super::super::runs::cut(plan.runs.clone(), part);
        let parts: Vec<Part> = runs
            .into_iter()
            .map(|run| {
                let bytes = &self.layer.blob[run.start as usize..run.end as usize];
                Part { start: run.start, bytes: Bytes::copy_from_slice(bytes) }
            })
            .collect();
        let wire = Wire::new(parts.into_iter());
        let mut tar = Vec::new();
        Rebuild::new(&self.toc, plan, self.split().unwrap(), objects, wire).read_to_end(&mut tar)?;
        Ok(tar)
    }
}

fn store() -> (tempfile::TempDir, Objects) {
    let directory = tempfile::tempdir().unwrap();
    Objects::create(directory.path()).unwrap();
    let objects = Objects::open(directory.path(), false).unwrap();
    (directory, objects)
}

fn files(contents: &[(&str, Vec<u8>)]) -> BTreeMap<String, Vec<u8>> {
    contents.iter().map(|(name, content)| (format!("dir/{name}"), content.clone())).collect()
}

/// Bytes that do not repeat within a file.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn old_and_new() -> (BTreeMap<String, Vec<u8>>, BTreeMap<String, Vec<u8>>) {
    let holes = [noise(5, 1500), vec![0; 5000], noise(6, 700)].concat();
    let old = files(&[
        ("a", noise(1, 5000)),
        ("b", noise(2, 9000)),
        ("holes", holes.clone()),
        ("small", b"s".to_vec()),
    ]);
    let mut changed = noise(2, 9000);
    changed[4500] ^= 1;
    let new = files(&[
        ("a-renamed", noise(1, 5000)),
        ("b", changed),
        ("c", noise(3, 2500)),
        ("empty", vec![]),
        ("holes", holes),
        ("small", b"s".to_vec()),
        ("zeros", vec![0; 3000]),
    ]);
    (old, new)
}

#[test]
fn only_what_changed_is_fetched() {
    let (_directory, objects) = store();
    let (old, new) = old_and_new();
    let stored = Opened::of(&old).stored(&old, &objects);
    let opened = Opened::of(&new);
    let found = opened.found(&stored).verified(&opened.toc, &objects);
    let plan = Plan::of(&opened.toc, &found, PlanRules { gap: 0, requests: 100 });
    assert_eq!(opened.rebuilt(&plan, &objects, 300).unwrap(), opened.layer.tar);
    // The chunk of `b` that changed, and `c`.
    assert_eq!(plan.runs.len(), 2);
    let content: usize = new.values().map(Vec::len).sum();
    assert_eq!(plan.reused, (content - 1000 - 2500) as u64);
}

#[test]
fn without_anything_here_all_files_are_fetched_but_zeros() {
    let (_directory, objects) = store();
    let (_, new) = old_and_new();
    let opened = Opened::of(&new);
    let plan = Plan::of(&opened.toc, &Found::default(), PlanRules::default());
    assert_eq!(opened.rebuilt(&plan, &objects, 1 << 20).unwrap(), opened.layer.tar);
    assert_eq!(plan.reused, 8000);
}

#[test]
fn what_the_store_has_is_believed_only_once_it_was_read() {
    let (directory, objects) = store();
    let (old, new) = old_and_new();
    let mut stored = Opened::of(&old).stored(&old, &objects);
    // A list that lies about a file, and one about a chunk.
    let other = StoredContent::Object(objects.put(&noise(9, 9000)).unwrap().0);
    stored[0].content = other.clone();
    stored[1].content = other;
    stored[3].content = StoredContent::Inline((*b"x").into());
    let opened = Opened::of(&new);
    let found = opened.found(&stored);
    assert_eq!(found.files.len(), 3);
    let kept = found.clone().verified(&opened.toc, &objects);
    assert_eq!((kept.files.len(), kept.chunks.len()), (1, 0));
    // An object that is gone.
    let (_, Local::Object(object, _)) = kept.files.iter().next().unwrap() else { panic!() };
    std::fs::remove_file(objects.path(object)).unwrap();
    let kept = found.verified(&opened.toc, &objects);
    assert!(kept.is_empty());
    let plan = Plan::of(&opened.toc, &kept, PlanRules::default());
    assert_eq!(opened.rebuilt(&plan, &objects, 1 << 20).unwrap(), opened.layer.tar);
    drop(directory);
}

/// The doubt inside an error.
fn doubt(error: &io::Error) -> Option<&Doubt> {
    error.get_ref()?.downcast_ref()
}

#[test]
fn content_that_is_not_what_the_table_says_is_a_doubt() {
    let (_directory, objects) = store();
    let (_, new) = old_and_new();
    let opened = Opened::of(&new);
    let plan = Plan::of(&opened.toc, &Found::default(), PlanRules::default());
    // Sound frames with other content of the same length.
    let mut layer = opened.layer.clone();
    let c = opened.toc.files.iter().find(|file| &*file.name == "dir/c").unwrap();
    let mut other = noise(3, 2500);
    other[7] ^= 1;
    let frames = c.frames.start as usize..c.frames.end as usize;
    let wrong = zstd::encode_all(&other[..], 19).unwrap();
    assert!(wrong.len() <= frames.len(), "{} in {}", wrong.len(), frames.len());
    layer.blob[frames.start..frames.start + wrong.len()].copy_from_slice(&wrong);
    // An empty frame and skippable bytes fill the rest.
    let rest = frames.len() - wrong.len();
    let padding = &mut layer.blob[frames.start + wrong.len()..frames.end];
    if rest >= 8 {
        padding[..4].copy_from_slice(&[0x50, 0x2a, 0x4d, 0x18]);
        padding[4..8].copy_from_slice(&(rest as u32 - 8).to_le_bytes());
    }
    let altered = Opened { layer, positions: opened.positions, toc: opened.toc.clone() };
    let error = altered.rebuilt(&plan, &objects, 500).unwrap_err();
    assert!(matches!(doubt(&error), Some(Doubt::Content(name)) if name == "dir/c"), "{error}");
    // What ends early is the fetcher's to explain.
    let mut short = plan;
    short.runs.pop();
    let error = opened.rebuilt(&short, &objects, 500).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn tables_that_disagree_are_found_before_anything_is_fetched() {
    let (old, new) = old_and_new();
    let one = chunked(&archive(&old), ChunkedRules::default());
    let two = chunked(&archive(&new), ChunkedRules::default());
    let mut toc = one.toc.clone();
    toc.as_object_mut().unwrap().remove("tarSplitDigest");
    let mixed = super::super::testing::finish(one.blob[..one.frames].to_vec(), &one.tar, toc, two.tar_split);
    assert!(matches!(Opened::open(mixed), Err(Doubt::Disagree(_))));
    let mut toc = one.toc.clone();
    toc.as_object_mut().unwrap().remove("tarSplitDigest");
    toc["entries"].as_array_mut().unwrap().pop();
    let fewer =
        super::super::testing::finish(one.blob[..one.frames].to_vec(), &one.tar, toc, one.tar_split.clone());
    assert!(matches!(Opened::open(fewer), Err(Doubt::Disagree(_))));
}

#[test]
fn sparse_files_are_left_to_the_whole_layer() {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_entry_type(tar::EntryType::XHeader);
    let record = b"22 GNU.sparse.major=1\n";
    header.set_size(record.len() as u64);
    tar.append_data(&mut header, "pax", &record[..]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(100);
    header.set_mode(0o644);
    tar.append_data(&mut header, "f", &[1; 100][..]).unwrap();
    let opened = Opened::open(chunked(&tar.into_inner().unwrap(), ChunkedRules::default()));
    assert_eq!(opened.err(), Some(Doubt::Unfit("sparse files")));
}

/// What a file is made of: noise by this seed, of this length, and zeros after it.
type Made = (u8, usize, usize);

fn made() -> impl Strategy<Value = Vec<Made>> {
    proptest::collection::vec((0_u8..6, 0_usize..3000, 0_usize..700), 1..12)
}

fn make(contents: &[Made]) -> BTreeMap<String, Vec<u8>> {
    let named = contents.iter().enumerate().map(|(number, (seed, length, zeros))| {
        (format!("dir/{number:02}"), [noise(*seed, *length), vec![0; *zeros], noise(*seed, 100)].concat())
    });
    named.collect()
}

/// Whatever two layers have in common, and however ranges are joined and cut, the tar comes out.
#[test]
fn any_two_versions() {
    let (_directory, objects) = store();
    let mut runner = TestRunner::new(ProptestConfig::with_cases(64));
    let plans = (0_u64..2000, 1_usize..20, 1_u64..3000);
    let outcome = runner.run(&(made(), made(), plans), |(old, new, (gap, requests, part))| {
        let (old, new) = (make(&old), make(&new));
        let stored = Opened::of(&old).stored(&old, &objects);
        let opened = Opened::of(&new);
        let found = opened.found(&stored).verified(&opened.toc, &objects);
        let plan = Plan::of(&opened.toc, &found, PlanRules { gap, requests });
        prop_assert!(plan.runs.len() <= requests);
        prop_assert_eq!(opened.rebuilt(&plan, &objects, part).unwrap(), opened.layer.tar.clone());
        Ok(())
    });
    outcome.unwrap();
}
