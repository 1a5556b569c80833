//! Mounts an image file that is in no store of ours, as the composefs project's `mount.composefs` does: an EROFS file and
//! directories of objects, of an ostree or bootc host, of LXC, of `mkcomposefs`.
//!
//! The digest that the operator names is what is trusted: whoever vouches for it vouches for names, owners, modes, devices
//! and set-user-ID bits in the image. So before the kernel gets the file:
//! * it must have that digest, measured by the kernel (fs-verity), or hashed here where the operator has asked for no more;
//! * its first bytes must be those of a file that composefs tools write ([`check_header`]): a kernel's parser of EROFS is not
//!   made for hostile files, and parts of it that composefs does not use are not offered any.
//!
//! It is measured, looked at and mounted by one descriptor. The mount is read-only, nosuid and nodev as every other of
//! ours. Its source is not that of a store's image, so no plugin and no collection takes it for one.

mod contents;
mod error;
mod name;

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

pub use error::ImageFileError;
pub use name::ImageFileName;

use super::base::{BaseMounts, FILE, PATH_DIRECTORY, unmount_lazily};
use super::object::ImageFile;
use super::publish::MountTarget;
use super::superblock::{Backing, Layers, MountMethod};
use super::{MountError, MountSpec, table};
use crate::image::composefs::{HEADER, check_header};
use crate::image::verity::{VerityDigest, VerityHasher};
use crate::integrity::Integrity;
use crate::sys::verity::measure_verity;

/// The prefix of the source of such a mount's overlay; the digest follows.
const PREFIX: &str = "composefs-file:";
/// Bytes hashed at a time.
const CHUNK: usize = 256 << 10;

/// What to mount, and how.
#[derive(Debug, Clone)]
pub struct ImageFileMount {
    /// The file and its digest.
    pub image: ImageFileName,
    /// Directories of objects at `xx/…`, or with a directory `objects` that has them. The first that has a name is asked.
    pub objects: Vec<PathBuf>,
    /// [`Integrity::Read`]: the kernel holds the image and every object to their digests at each read. Weaker levels are
    /// for filesystems without fs-verity: [`Integrity::Mount`] hashes the image and its objects now,
    /// [`Integrity::Fetch`] the image alone.
    pub level: Integrity,
    /// Sub-directory of the image, relative; empty for the root.
    pub path: PathBuf,
    /// Whether nothing may be executed.
    pub noexec: bool,
}

/// Mounts an image file on `target`, an existing directory on which nothing is mounted. All or nothing. `state` is where
/// something is attached for a moment on kernels before 6.15. Blocking.
///
/// # Errors
/// The digest is another, or cannot be had at the level; something is missing; the kernel refuses.
pub fn mount_image_file(wanted: &ImageFileMount, state: &Path, target: &Path) -> Result<(), ImageFileError> {
    let ImageFileName { path, digest } = &wanted.image;
    if image_file_on(target)?.is_some() {
        return Err(MountError::Occupied { target: target.to_owned() }.into());
    }
    let place = MountTarget::open(target)?;
    let mut file = open_image(path)?;
    prove(&mut file, path, digest, wanted.level)?;
    look_at(&file, path)?;
    let directories = open_objects(&wanted.objects)?;
    if wanted.level == Integrity::Mount {
        contents::check(&mut file, path, &directories)?;
    }
    // As long as this is mounted by another process in the same way, one of us waits: what is attached for a moment has
    // the digest for a name.
    rustix::fs::flock(&file, FlockOperation::LockExclusive)
        .map_err(|errno| ImageFileError::open(path, errno))?;
    let image = ImageFile::of(file.into(), digest).map_err(|errno| ImageFileError::open(path, errno))?;
    let directories: Vec<_> = directories.iter().map(|(directory, _)| directory.as_fd()).collect();
    let bases = BaseMounts::open(state)?;
    let mount = stack((&image, path), &directories, wanted.level == Integrity::Read, &bases)?;
    let spec = MountSpec { image: *digest, path: wanted.path.clone(), noexec: wanted.noexec, upper: None };
    // Before Linux 6.15, only what is attached can be cloned.
    let attached = bases.attach_aside(&mount, FILE, &image)?;
    drop(mount);
    let published = attached.root().and_then(|root| place.publish(&root, &spec));
    attached.remove()?;
    Ok(published?)
}

