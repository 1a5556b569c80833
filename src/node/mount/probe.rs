//! The self-test: mounts a tiny image in every way until one works, and reads it.
//!
//! Everything happens in a directory of its own in the store's filesystem, on mounts that are attached nowhere (or,
//! on old kernels, for a moment in the state directory). Nothing is left.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::base::Bases;
use super::object::{ImageFile, object_name};
use super::selinux::{self, Labelling, SelinuxContext};
use super::superblock::{Backing, Layers, Way};
use super::{Capabilities, MountError, Verity};
use crate::image::composefs::{ImageBytes, write_image};
use crate::image::entry::{Entry, EntryKind, Meta};
use crate::image::tree::{Builder, Rules};
use crate::image::verity::VerityDigest;
use crate::sys::verity::enable_verity;

/// Longer than what composefs keeps in the image itself.
const CONTENT: &[u8] = b"If you can read this through a mount, then this node can serve composefs images. \n";
/// Of an object that is never sealed, and so must be refused where fs-verity is required.
const UNSEALED: &[u8] =
    b"If you can read this although fs-verity is required, then it is not required at all. \n";
const SUBJECT: &str = "the self-test's image";
const DIRECTORY: &str = ".self-test";

/// Finds the best way to mount images of `store` on this kernel, and the label that `wanted` comes to.
pub(super) fn run(
    store: &Path,
    bases: &Bases,
    sealed: bool,
    wanted: &SelinuxContext,
) -> Result<Capabilities, MountError> {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let scratch = Scratch::new(store)?;
    let image = scratch.fill(sealed)?;
    let mut failed = Vec::new();
    let (way, verity) = if let Some(way) = scratch.find_way(sealed, &image, bases, &mut failed) {
        (way, if sealed { Verity::Required } else { Verity::NotInStore })
    } else if sealed && let Some(way) = scratch.find_way(false, &image, bases, &mut Vec::new()) {
        (way, Verity::Unusable(std::mem::take(&mut failed).join("; ")))
    } else {
        return Err(MountError::NoWay { kernel, tried: failed });
    };
    let selinux = scratch.find_label(&way, wanted, &image, bases, &mut failed)?;
    Ok(Capabilities { kernel, backing: way.backing, layers: way.layers, verity, selinux, failed })
}

/// A store of two objects and one image, removed when dropped.
#[derive(Debug)]
struct Scratch {
    path: PathBuf,
    objects: OwnedFd,
    /// The store's directory, locked: one self-test at a time, so what is found there is a dead one's.
    _lock: OwnedFd,
}

impl Scratch {
    fn new(store: &Path) -> Result<Self, MountError> {
        let path = store.join(DIRECTORY);
        let failed = |errno| MountError::kernel("preparing the self-test", path.display(), errno);
        let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let lock = rustix::fs::open(store, flags, Mode::empty()).map_err(failed)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(failed)?;
        match std::fs::remove_dir_all(&path).map_err(errno) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        std::fs::create_dir_all(path.join("objects")).map_err(errno).map_err(failed)?;
        let objects = rustix::fs::open(path.join("objects"), flags, Mode::empty()).map_err(failed)?;
        Ok(Self { path, objects, _lock: lock })
    }

    /// Writes the objects and the image, sealed if the store is.
    fn fill(&self, sealed: bool) -> Result<ImageFile, MountError> {
        let failed = |step: &str, errno| MountError::kernel(step, self.path.display(), errno);
        let image = tiny_image().map_err(|why| {
            tracing::error!(%why, "the self-test's image cannot be built");
            failed("building the self-test's image", Errno::INVAL)
        })?;
        self.put(CONTENT, sealed).map_err(|errno| failed("writing the self-test's object", errno))?;
        self.put(UNSEALED, false).map_err(|errno| failed("writing the self-test's object", errno))?;
        let digest =
            self.put(&image.bytes, sealed).map_err(|errno| failed("writing the self-test's image", errno))?;
        let image = ImageFile::lock(&self.objects, &digest)?;
        if sealed {
            image.measure()?;
        }
        Ok(image)
    }

