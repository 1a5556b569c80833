//! The self-test of lazy mounts: opens of missing objects must wait, succeed with the right bytes once the object has come, and
//! fail where none comes or nobody answers any more.
//!
//! It finds out what version numbers do not tell: that this kernel repeats an open after ESTALE, with this store's
//! filesystem and `verity=require`.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::base::BaseMounts;
use super::lazy::open_connection;
use super::object::{ImageFile, object_name};
use super::probe::{DIRECTORY, image_of, read};
use super::superblock::MountMethod;
use crate::image::objects::Objects;
use crate::image::verity::VerityDigest;
use crate::node::fuse::{Bell, ObjectNames, Supply};

/// Longer than the files that composefs stores inline.
const LATE: &[u8] = b"If you can read this, then a file can be opened before its content is on this node. \n";
const NEVER: &[u8] = b"Nobody can read this, because it never comes; it is here to be waited for in vain. \n";

/// Whether `method` can mount images lazily, in the store at `store`; if not, why.
pub(super) fn run(method: &MountMethod, store: &Path, bases: &BaseMounts) -> Result<(), String> {
    let lock = lock(store).map_err(|errno| format!("preparing the self-test: {errno}"))?;
    let path = store.join(DIRECTORY).join("lazy");
    let outcome =
        bases.for_self_test().map_err(|error| error.brief()).and_then(|bases| test(method, &path, &bases));
    let _ = std::fs::remove_dir_all(&path);
    drop(lock);
    outcome
}

/// Only one self-test runs at a time.
fn lock(store: &Path) -> Result<impl Sized, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let lock = rustix::fs::open(store, flags, Mode::empty())?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    Ok(lock)
}

fn test(method: &MountMethod, path: &Path, bases: &BaseMounts) -> Result<(), String> {
    let image = image_of(&[("late", LATE), ("never", NEVER)])?.bytes;
    let objects = make(path, method.verity, &image)?;
    let directory = path.join("objects");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let at = rustix::fs::open(&directory, flags, Mode::empty()).map_err(|errno| errno.to_string())?;
    let file = ImageFile::lock(&at, &VerityDigest::of(&image)).map_err(|error| error.brief())?;
    let connection = open_connection()?;
    let supply: Arc<dyn Supply> = Arc::new(Bring { objects, bell: connection.bell() });
    let names = ObjectNames::new([LATE, NEVER].map(VerityDigest::of));
    let (mount, server) = method
        .mount_lazily(&file, at.as_fd(), bases, connection, (names, supply))
        .map_err(|error| error.brief())?;
    match read(&mount, "late") {
        Ok(bytes) if bytes == LATE => {}
        Ok(_) => return Err("a file that came late has other bytes".to_owned()),
        Err(errno) => return Err(format!("a file that came late cannot be opened: {errno}")),
    }
    expect(read(&mount, "never"), Errno::IO, "a file that does not come")?;
    drop(server);
    expect(read(&mount, "never"), Errno::NOTCONN, "a file that nobody brings any more")?;
    match read(&mount, "late") {
        Ok(bytes) if bytes == LATE => Ok(()),
        _ => Err("a file that came late cannot be opened again".to_owned()),
    }
}

fn expect(found: Result<Vec<u8>, Errno>, wanted: Errno, what: &str) -> Result<(), String> {
    match found {
        Err(errno) if errno == wanted => Ok(()),
        Err(errno) => Err(format!("{what} gives {errno}, and not {wanted}")),
        Ok(_) => Err(format!("{what} can be read")),
    }
}

/// A store with the image alone, and places for the two objects.
fn make(path: &Path, sealed: bool, image: &[u8]) -> Result<Objects, String> {
    let failed =
        |step: &str, error: &dyn std::fmt::Display| format!("preparing the self-test: {step}: {error}");
    // A crashed self-test's.
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed("rmdir", &error)),
        _ => {}
    }
    for content in [image, LATE, NEVER] {
        let place: PathBuf = path.join("objects").join(object_name(&VerityDigest::of(content)));
        if let Some(parent) = place.parent() {
            std::fs::create_dir_all(parent).map_err(|error| failed("mkdir", &error))?;
        }
    }
    let objects = Objects::open(path, sealed).map_err(|error| failed("open", &error))?;
    objects.put(image).map_err(|error| failed("write", &error))?;
    Ok(objects)
}

/// Brings the one object, and never the other.
#[derive(Debug)]
struct Bring {
    objects: Objects,
    bell: Bell,
}

impl Supply for Bring {
    fn is_here(&self, object: &VerityDigest) -> bool {
        self.objects.is_here(object).unwrap_or(false)
    }

    fn want(&self, object: &VerityDigest) {
        let brought = *object == VerityDigest::of(LATE) && self.objects.put(LATE).is_ok();
        match brought {
            true => self.bell.arrived(object),
            false => self.bell.fail(Errno::IO),
        }
    }
}
