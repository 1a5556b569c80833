use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::kind::Kind;

const RULES: ScanRules = ScanRules {
    times: Times::All(7),
    owners: false,
    follow_links: false,
    files_only: false,
    entries_max: 1000,
};

fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("d")).unwrap();
    fs::write(root.path().join("d/z"), b"z").unwrap();
    fs::write(root.path().join("d.x"), b"x").unwrap();
    fs::hard_link(root.path().join("d/z"), root.path().join("also")).unwrap();
    symlink("d/z", root.path().join("link")).unwrap();
    fs::set_permissions(root.path().join("d.x"), fs::Permissions::from_mode(0o4751)).unwrap();
    root
}

fn paths(items: &[Item]) -> Vec<String> {
    items.iter().map(Item::shown).collect()
}

#[test]
fn names_come_in_order_parents_first() {
    let root = tree();
    let items = scan(root.path(), &RULES).unwrap();
    assert_eq!(paths(&items), ["also", "d", "d/z", "d.x", "link"]);
    assert!(matches!(&items[0].kind, ItemKind::File(file) if file.stamp.size == 1));
    assert_eq!(items[2].kind, ItemKind::Hardlink(b"also".as_slice().into()));
    assert_eq!(items[4].kind, ItemKind::Symlink(b"d/z".as_slice().into()));
    assert_eq!(items[3].meta.mode, 0o4751);
    let owners = items.iter().map(|item| (item.meta.uid, item.meta.gid, item.meta.mtime));
    assert!(owners.into_iter().all(|found| found == (0, 0, Mtime { secs: 7, nanos: 0 })));
}

#[test]
fn times_are_kept_up_to_the_latest() {
    let at = |secs, nanos| Mtime { secs, nanos };
    assert_eq!(Times::Kept(None).of(at(9, 5)), at(9, 5));
    assert_eq!(Times::Kept(Some(9)).of(at(9, 5)), at(9, 0));
    assert_eq!(Times::Kept(Some(10)).of(at(9, 5)), at(9, 5));
    assert_eq!(Times::All(3).of(at(9, 5)), at(3, 0));
}

#[test]
fn artifacts_hold_files_alone() {
    let root = tree();
    let rules = ScanRules { files_only: true, ..RULES };
    let error = scan(root.path(), &rules).unwrap_err();
    assert!(matches!(&error, PushError::Link { path } if path == "link"), "{error}");
    let items = scan(root.path(), &ScanRules { follow_links: true, ..rules }).unwrap();
    assert_eq!(paths(&items), ["also", "d/z", "d.x", "link"]);
    assert!(items.iter().all(|item| matches!(item.kind, ItemKind::File(_))));
    fs::remove_file(root.path().join("link")).unwrap();
    symlink("d", root.path().join("link")).unwrap();
    let error = scan(root.path(), &ScanRules { follow_links: true, ..rules }).unwrap_err();
    assert!(matches!(error, PushError::Dangling { .. }), "{error}");
}

#[test]
fn what_no_image_can_hold_is_named() {
    let root = tree();
    let socket = std::os::unix::net::UnixListener::bind(root.path().join("d/s")).unwrap();
    let error = scan(root.path(), &RULES).unwrap_err();
    assert!(error.to_string().contains("d/s is a socket"), "{error}");
    drop(socket);
    fs::remove_file(root.path().join("d/s")).unwrap();
    fs::write(root.path().join("d/.wh.x"), b"").unwrap();
    assert!(matches!(scan(root.path(), &RULES), Err(PushError::Marker { path }) if path == "d/.wh.x"));
    fs::remove_file(root.path().join("d/.wh.x")).unwrap();
    let few = ScanRules { entries_max: 4, ..RULES };
    assert_eq!(scan(root.path(), &few).unwrap_err().kind(), Kind::Exhausted);
    let file = root.path().join("d.x");
    assert!(matches!(scan(&file, &RULES), Err(PushError::NotADirectory { .. })));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(scan(empty.path(), &RULES), Err(PushError::Empty { .. })));
    fs::create_dir(empty.path().join("d")).unwrap();
    assert!(scan(empty.path(), &RULES).is_ok());
    assert!(scan(empty.path(), &ScanRules { files_only: true, ..RULES }).is_err());
}
