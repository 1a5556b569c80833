//! Making mounts look again for objects that were replaced.
//!
//! overlayfs looks a file's data up when the file is first opened, and remembers what it has found for as long as it remembers
//! the file (fs/overlayfs/namei.c, `ovl_maybe_lookup_lowerdata`). A new file under the same name is not seen before that.
//! Reconfiguring a filesystem makes the kernel forget all of its names that nobody uses (fs/super.c, `reconfigure_super`);
//! nothing else changes. ADR 0051 has what was tried.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::base::PATH_DIRECTORY;
use super::context::Context;
use super::store_mount::StoreId;
use super::{MountError, table};
use crate::image::verity::VerityDigest;

/// As [`super::Mounter::refresh`], for the mounts of the store in this directory.
///
/// # Errors
/// The store's objects cannot be looked at, or the mount table cannot be read.
pub fn refresh(store: &Path, images: &BTreeSet<VerityDigest>) -> Result<(), MountError> {
    let path = store.join("objects");
    let objects = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let store = objects.and_then(StoreId::of);
    let looking = |errno| MountError::kernel("looking at the objects", path.display(), errno);
    refresh_from(store.map_err(looking)?, images)
}

/// The same of a store with this identity.
pub(super) fn refresh_from(store: StoreId, images: &BTreeSet<VerityDigest>) -> Result<(), MountError> {
    // Each filesystem once, by one of its mounts.
    let mut filesystems: BTreeMap<(u32, u32), (PathBuf, VerityDigest, bool)> = BTreeMap::new();
    table::scan(|mount| {
        if mount.fs_type == "overlay"
            && let Some(image) = mount.image()
            && images.contains(&image)
            && mount.is_of(&image, store)
        {
            filesystems.entry(mount.device).or_insert((mount.point, image, mount.read_only));
        }
        ControlFlow::Continue(())
    })?;
    for (device, (point, image, read_only)) in filesystems {
        if let Err(error) = look_again(&point, device, &image, read_only) {
            tracing::warn!(point = %point.display(), "a mount may go on showing what was damaged: {error}");
        }
    }
    Ok(())
}

fn look_again(
    point: &Path,
    (major, minor): (u32, u32),
    image: &VerityDigest,
    read_only: bool,
) -> Result<(), MountError> {
    let subject = format!("image {image}");
    let failed = |step: &str, errno| MountError::kernel(step, point.display(), errno);
    let root =
        rustix::fs::open(point, PATH_DIRECTORY, Mode::empty()).map_err(|errno| failed("open", errno))?;
    let found = rustix::fs::fstat(&root).map_err(|errno| failed("fstat", errno))?.st_dev;
    if (rustix::fs::major(found), rustix::fs::minor(found)) != (major, minor) {
        // Unmounted meanwhile, or something else is mounted over it.
        return Ok(());
    }
    let context = Context::of_mounted(&root, "overlay", &subject)?;
    if read_only {
        // An overlay without an upper refuses to be anything else.
        context.flag("ro")?;
    }
    context.reconfigure()
}
