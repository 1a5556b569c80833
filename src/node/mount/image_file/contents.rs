//! Level `mount` for an image file: all its objects are hashed before it is mounted.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::super::object::object_name;
use super::{ImageFileError, hash};
use crate::image::composefs::list_objects;
use crate::image::verity::VerityDigest;

/// The largest image that is read into memory, in bytes. One of a million files has about 300 MB.
const LARGEST: u64 = 1 << 30;

/// Hashes every object that the image names, of the directory in which the kernel will find it.
pub(super) fn check(
    file: &mut File,
    path: &Path,
    directories: &[(OwnedFd, PathBuf)],
) -> Result<(), ImageFileError> {
    let fail = |error: std::io::Error| ImageFileError::read(path, &error);
    let size = file.metadata().map_err(fail)?.len();
    if size > LARGEST {
        return Err(ImageFileError::TooLarge { path: path.to_owned(), size, most: LARGEST });
    }
    file.rewind().map_err(fail)?;
    let mut bytes = Vec::new();
    bytes.reserve_exact(usize::try_from(size).unwrap_or(0));
    // By this descriptor it was proven; what has grown since is cut.
    file.take(size).read_to_end(&mut bytes).map_err(fail)?;
    let objects = list_objects(&bytes)
        .map_err(|error| ImageFileError::Unreadable { path: path.to_owned(), why: error.to_string() })?;
    drop(bytes);
    objects.iter().try_for_each(|object| check_object(object, directories))
}

fn check_object(object: &VerityDigest, directories: &[(OwnedFd, PathBuf)]) -> Result<(), ImageFileError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let bad = |directory: &Path, problem: String| ImageFileError::BadObject {
        path: directory.join(object_name(object)),
        problem,
    };
    for (directory, path) in directories {
        match rustix::fs::openat(directory, object_name(object), flags, Mode::empty()) {
            // The next layer is asked, as the kernel does.
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(bad(path, format!("cannot be opened ({errno})"))),
            Ok(file) => {
                return match hash(&mut File::from(file)) {
                    Ok(found) if found == *object => Ok(()),
                    Ok(found) => Err(bad(path, format!("holds other content, with the digest {found}"))),
                    Err(error) => Err(bad(path, format!("cannot be read ({error})"))),
                };
            }
        }
    }
    let last = directories.last().map_or(Path::new("."), |(_, path)| path);
    Err(bad(last, "is missing".to_owned()))
}
