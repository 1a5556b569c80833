use std::fs;
use std::sync::{Mutex, PoisonError};

use super::*;

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_file_is_replaced_and_nothing_else_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let (path, temporary) = (directory.path().join("f"), directory.path().join("f.tmp"));
    // What a killed writer has left, longer than what is written now.
    fs::write(&temporary, "leftover").unwrap();
    replace(&path, temporary.clone(), b"one").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one");
    replace_without_sync(&path, temporary, b"2").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"2");
    assert_eq!(names(directory.path()), ["f"]);
}

#[test]
fn a_failed_step_is_named_and_removes_the_temporary_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    fs::create_dir(&path).unwrap();
    let failed = replace(&path, directory.path().join("f.tmp"), b"x").unwrap_err();
    assert_eq!((failed.step, failed.path), (Step::Rename, path.clone()));
    assert_eq!(names(directory.path()), ["f"]);
    let failed = replace(&path.join("none/f"), path.join("none/f.tmp"), b"x").unwrap_err();
    assert_eq!((failed.step, failed.source.kind()), (Step::Create, io::ErrorKind::NotFound));
}

#[test]
fn the_hook_comes_before_every_step() {
    let directory = tempfile::tempdir().unwrap();
    let seen = std::sync::Arc::new(Mutex::new(Vec::new()));
    let note = std::sync::Arc::clone(&seen);
    let steps = Steps::new(move |step| {
        note.lock().unwrap_or_else(PoisonError::into_inner).push(step);
        if step == "sync directory" { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    });
    let mut file = Temporary::create_locked(directory.path(), &steps).unwrap();
    assert!(
        !try_lock(File::open(file.path()).unwrap(), rustix::fs::FlockOperation::NonBlockingLockShared)
            .unwrap()
    );
    file.write(b"x").unwrap();
    file.sync().unwrap();
    file.rename(&directory.path().join("f")).unwrap();
    let failed = sync_directory(directory.path(), &steps).unwrap_err();
    assert_eq!((failed.step, failed.source.raw_os_error()), (Step::SyncDirectory, Some(5)));
    let steps = ["create", "write", "sync", "rename a temporary file to", "sync directory"];
    assert_eq!(*seen.lock().unwrap(), steps);
}
