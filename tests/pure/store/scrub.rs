//! Scrubbing: a round reads every object once, however often it is interrupted, and finds what is damaged.

use std::time::Duration;

use composefs_csi::image::objects::Corruption;
use composefs_csi::image::store::{Mounted, ScrubCursor, Scrubber, Store};
use composefs_csi::image::verity::VerityDigest;

use super::fixture::*;

/// Stops after so many objects, and notes all.
#[derive(Default)]
struct Counted {
    most: Option<usize>,
    read: usize,
    damaged: Vec<VerityDigest>,
}

impl Scrubber for Counted {
    fn read(&mut self, _bytes: u64, _took: Duration) -> bool {
        self.read += 1;
        self.most.is_none_or(|most| self.read < most)
    }

    fn damaged(&mut self, object: VerityDigest) {
        self.damaged.push(object);
    }
}

fn filled(root: &std::path::Path) -> Store {
    let store = open(root);
    let names: Vec<String> = (0..200).map(|number| format!("file-{number}-x")).collect();
    let files: Vec<&str> = names.iter().map(String::as_str).collect();
    pull(&store, "image", &[&files]).unwrap();
    store
}

#[test]
fn a_round_reads_every_object() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let mut all = Counted::default();
    assert!(store.scrub(&mut all).unwrap());
    assert_eq!((all.read, all.damaged.len()), (all_objects(dir.path()).len(), 0));
    let cursor = store.scrub_cursor().unwrap();
    assert_eq!((cursor.objects, cursor.damaged, cursor.began), (all.read as u64, 0, None));
    assert!(cursor.last_ended.is_some() && cursor.bytes > 200 * 5000);
    // The next one begins anew.
    let mut again = Counted::default();
    assert!(store.scrub(&mut again).unwrap());
    assert_eq!(again.read, all.read);
}

#[test]
fn an_interrupted_round_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let total = {
        let store = filled(dir.path());
        assert!(!store.scrub(&mut Counted { most: Some(120), ..Counted::default() }).unwrap());
        all_objects(dir.path()).len()
    };
    // Another process.
    let store = open(dir.path());
    let before = store.scrub_cursor().unwrap();
    assert!(before.began.is_some() && before.next > 50 && before.last_ended.is_none(), "{before:?}");
    let mut rest = Counted::default();
    assert!(store.scrub(&mut rest).unwrap());
    assert!(rest.read < total - 100, "{} of {total} were read again", rest.read);
    assert!(store.scrub_cursor().unwrap().objects >= total as u64);
    // Nor does a cursor that is no cursor stop it.
    for torn in ["", "{", "[]", r#"{"next":70000}"#, r#"{"began":1,"next":300}"#] {
        std::fs::write(dir.path().join("scrub"), torn).unwrap();
        let mut whole = Counted::default();
        assert!(store.scrub(&mut whole).unwrap());
        assert_eq!(whole.read, total, "{torn}");
    }
}

#[test]
fn what_is_damaged_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let victim = VerityDigest::of(&content("file-7-x"));
    let path = store.objects().path(&victim);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let mut found = Counted::default();
    assert!(store.scrub(&mut found).unwrap());
    assert_eq!(found.damaged, [victim]);
    assert_eq!(store.scrub_cursor().unwrap().damaged, 1);
    // What an image names and is not there is found at the end of the round.
    std::fs::remove_file(&path).unwrap();
    let mut gone = Counted::default();
    assert!(store.scrub(&mut gone).unwrap());
    assert_eq!((gone.damaged, store.scrub_cursor().unwrap().damaged), (vec![victim], 1));
    assert_ne!(store.scrub_cursor().unwrap(), ScrubCursor::default());
}

#[test]
fn what_is_no_file_is_named_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let total = all_objects(dir.path()).len();
    let victims: Vec<_> =
        (0..4).map(|number| VerityDigest::of(&content(&format!("file-{number}-x")))).collect();
    let paths: Vec<_> = victims.iter().map(|victim| store.objects().path(victim)).collect();
    paths.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    // Followed, the first would seem to be whole; opened, the second would be waited for.
    let outside = dir.path().join("tmp/outside");
    std::fs::write(&outside, content("file-0-x")).unwrap();
    std::os::unix::fs::symlink(&outside, &paths[0]).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&paths[1]).status().unwrap();
    assert!(made.success());
    std::fs::create_dir(&paths[2]).unwrap();
    std::os::unix::net::UnixListener::bind(&paths[3]).unwrap();
    let mut found = Counted::default();
    assert!(store.scrub(&mut found).unwrap(), "the round goes on to its end");
    assert_eq!(found.read, total);
    assert_eq!(sorted(&found.damaged), sorted(&victims));
    for victim in &victims {
        assert_eq!(store.examine_object(victim).unwrap(), Some(Corruption::NotAFile), "{victim}");
    }
    let checked = store.check(&|| Ok(Mounted::default())).unwrap();
    let said = checked.findings.iter().any(|finding| finding.what.starts_with("4 of its objects"));
    assert!(said, "{:?}", checked.findings);
}

fn sorted(digests: &[VerityDigest]) -> Vec<VerityDigest> {
    let mut digests = digests.to_vec();
    digests.sort();
    digests
}

/// A round beside collections and pulls reads what is there, takes what has just gone for no damage, and hinders nobody.
#[test]
fn a_round_beside_collections_finds_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let done = std::sync::atomic::AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        let scrubbing = scope.spawn(|| {
            // Another process, as far as the locks are concerned.
            let store = open(dir.path());
            let mut rounds = 0;
            while !done.load(std::sync::atomic::Ordering::SeqCst) || rounds == 0 {
                let mut found = Counted::default();
                assert!(store.scrub(&mut found).unwrap());
                assert_eq!(found.damaged, [], "round {rounds}");
                rounds += 1;
            }
            rounds
        });
        for number in 0..12 {
            let names: Vec<String> = (0..40).map(|file| format!("file-{}-y", number * 20 + file)).collect();
            let files: Vec<&str> = names.iter().map(String::as_str).collect();
            let name = format!("image-{number}");
            pull(&store, &name, &[&files]).unwrap();
            // All but the one that a pod shows go, the new one among them.
            let kept = VerityDigest::of(&content("image-image"));
            // A round that looks for what is missing holds all images for a moment.
            collect(&store, EVERYTHING, &[kept]).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        scrubbing.join().unwrap()
    });
    assert!(rounds > 0);
    collect(&store, EVERYTHING, &[VerityDigest::of(&content("image-image"))]).unwrap();
    assert_eq!(names(&store), [manifest("image")]);
    check(&store);
}