/// The digest of the image file mount on `target`; `None` if what is there, if anything, is none.
///
/// # Errors
/// The target or the mount table cannot be looked at.
pub fn image_file_on(target: &Path) -> Result<Option<VerityDigest>, MountError> {
    let failed = |errno| MountError::kernel("looking at the mount", target.display(), errno);
    let place = match rustix::fs::openat(CWD, target, PATH_DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        other => other.map_err(failed)?,
    };
    let Some(mount) = table::mount_at(&place).map_err(failed)? else { return Ok(None) };
    // The source alone proves nothing: any mount can have that string.
    let is_ours = mount.fs_type == "overlay" && mount.confined;
    let digest = mount.source.to_str().and_then(|source| source.strip_prefix(PREFIX));
    Ok(digest.filter(|_| is_ours).and_then(VerityDigest::from_hex))
}

/// Removes the image file mount on `target`; returns its digest, `None` if there is none.
///
/// # Errors
/// It cannot be looked at or removed.
pub fn unmount_image_file(target: &Path) -> Result<Option<VerityDigest>, MountError> {
    let Some(digest) = image_file_on(target)? else { return Ok(None) };
    match unmount_lazily(target) {
        Ok(()) => Ok(Some(digest)),
        Err(errno) => Err(MountError::kernel("umount", target.display(), errno)),
    }
}

/// Opens the file: links are followed, since the operator names it, and a repository's images are links.
fn open_image(path: &Path) -> Result<File, ImageFileError> {
    // A pipe in its place would be waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fail = |errno| ImageFileError::open(path, errno);
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(fail)?;
    let stat = rustix::fs::fstat(&file).map_err(fail)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(ImageFileError::NotAFile { path: path.to_owned() });
    }
    Ok(File::from(file))
}

/// Compares the file with the digest: by what the kernel enforces, or by hashing it.
fn prove(
    file: &mut File,
    path: &Path,
    digest: &VerityDigest,
    level: Integrity,
) -> Result<(), ImageFileError> {
    let measured = match measure_verity(&*file) {
        Ok(measured) => VerityDigest(measured),
        Err(errno) if level == Integrity::Read => {
            return Err(ImageFileError::NotSealed { path: path.to_owned(), errno });
        }
        Err(_) => hash(file).map_err(|error| ImageFileError::read(path, &error))?,
    };
    if measured == *digest {
        Ok(())
    } else {
        Err(ImageFileError::WrongDigest { path: path.to_owned(), wanted: *digest, measured })
    }
}

/// The fs-verity digest of all that a file holds.
fn hash(file: &mut File) -> std::io::Result<VerityDigest> {
    let (mut hasher, mut buffer) = (VerityHasher::default(), vec![0; CHUNK]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn look_at(file: &File, path: &Path) -> Result<(), ImageFileError> {
    let fail = |error: std::io::Error| ImageFileError::read(path, &error);
    let size = file.metadata().map_err(fail)?.len();
    let mut header = vec![0; HEADER.min(usize::try_from(size).unwrap_or(HEADER))];
    file.read_exact_at(&mut header, 0).map_err(fail)?;
    check_header(&header, size).map_err(|fault| ImageFileError::NotAnImage { path: path.to_owned(), fault })
}

/// The directories of objects, each with its path: `DIR/objects` if there is such a directory, else `DIR`.
fn open_objects(paths: &[PathBuf]) -> Result<Vec<(OwnedFd, PathBuf)>, ImageFileError> {
    if paths.is_empty() {
        return Err(ImageFileError::NoObjects);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &Path| rustix::fs::open(path, flags, Mode::empty());
    let directory = |path: &PathBuf| {
        let below = path.join("objects");
        let (opened, path) = match open(&below) {
            Err(Errno::NOENT | Errno::NOTDIR) => (open(path), path.clone()),
            other => (other, below),
        };
        match opened {
            Ok(directory) => Ok((directory, path)),
            Err(errno) => Err(ImageFileError::Objects { path, errno }),
        }
    };
    paths.iter().map(directory).collect()
}

/// Mounts the image over its objects, detached, by the first method that this kernel and filesystem know.
fn stack(
    (image, path): (&ImageFile, &Path),
    objects: &[BorrowedFd<'_>],
    verity: bool,
    bases: &BaseMounts,
) -> Result<OwnedFd, ImageFileError> {
    let source = format!("{PREFIX}{}", image.digest());
    let mut failed = Vec::new();
    for backing in [Backing::File, Backing::LoopDevice] {
        for layers in [Layers::Descriptors, Layers::Paths, Layers::Classic] {
            // Labels are the image's own: its files are the host's, not a container's.
            let method = MountMethod { backing, layers, verity, context: None };
            match method.mount_file(image, &source, objects, bases) {
                Ok(mount) => return Ok(mount),
                // A bad file is bad by every method.
                Err(MountError::NotAnImage { errno, .. }) => {
                    return Err(ImageFileError::Refused { path: path.to_owned(), errno });
                }
                Err(error) => failed.push(format!("{layers} with {backing}: {}", error.brief())),
            }
        }
    }
    Err(ImageFileError::NoMethod { tried: failed })
}
