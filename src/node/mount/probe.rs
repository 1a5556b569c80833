//! The self-test: mounts a tiny image by each method until one works, and reads it.
//!
//! It uses a directory of its own on the store's filesystem and detached mounts (on old kernels, mounts that are
//! attached temporarily in the state directory). Once it has succeeded it leaves its few small files there, and uses them
//! again: a plugin must start when the disk is full, or it could not even unmount.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::base::BaseMounts;
use super::object::{ImageFile, object_name};
use super::selinux::{self, Labelling, SelinuxContext};
use super::superblock::{Backing, Layers, MountMethod};
use super::{Capabilities, MountError, Verity};
use crate::image::composefs::{ImageBytes, write_image};
use crate::image::entry::{EntryKind, LayerEntry, Meta};
use crate::image::tree::{Builder, Rules};
use crate::image::verity::VerityDigest;
use crate::sys::verity::{enable_verity, measure_verity};

/// Longer than the files that composefs stores inline in the image.
const CONTENT: &[u8] = b"If you can read this through a mount, then this node can serve composefs images. \n";
/// The content of an object without fs-verity, which the kernel must refuse under `verity=require`.
const UNSEALED: &[u8] =
    b"If you can read this although fs-verity is required, then it is not required at all. \n";
const SUBJECT: &str = "the self-test's image";
pub(super) const DIRECTORY: &str = ".self-test";

/// Finds the best method of mounting images of `store` on this kernel, and the label that `wanted` results in.
pub(super) fn run(
    store: &Path,
    bases: &BaseMounts,
    sealed: bool,
    wanted: &SelinuxContext,
) -> Result<Capabilities, MountError> {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut scratch = Scratch::open(store, sealed)?;
    let image = scratch.image()?;
    let bases = &bases.for_self_test()?;
    let mut failed = Vec::new();
    let (method, verity) = if let Some(method) = scratch.find_method(sealed, &image, bases, &mut failed) {
        (method, if sealed { Verity::Required } else { Verity::NotInStore })
        // A store with fs-verity still serves where only `verity=require` fails, at a lower level.
    } else if sealed && let Some(method) = scratch.find_method(false, &image, bases, &mut Vec::new()) {
        (method, Verity::Unusable(std::mem::take(&mut failed).join("; ")))
    } else {
        return Err(MountError::NoMountMethod { kernel, tried: failed });
    };
    let selinux = scratch.find_label(&method, wanted, &image, bases, &mut failed)?;
    scratch.keep = true;
    Ok(Capabilities { kernel, backing: method.backing, layers: method.layers, verity, selinux, failed })
}

/// A store of two objects and one image, removed when dropped unless it is to be kept.
#[derive(Debug)]
struct Scratch {
    path: PathBuf,
    image: ImageBytes,
    sealed: bool,
    objects: OwnedFd,
    keep: bool,
    /// The store's directory, locked. Only one self-test runs at a time.
    _lock: OwnedFd,
}

