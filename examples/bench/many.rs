//! Many images on one base, all mounted: what their metadata takes on disk, and in the kernel's memory once every file of
//! every image was looked at. Beside the kernel's overlayfs of the unpacked layers, and beside what nobody does yet: the
//! base's image once, with each image's own layer over it.
//!
//! Contents are left out: each way has them once. Memory is what the kernel charges to a memory cgroup of its own, so that
//! other load does not count.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::node::mount::{KernelMounter, MountSpec, Mounter as _};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use crate::support::cgroup::{Charged, Group};
use crate::support::layout::{Layer, LayerWriter, Layout};
use crate::support::measure::cold;
use crate::support::tarball::{Kind, Member};

/// Files of an image's own layer; one of them is in the place of a file of the base.
const OWN: usize = 20;
/// Files in a directory of the base.
const IN_DIRECTORY: usize = 20;

/// One way of having the images.
#[derive(Debug)]
pub struct Way {
    pub name: &'static str,
    /// Bytes on disk that are no contents of files.
    pub disk: u64,
    pub charged: Charged,
}

/// Measures `images` images on a base of `files` files below `base`.
pub fn measure(program: &Path, base: &Path, images: usize, files: usize) -> Result<Vec<Way>> {
    eprintln!("bench: writing {images} images on a base of {files} files");
    let unpacked = base.join("unpacked");
    let layout = write(&base.join("layout"), &unpacked, images, files)?;
    let whole: Vec<String> = (0..images).map(|image| format!("image-{image}")).collect();
    let own: Vec<String> = (0..images).map(|image| format!("own-{image}")).collect();
    let parts: Vec<String> = std::iter::once("base".to_owned()).chain(own).collect();

    let overlay = overlay_of_layers(base, &unpacked, images)?;
    let (flattened, found) = pull(program, &base.join("flattened"), &layout, &whole)?;
    let ours = flattened_images(base, &flattened, &found)?;
    let (split, found) = pull(program, &base.join("split"), &layout, &parts)?;
    let halves = split_images(base, &split, &found)?;
    Ok(vec![ours, overlay, halves])
}

/// Writes the layout, and each layer unpacked below `unpacked`.
fn write(root: &Path, unpacked: &Path, images: usize, files: usize) -> Result<PathBuf> {
    let mut layout = Layout::create(root)?;
    let mut base = Writer::new(&layout, unpacked.join("base"))?;
    for number in 0..files {
        if number % IN_DIRECTORY == 0 {
            base.directory(&format!("usr/lib/d{:04}", number / IN_DIRECTORY))?;
        }
        base.file(&format!("usr/lib/d{:04}/file-{number:06}.so", number / IN_DIRECTORY), number as u64)?;
    }
    let base = base.finish()?;
    layout.image("base", std::slice::from_ref(&base))?;
    let mut layers = vec![base];
    for image in 0..images {
        let mut own = Writer::new(&layout, unpacked.join(format!("own-{image}")))?;
        own.directory("app")?;
        own.directory("usr/lib/d0000")?;
        own.file("usr/lib/d0000/file-000000.so", (1 << 40) + image as u64)?;
        for number in 1..OWN {
            own.file(&format!("app/file-{number:04}"), (1 << 32) * (image as u64 + 1) + number as u64)?;
        }
        layers.truncate(1);
        let own = own.finish()?;
        layout.image(&format!("own-{image}"), std::slice::from_ref(&own))?;
        layers.push(own);
        layout.image(&format!("image-{image}"), &layers)?;
    }
    Ok(root.to_owned())
}

/// A layer, as archive and as directory.
struct Writer {
    layer: LayerWriter,
    directory: PathBuf,
}

impl Writer {
    fn new(layout: &Layout, directory: PathBuf) -> Result<Self> {
        fs::create_dir_all(&directory)?;
        let mut writer = Self { layer: layout.layer()?, directory };
        writer.directory("usr/lib")?;
        Ok(writer)
    }

