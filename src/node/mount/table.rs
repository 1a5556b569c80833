//! The mount table: looks up one mount, and scans for the mounts of images.
//!
//! statmount(2) looks up one mount in constant time, so that a publish does not get slower with the number of volumes.
//! /proc/self/mountinfo is the fallback before Linux 6.13, which does not report the source that way, and where a
//! sandbox forbids the call.

use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::store_mount::{Mount, StoreId, is_mount_root};
use super::{MountError, mountinfo};
use crate::image::store::Mounted;
use crate::image::verity::VerityDigest;
use crate::sys::statmount::{listmount, mount_id, statmount};

/// The mount that `directory` is the root of; `None` if it is not the root of a mount.
pub(super) fn mount_at(directory: impl AsFd) -> Result<Option<Mount>, Errno> {
    if !is_mount_root(&directory)? {
        return Ok(None);
    }
    if let Some(id) = mount_id(&directory)?
        && let Ok(details) = statmount(id)
        && let Some(mount) = Mount::from_details(details)
    {
        return Ok(Some(mount));
    }
    // The fallback searches by the reusable id, the only one that mountinfo has.
    let stat = rustix::fs::statx(&directory, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    let text = read_mountinfo()?;
    let line = mountinfo::parse(&text).find(|line| line.id == stat.stx_mnt_id);
    // No such line: unmounted meanwhile, so no mount.
    Ok(line.map(|line| line.mount))
}

/// Calls `visit` for every mount of this namespace until it breaks.
pub(super) fn scan(mut visit: impl FnMut(Mount) -> ControlFlow<()>) -> Result<(), MountError> {
    let failed = |errno| MountError::kernel("reading the mount table", "this mount namespace", errno);
    match scan_by_id(&mut visit) {
        Err(Errno::NOSYS) => {}
        other => return other.map_err(failed),
    }
    for line in mountinfo::parse(&read_mountinfo().map_err(failed)?) {
        if visit(line.mount).is_break() {
            break;
        }
    }
    Ok(())
}

/// Every image with a base mount or a published mount in this mount namespace, as seen from the store in this directory.
///
/// # Errors
/// The store's objects cannot be looked at, or the mount table cannot be read.
pub fn mounted_images(store: &Path) -> Result<Mounted, MountError> {
    let path = store.join("objects");
    let objects = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let store = objects.and_then(StoreId::of);
    images_from(store.map_err(|errno| MountError::kernel("looking at the objects", path.display(), errno))?)
}

/// The same of a store with this identity.
pub(super) fn images_from(store: StoreId) -> Result<Mounted, MountError> {
    let mut mounted = Mounted::default();
    scan(|mount| {
        if let Some(image) = mount.image() {
            let images = if mount.is_of(&image, store) { &mut mounted.here } else { &mut mounted.elsewhere };
            images.insert(image);
        }
        ControlFlow::Continue(())
    })?;
    Ok(mounted)
}

/// The mount points of the whole `image` from `store`, by an overlay with or without `verity=require` as `verity` says.
pub(super) fn published_roots(
    image: &VerityDigest,
    store: StoreId,
    verity: bool,
) -> Result<Vec<PathBuf>, MountError> {
    // statmount(2) does not report the filesystem's options, such as `verity=require`, on every kernel.
    let text = read_mountinfo()
        .map_err(|errno| MountError::kernel("reading the mount table", "this mount namespace", errno))?;
    let whole = mountinfo::parse(&text)
        .filter(|line| line.verity == verity && line.mount.is_whole_image(image, store))
        .map(|line| line.mount.point);
    Ok(whole.collect())
}

/// How many mounts are stacked on the mount point `point`.
pub(super) fn stacked_on(point: &Path) -> Result<usize, MountError> {
    // Each exactly once, which a scan does not promise.
    let text = read_mountinfo()
        .map_err(|errno| MountError::kernel("reading the mount table", "this mount namespace", errno))?;
    Ok(mountinfo::parse(&text).filter(|line| line.mount.point == point).count())
}

/// Scans by listmount(2). Returns `ENOSYS` if listing fails or the kernel does not report the source. The fallback
/// then visits mounts again; callers tolerate that.
fn scan_by_id(visit: &mut impl FnMut(Mount) -> ControlFlow<()>) -> Result<(), Errno> {
    let mut after = 0;
    loop {
        let ids = listmount(after).map_err(|_| Errno::NOSYS)?;
        let Some(last) = ids.last() else { return Ok(()) };
        after = *last;
        for id in ids {
            match statmount(id) {
                // Unmounted since it was listed.
                Err(Errno::NOENT) => continue,
                Err(_) => return Err(Errno::NOSYS),
                Ok(details) => {
                    if visit(Mount::from_details(details).ok_or(Errno::NOSYS)?).is_break() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

fn read_mountinfo() -> Result<Vec<u8>, Errno> {
    std::fs::read("/proc/self/mountinfo").map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Whether `path` only descends: relative, and every component is a name.
pub(super) fn is_plain_descent(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.is_empty()
        || bytes
            .split(|byte| *byte == b'/')
            .all(|name| !matches!(name, b"" | b"." | b"..") && !name.contains(&0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_see_the_same_table() {
        let mut by_id = Vec::new();
        if scan_by_id(&mut |mount| {
            by_id.push(mount.point);
            ControlFlow::Continue(())
        })
        .is_err()
        {
            return assert!(by_id.is_empty(), "an old kernel shows no source at all");
        }
        let text = read_mountinfo().unwrap();
        for line in mountinfo::parse(&text) {
            // Other tests mount and unmount below temporary directories meanwhile.
            if !line.mount.point.starts_with(std::env::temp_dir()) {
                assert!(by_id.contains(&line.mount.point), "{line:?}");
            }
        }
    }

    #[test]
    fn a_descent_has_names_only() {
        for good in ["", "a", "a/b", "..a/b.."] {
            assert!(is_plain_descent(Path::new(good)), "{good:?}");
        }
        for bad in ["/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a\0b"] {
            assert!(!is_plain_descent(Path::new(bad)), "{bad:?}");
        }
    }
}
