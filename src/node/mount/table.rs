//! The mount table: which mount is this, and which of all are ours.
//!
//! One mount is looked up in constant time with statmount(2), since a publish must not grow slower with the
//! number of volumes. Before Linux 6.13, which does not tell the source that way, and where a sandbox forbids
//! the call, /proc/self/mountinfo answers.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::{MountError, MountSpec, mountinfo};
use crate::image::verity::VerityDigest;
use crate::sys::statmount::{MountDetails, listmount, mount_id, statmount};

/// What stands before the digest in the source of our overlays.
const PREFIX: &str = "composefs:";

/// A mount, as far as it concerns us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) fs_type: OsString,
    pub(super) source: OsString,
    /// The directory of the filesystem that the mount shows.
    pub(super) root: PathBuf,
    pub(super) point: PathBuf,
    /// Which filesystem it is of: the mounts of one superblock have this in common.
    pub(super) device: (u32, u32),
    /// Read-only, nosuid and nodev, as everything of ours is.
    pub(super) confined: bool,
    pub(super) noexec: bool,
}

/// Which directory of objects an overlay reads: device and inode, which are the same in every mount
/// namespace. Two stores on one node may hold the same image; a mount of one must not serve the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoreId {
    device: u64,
    inode: u64,
}

impl StoreId {
    /// Of the store with these objects.
    pub(super) fn of(objects: impl AsFd) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(objects)?;
        Ok(Self { device: stat.st_dev, inode: stat.st_ino })
    }
}

/// The source string that an image's overlay carries: `composefs:<image digest>@<store>`.
pub(super) fn source_of(image: &VerityDigest, store: StoreId) -> String {
    format!("{PREFIX}{image}@{:x}.{:x}", store.device, store.inode)
}

impl Mount {
    /// The image, if this mount is one of ours.
    pub(super) fn image(&self) -> Option<VerityDigest> {
        let (digest, _store) = self.source.to_str()?.strip_prefix(PREFIX)?.split_once('@')?;
        if self.fs_type == "overlay" && self.confined { VerityDigest::from_hex(digest) } else { None }
    }

    /// What is published here, if this mount is one of ours.
    pub(super) fn spec(&self) -> Option<MountSpec> {
        let path = self.root.strip_prefix("/").unwrap_or(&self.root).to_owned();
        Some(MountSpec { image: self.image()?, path, noexec: self.noexec })
    }

    /// Is this the image, read from that store?
    pub(super) fn is_of(&self, image: &VerityDigest, store: StoreId) -> bool {
        self.image().is_some() && self.source.to_str() == Some(&source_of(image, store))
    }

    /// Is this the root of that image, not a directory in it?
    pub(super) fn shows_whole(&self, image: &VerityDigest, store: StoreId) -> bool {
        self.is_of(image, store) && self.root == Path::new("/")
    }

    /// The error for finding this one where one of ours should be.
    pub(super) fn foreign(&self, target: &Path) -> MountError {
        let what = format!("{} from `{}`", self.fs_type.display(), self.source.display());
        MountError::Foreign { target: target.to_owned(), what }
    }

    fn from_details(details: MountDetails) -> Option<Self> {
        let has =
            |flags: MountAttrFlags| details.attributes & u64::from(flags.bits()) == u64::from(flags.bits());
        Some(Self {
            confined: has(super::superblock::CONFINED),
            noexec: has(MountAttrFlags::MOUNT_ATTR_NOEXEC),
            fs_type: details.fs_type,
            source: details.source?,
            root: PathBuf::from(details.root),
            point: PathBuf::from(details.point),
            device: details.device,
        })
    }
}

/// Is `directory` the root of a mount?
pub(super) fn is_mount_root(directory: impl AsFd) -> Result<bool, Errno> {
    let stat = rustix::fs::statx(directory, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// The mount that `directory` is the root of; `None` where it is no mount's root.
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
    let stat = rustix::fs::statx(&directory, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    let text = read_mountinfo()?;
    let line = mountinfo::parse(&text).find(|line| line.id == stat.stx_mnt_id);
    // Unmounted in between: as if it never was.
    Ok(line.map(|line| line.mount))
}

/// Shows every mount of this namespace to `visit` until it breaks off.
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

/// Every image that is mounted anywhere in this mount namespace, privately or published.
///
/// # Errors
/// The mount table cannot be read.
pub fn mounted_images() -> Result<BTreeSet<VerityDigest>, MountError> {
    let mut images = BTreeSet::new();
    scan(|mount| {
        images.extend(mount.image());
        ControlFlow::Continue(())
    })?;
    Ok(images)
}

/// Where the whole of `image` is published from `store`, by an overlay that checks objects as `verity` says.
pub(super) fn published_roots(
    image: &VerityDigest,
    store: StoreId,
    verity: bool,
) -> Result<Vec<PathBuf>, MountError> {
    let text = read_mountinfo()
        .map_err(|errno| MountError::kernel("reading the mount table", "this mount namespace", errno))?;
    let whole = mountinfo::parse(&text)
        .filter(|line| line.verity == verity && line.mount.shows_whole(image, store))
        .map(|line| line.mount.point);
    Ok(whole.collect())
}

/// Any failure to list, and a kernel that does not tell the source, is `ENOSYS`; a mount visited before that is
/// visited again by the other way, which callers do not mind.
fn scan_by_id(visit: &mut impl FnMut(Mount) -> ControlFlow<()>) -> Result<(), Errno> {
    let mut after = 0;
    loop {
        let ids = listmount(after).map_err(|_| Errno::NOSYS)?;
        let Some(last) = ids.last() else { return Ok(()) };
        after = *last;
        for id in ids {
            match statmount(id) {
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

/// Is `path` a plain way down: relative, every component a name?
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

    const STORE: StoreId = StoreId { device: 0x801, inode: 77 };

    fn ours() -> Mount {
        Mount {
            fs_type: "overlay".into(),
            source: source_of(&VerityDigest([0xab; 32]), STORE).into(),
            root: "/usr/share".into(),
            point: "/target".into(),
            device: (0, 99),
            confined: true,
            noexec: true,
        }
    }

    #[test]
    fn ours_is_known_by_type_source_and_flags() {
        let spec = MountSpec { image: VerityDigest([0xab; 32]), path: "usr/share".into(), noexec: true };
        assert_eq!(ours().spec(), Some(spec));
        let others = [
            Mount { fs_type: "erofs".into(), ..ours() },
            Mount { source: "overlay".into(), ..ours() },
            Mount { source: "composefs:abab".into(), ..ours() },
            Mount { confined: false, ..ours() },
        ];
        for other in others {
            assert_eq!(other.spec(), None, "{other:?}");
        }
    }

    #[test]
    fn a_mount_of_another_store_is_ours_but_not_this_ones() {
        let whole = Mount { root: "/".into(), ..ours() };
        let (image, other) = (VerityDigest([0xab; 32]), StoreId { inode: 78, ..STORE });
        assert!(whole.shows_whole(&image, STORE));
        assert!(!whole.shows_whole(&image, other) && !whole.shows_whole(&VerityDigest([0; 32]), STORE));
        assert!(!ours().shows_whole(&image, STORE), "only a directory of it");
        let elsewhere = Mount { source: source_of(&image, other).into(), ..ours() };
        assert_eq!(elsewhere.image(), Some(image), "the sweep keeps it all the same");
    }

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