    fn directory(&mut self, path: &str) -> Result<()> {
        fs::create_dir_all(self.directory.join(path))?;
        let mut upto = String::new();
        for name in path.split('/') {
            upto = if upto.is_empty() { name.to_owned() } else { format!("{upto}/{name}") };
            self.layer.append(&member(&upto, Kind::Directory, 0), io::empty())?;
        }
        Ok(())
    }

    /// A file of some hundred bytes that depend on `seed`.
    fn file(&mut self, path: &str, seed: u64) -> Result<()> {
        let content = format!("{seed:020} of this benchmark\n").repeat(20);
        fs::write(self.directory.join(path), &content)?;
        Ok(self.layer.append(&member(path, Kind::File, content.len() as u64), content.as_bytes())?)
    }

    fn finish(self) -> Result<Layer> {
        Ok(self.layer.finish()?)
    }
}

fn member(path: &str, kind: Kind, size: u64) -> Member {
    let mode = if kind == Kind::Directory { 0o755 } else { 0o644 };
    Member { path: path.as_bytes().to_vec(), kind, mode, uid: 0, gid: 0, mtime: 1_700_000_000, size }
}

/// Pulls images into a new state directory, and returns the digest of each.
fn pull(
    program: &Path,
    state: &Path,
    layout: &Path,
    tags: &[String],
) -> Result<(PathBuf, Vec<VerityDigest>)> {
    eprintln!("bench: pulling {} images", tags.len());
    let mut found = Vec::new();
    for tag in tags {
        let image = format!("oci:{}:{tag}", layout.display());
        let mut command = Command::new(program);
        command.args(["--without-policy", "accept", "--output", "json", "--state-dir"]).arg(state);
        let output = command.args(["pull", &image]).output()?;
        ensure!(output.status.success(), "{image}: {}", String::from_utf8_lossy(&output.stderr));
        let pulled: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let digest = pulled["image"].as_str().and_then(VerityDigest::from_hex);
        found.push(digest.context("an image has a digest")?);
    }
    Ok((state.to_owned(), found))
}

/// As this driver mounts them.
fn flattened_images(base: &Path, state: &Path, images: &[VerityDigest]) -> Result<Way> {
    let store = state.join("store");
    let disk = metadata_of_store(&store, images)?;
    let mounter = KernelMounter::start(&store, state, false)?;
    let targets = targets(base, images.len())?;
    let charged = charged(&targets, || {
        for (image, target) in images.iter().zip(&targets) {
            let spec = MountSpec { image: *image, path: PathBuf::new(), noexec: false, upper: None };
            mounter.mount(&spec, target)?;
        }
        Ok(())
    })?;
    for (image, target) in images.iter().zip(&targets) {
        mounter.unmount(target)?;
        mounter.release(image)?;
    }
    Ok(Way { name: "composefs-csi: one image each", disk, charged })
}

/// As container runtimes mount them.
fn overlay_of_layers(base: &Path, unpacked: &Path, images: usize) -> Result<Way> {
    let disk = tree(unpacked, &|metadata| metadata.is_dir())?;
    let targets = targets(base, images)?;
    let lower = open(&unpacked.join("base"))?;
    let charged = charged(&targets, || {
        for (image, target) in targets.iter().enumerate() {
            let own = open(&unpacked.join(format!("own-{image}")))?;
            attach(&overlay(&[&own, &lower], None)?, target)?;
        }
        Ok(())
    })?;
    unmount_all(&targets)?;
    Ok(Way { name: "overlayfs of unpacked layers", disk, charged })
}

/// The base's image once, and each image's own over it.
fn split_images(base: &Path, state: &Path, images: &[VerityDigest]) -> Result<Way> {
    let store = state.join("store");
    let disk = metadata_of_store(&store, images)?;
    let objects = open(&store.join("objects"))?;
    let (first, own) = images.split_first().context("a base")?;
    let targets = targets(base, own.len())?;
    let charged = charged(&targets, || {
        let lower = erofs(&object(&store, first))?;
        for (image, target) in own.iter().zip(&targets) {
            let upper = erofs(&object(&store, image))?;
            attach(&overlay(&[&upper, &lower], Some(&objects))?, target)?;
        }
        Ok(())
    })?;
    unmount_all(&targets)?;
    Ok(Way { name: "the base's image shared, not done", disk, charged })
}