impl Scratch {
    /// The files of an earlier self-test, or else new ones, with fs-verity if the store has it.
    fn open(store: &Path, sealed: bool) -> Result<Self, MountError> {
        let path = store.join(DIRECTORY);
        let failed = |step: &str, errno| MountError::kernel(step, path.display(), errno);
        let preparing = |errno| failed("preparing the self-test", errno);
        let image = image_of(&[("file", CONTENT), ("unsealed", UNSEALED)]).map_err(|why| {
            tracing::error!(%why, "the self-test's image cannot be built");
            failed("building the self-test's image", Errno::INVAL)
        })?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let lock = rustix::fs::open(store, flags, Mode::empty()).map_err(preparing)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(preparing)?;
        let files = Files { directory: path.join("objects"), sealed, image: &image.bytes };
        if !files.are_there() {
            // A crashed self-test's, of a release with another image, or damaged.
            match std::fs::remove_dir_all(&path).map_err(errno_of) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(preparing(errno)),
            }
            files.write().map_err(|errno| failed("writing the self-test's files", errno))?;
        }
        let objects = rustix::fs::open(&files.directory, flags, Mode::empty()).map_err(preparing)?;
        Ok(Self { path, image, sealed, objects, keep: false, _lock: lock })
    }

    fn image(&self) -> Result<ImageFile, MountError> {
        let image = ImageFile::lock(&self.objects, &self.image.digest())?;
        if self.sealed {
            image.measure()?;
        }
        Ok(image)
    }

    /// The best method that works. Adds to `failed` why the better ones do not.
    fn find_method(
        &self,
        verity: bool,
        image: &ImageFile,
        bases: &BaseMounts,
        failed: &mut Vec<String>,
    ) -> Option<MountMethod> {
        for backing in [Backing::File, Backing::LoopDevice] {
            let method = |layers| MountMethod { backing, layers, verity, context: None };
            // EROFS alone first: if it fails, no kind of layers can work.
            if let Err(error) = method(Layers::Descriptors).erofs(image, SUBJECT, bases) {
                failed.push(format!("{backing}: {}", error.brief()));
                continue;
            }
            for layers in [Layers::Descriptors, Layers::Paths, Layers::Classic] {
                match self.try_method(&method(layers), image, bases) {
                    Ok(_) => return Some(method(layers)),
                    Err(error) => failed.push(format!("{layers} with {backing}: {}", error.brief())),
                }
            }
        }
        None
    }

    /// The first label that the SELinux policy lets this process mount with. The test cannot tell whether the policy
    /// lets containers read it.
    fn find_label(
        &self,
        method: &MountMethod,
        wanted: &SelinuxContext,
        image: &ImageFile,
        bases: &BaseMounts,
        failed: &mut Vec<String>,
    ) -> Result<Labelling, MountError> {
        if !selinux::is_on() {
            return Ok(Labelling::default());
        }
        let mut refused = Vec::new();
        for label in wanted.candidates() {
            let context = Some(label.to_owned());
            match self.try_method(&MountMethod { context: context.clone(), ..method.clone() }, image, bases) {
                Ok(label) => return Ok(Labelling { context, label }),
                Err(error) if wanted.is_demanded() => {
                    return Err(MountError::Label { label: label.to_owned(), why: error.brief() });
                }
                Err(error) => refused.push(format!("label {label}: {}", error.brief())),
            }
        }
        // No label of ours: the policy decides how files without labels count.
        let label = self.try_method(method, image, bases)?;
        if !refused.is_empty() {
            tracing::warn!(
                label,
                refused = refused.join("; "),
                "SELinux refuses every label that containers are known to be allowed to read; give --selinux-context a \
                 label of this node's policy"
            );
        }
        failed.append(&mut refused);
        Ok(Labelling { context: None, label })
    }

    /// Mounts the image, reads the file with fs-verity, and checks that the file without is refused if it must be.
    /// Returns the SELinux label.
    fn try_method(
        &self,
        method: &MountMethod,
        image: &ImageFile,
        bases: &BaseMounts,
    ) -> Result<Option<String>, MountError> {
        let mount = method.mount(image, self.objects.as_fd(), bases)?;
        let failed = |step: &str, errno| MountError::kernel(step, SUBJECT, errno);
        let text = read(&mount, "file").map_err(|errno| failed("reading a file", errno))?;
        if text != CONTENT {
            return Err(failed("reading a file gives other bytes", Errno::IO));
        }
        match read(&mount, "unsealed") {
            Ok(_) if method.verity => {
                Err(failed("verity=require lets an unsealed file through", Errno::OPNOTSUPP))
            }
            _ => selinux::label_of(&mount).map_err(|errno| failed("reading the label", errno)),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// The three files of a self-test.
struct Files<'a> {
    directory: PathBuf,
    sealed: bool,
    image: &'a [u8],
}

impl Files<'_> {
    /// Each file's content, and whether it has fs-verity.
    fn each(&self) -> [(&[u8], bool); 3] {
        [(CONTENT, self.sealed), (UNSEALED, false), (self.image, self.sealed)]
    }

    fn path(&self, content: &[u8]) -> PathBuf {
        self.directory.join(object_name(&VerityDigest::of(content)))
    }

    fn are_there(&self) -> bool {
        self.each().into_iter().all(|(content, sealed)| {
            let path = self.path(content);
            let has_verity = || File::open(&path).is_ok_and(|file| measure_verity(&file).is_ok());
            std::fs::read(&path).is_ok_and(|found| found == content) && has_verity() == sealed
        })
    }

    fn write(&self) -> Result<(), Errno> {
        for (content, sealed) in self.each() {
            let path = self.path(content);
            let write = || -> std::io::Result<File> {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                File::create(&path)?.write_all(content)?;
                File::open(&path)
            };
            let file = write().map_err(errno_of)?;
            if sealed {
                enable_verity(&file)?;
            }
        }
        Ok(())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn errno_of(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

pub(super) fn read(mount: &OwnedFd, name: &str) -> Result<Vec<u8>, Errno> {
    let file = rustix::fs::openat(mount, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    match File::from(file).read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

/// An image with these files in its root. An error is a defect of this program.
pub(super) fn image_of(files: &[(&str, &[u8])]) -> Result<ImageBytes, String> {
    let mut builder = Builder::new(Rules::Faithful);
    let mut layer = builder.layer();
    for (name, content) in files {
        let kind = EntryKind::Object(VerityDigest::of(content), content.len() as u64);
        let entry =
            LayerEntry { path: name.as_bytes().into(), meta: Meta { mode: 0o444, ..Meta::default() }, kind };
        layer.apply(entry).map_err(|error| error.to_string())?;
    }
    layer.end().map_err(|error| error.to_string())?;
    let tree = builder.finish().map_err(|error| error.to_string())?;
    write_image(tree).map_err(|error| error.to_string())
}