    fn put(&self, content: &[u8], sealed: bool) -> Result<VerityDigest, Errno> {
        let digest = VerityDigest::of(content);
        let path = self.path.join("objects").join(object_name(&digest));
        let write = || -> std::io::Result<File> {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            File::create(&path)?.write_all(content)?;
            File::open(&path)
        };
        let file = write().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        if sealed {
            enable_verity(&file)?;
        }
        Ok(digest)
    }

    /// The first way that works, best first; notes why those before it do not.
    fn find_way(
        &self,
        verity: bool,
        image: &ImageFile,
        bases: &Bases,
        failed: &mut Vec<String>,
    ) -> Option<Way> {
        for backing in [Backing::File, Backing::LoopDevice] {
            let way = |layers| Way { backing, layers, verity, context: None };
            // Layers make no difference to this.
            if let Err(error) = way(Layers::Descriptors).erofs(image, SUBJECT, bases) {
                failed.push(format!("{backing}: {}", error.brief()));
                continue;
            }
            for layers in [Layers::Descriptors, Layers::Paths, Layers::Classic] {
                match self.try_way(&way(layers), image, bases) {
                    Ok(_) => return Some(way(layers)),
                    Err(error) => failed.push(format!("{layers} with {backing}: {}", error.brief())),
                }
            }
        }
        None
    }

    /// The first label that the policy lets this process mount with. Whether containers may read it is the policy's
    /// to say.
    fn find_label(
        &self,
        way: &Way,
        wanted: &SelinuxContext,
        image: &ImageFile,
        bases: &Bases,
        failed: &mut Vec<String>,
    ) -> Result<Labelling, MountError> {
        if !selinux::is_on() {
            return Ok(Labelling::default());
        }
        let mut refused = Vec::new();
        for label in wanted.candidates() {
            let context = Some(label.to_owned());
            match self.try_way(&Way { context: context.clone(), ..way.clone() }, image, bases) {
                Ok(label) => return Ok(Labelling { context, label }),
                Err(error) if wanted.is_demanded() => {
                    return Err(MountError::Label { label: label.to_owned(), why: error.brief() });
                }
                Err(error) => refused.push(format!("label {label}: {}", error.brief())),
            }
        }
        let label = self.try_way(way, image, bases)?;
        if !refused.is_empty() {
            tracing::warn!(
                label,
                refused = refused.join("; "),
                "SELinux lets volumes be mounted with no label that containers can be expected to read; give \
                 --selinux-context one of this node's policy"
            );
        }
        failed.append(&mut refused);
        Ok(Labelling { context: None, label })
    }

    /// Mounts the image, reads the one file, and makes sure that the other is refused if it should be. Returns the
    /// SELinux label.
    fn try_way(&self, way: &Way, image: &ImageFile, bases: &Bases) -> Result<Option<String>, MountError> {
        let mount = way.mount(image, self.objects.as_fd(), bases)?;
        let failed = |step: &str, errno| MountError::kernel(step, SUBJECT, errno);
        let text = read(&mount, "file").map_err(|errno| failed("reading a file", errno))?;
        if text != CONTENT {
            return Err(failed("reading a file gives other bytes", Errno::IO));
        }
        match read(&mount, "unsealed") {
            Ok(_) if way.verity => {
                Err(failed("verity=require lets an unsealed file through", Errno::OPNOTSUPP))
            }
            _ => selinux::label_of(&mount).map_err(|errno| failed("reading the label", errno)),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn read(mount: &OwnedFd, name: &str) -> Result<Vec<u8>, Errno> {
    let file = rustix::fs::openat(mount, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    match File::from(file).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

/// An image with `file` and `unsealed` in its root. The error is a defect of ours, in words.
fn tiny_image() -> Result<ImageBytes, String> {
    let mut builder = Builder::new(Rules::Faithful);
    let mut layer = builder.layer();
    for (name, content) in [("file", CONTENT), ("unsealed", UNSEALED)] {
        let kind = EntryKind::Object(VerityDigest::of(content), content.len() as u64);
        let entry =
            Entry { path: name.as_bytes().into(), meta: Meta { mode: 0o444, ..Meta::default() }, kind };
        layer.apply(entry).map_err(|error| error.to_string())?;
    }
    layer.end().map_err(|error| error.to_string())?;
    let tree = builder.finish().map_err(|error| error.to_string())?;
    write_image(tree).map_err(|error| error.to_string())
}