/// What the kernel charges for mounting, and for a look at every file below these directories.
fn charged(targets: &[PathBuf], mount: impl FnOnce() -> Result<()>) -> Result<Charged> {
    cold()?;
    let group = Group::enter("composefs-csi-bench")?;
    let before = group.charged()?;
    mount()?;
    let mut files = 0;
    for target in targets {
        look(target, &mut files)?;
    }
    let after = group.charged()?;
    eprintln!("bench: {files} files looked at in {} mounts", targets.len());
    Ok(after.since(&before))
}

/// Stats everything below a directory, and opens nothing.
fn look(directory: &Path, files: &mut u64) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match fs::symlink_metadata(&path)? {
            metadata if metadata.is_dir() => look(&path, files)?,
            _ => *files += 1,
        }
    }
    Ok(())
}

/// Bytes of a store that are no contents: records, directories and composefs images.
fn metadata_of_store(store: &Path, images: &[VerityDigest]) -> Result<u64> {
    let objects = store.join("objects");
    let all = tree(store, &|_| true)? - tree(&objects, &|metadata| metadata.is_file())?;
    let images = images.iter().map(|image| Ok(fs::metadata(object(store, image))?.blocks() * 512));
    Ok(all + images.sum::<Result<u64>>()?)
}

/// Bytes allocated below a directory, of what `counts`.
fn tree(directory: &Path, counts: &dyn Fn(&fs::Metadata) -> bool) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        if counts(&metadata) {
            bytes += metadata.blocks() * 512;
        }
        if metadata.is_dir() {
            bytes += tree(&path, counts)?;
        }
    }
    Ok(bytes)
}

fn object(store: &Path, digest: &VerityDigest) -> PathBuf {
    let hex = digest.hex();
    store.join("objects").join(&hex[..2]).join(&hex[2..])
}

fn targets(base: &Path, count: usize) -> Result<Vec<PathBuf>> {
    let target = |number| {
        let target = base.join(format!("targets/{number}"));
        fs::create_dir_all(&target)?;
        Ok(target)
    };
    (0..count).map(target).collect()
}

fn unmount_all(targets: &[PathBuf]) -> Result<()> {
    targets.iter().try_for_each(|target| Ok(unmount(target, UnmountFlags::empty())?))
}

fn open(directory: &Path) -> Result<OwnedFd> {
    Ok(fs::File::open(directory).with_context(|| format!("{}", directory.display()))?.into())
}

fn finish(context: &OwnedFd) -> Result<OwnedFd> {
    fsconfig_create(context.as_fd()).map_err(|errno| {
        let mut log = String::new();
        let _ = context.try_clone().map(|context| fs::File::from(context).read_to_string(&mut log));
        anyhow::anyhow!("{errno}: {log}")
    })?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)?)
}

fn erofs(image: &Path) -> Result<OwnedFd> {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_flag(context.as_fd(), "ro")?;
    fsconfig_set_flag(context.as_fd(), "noacl")?;
    fsconfig_set_string(context.as_fd(), "source", image)?;
    finish(&context)
}

/// A read-only overlay of these layers, the uppermost first.
fn overlay(layers: &[&OwnedFd], objects: Option<&OwnedFd>) -> Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_flag(context.as_fd(), "ro")?;
    for layer in layers {
        fsconfig_set_fd(context.as_fd(), "lowerdir+", layer)?;
    }
    if let Some(objects) = objects {
        fsconfig_set_string(context.as_fd(), "metacopy", "on")?;
        fsconfig_set_string(context.as_fd(), "redirect_dir", "on")?;
        fsconfig_set_fd(context.as_fd(), "datadir+", objects)?;
    }
    finish(&context)
}

fn attach(mount: &OwnedFd, target: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(mount, "", rustix::fs::CWD, target, flags)?)
}
