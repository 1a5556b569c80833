//! Mounts of a store's images: their flags, their source, and how to recognise them in the mount table.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::{MountError, MountSpec, UpperSpec};
use crate::image::verity::VerityDigest;
use crate::sys::statmount::MountDetails;
use crate::sys::user_namespace::IdRange;

/// The flags that every image mount has.
pub(super) const CONFINED: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY
    .union(MountAttrFlags::MOUNT_ATTR_NOSUID)
    .union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// The flags of an image mount that can be written to.
pub(super) const GUARDED: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// The prefix of the digest in the source of an image's overlay.
const PREFIX: &str = "composefs:";
/// The prefix of the source of the tmpfs of a volume that follows a tag.
const FOLLOWING: &str = "composefs-following@";
/// What follows the users in the source of a top (`mapped`) where nothing may be executed.
const NOEXEC: &str = ",noexec";
/// What follows the store in the source of a mount that can be written to, before the bytes of its upper.
const UPPER: &str = "+upper:";
/// The same, where that lies on disk.
const DISK: &str = "+disk:";

/// A mount: the fields of the mount table that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) fs_type: OsString,
    pub(super) source: OsString,
    /// The directory of the filesystem that the mount shows.
    pub(super) root: PathBuf,
    pub(super) point: PathBuf,
    /// Major and minor number of the superblock: the same for all mounts of it.
    pub(super) device: (u32, u32),
    /// Whether it has the flags [`CONFINED`].
    pub(super) confined: bool,
    /// Whether it has the flags [`GUARDED`].
    pub(super) guarded: bool,
    pub(super) noexec: bool,
    /// Whether the filesystem is read-only, whatever the mount's flags are.
    pub(super) read_only: bool,
}

/// The identity of a store: device and inode of its directory of objects, the same in every mount namespace. Two stores
/// on one node may hold the same image; a mount of one must not serve the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StoreId {
    device: u64,
    inode: u64,
}

impl StoreId {
    /// The identity of the store with these objects.
    pub(super) fn of(objects: impl AsFd) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(objects)?;
        Ok(Self { device: stat.st_dev, inode: stat.st_ino })
    }
}

/// The source of an image's overlay: `composefs:<image digest>@<store>`.
pub(super) fn source_of(image: &VerityDigest, store: StoreId) -> String {
    format!("{PREFIX}{image}@{:x}.{:x}", store.device, store.inode)
}

/// The same of what only a pod with these users sees: `composefs:<image digest>@<store>+<first>:<length>`.
pub(super) fn mapped_source_of(image: &VerityDigest, store: StoreId, users: IdRange) -> String {
    format!("{}+{}:{}", source_of(image, store), users.first, users.length)
}

/// The source of a top, which has no flags of its own to say `noexec` by (`mapped`).
pub(super) fn top_source_of(image: &VerityDigest, store: StoreId, users: IdRange, noexec: bool) -> String {
    format!("{}{}", mapped_source_of(image, store, users), if noexec { NOEXEC } else { "" })
}

/// The same of what one pod can write to, up to so many bytes: `composefs:<image digest>@<store>+upper:<bytes>`, or
/// `+disk:<bytes>` if they lie there.
pub(super) fn writable_source_of(image: &VerityDigest, store: StoreId, upper: UpperSpec) -> String {
    let medium = if upper.on_disk { DISK } else { UPPER };
    format!("{}{medium}{}", source_of(image, store), upper.bytes)
}

/// The source of the tmpfs of a volume that follows a tag: `composefs-following@<store>`.
pub(super) fn following_source_of(store: StoreId) -> String {
    format!("{FOLLOWING}{:x}.{:x}", store.device, store.inode)
}

impl Mount {
    /// Whether this is the tmpfs of a volume that follows a tag, of whatever store.
    pub(super) fn is_following(&self) -> bool {
        // The source alone proves nothing: any mount can have that string.
        let is_ours = self.fs_type == "tmpfs" && self.read_only && self.confined;
        is_ours && self.source.to_str().is_some_and(|source| source.starts_with(FOLLOWING))
    }

    /// The image, if this is an image mount: of an overlay, or the top over several mounts of one.
    pub(super) fn image(&self) -> Option<VerityDigest> {
        let (digest, _store) = self.source.to_str()?.strip_prefix(PREFIX)?.split_once('@')?;
        // The source alone proves nothing: any mount can have that string.
        let is_overlay = self.fs_type == "overlay" && self.confined;
        if is_overlay || self.upper().is_some() || self.is_top() {
            VerityDigest::from_hex(digest)
        } else {
            None
        }
    }

    /// Its upper, if it can be written to.
    pub(super) fn upper(&self) -> Option<UpperSpec> {
        let source = self.source.to_str()?;
        let of = |medium| source.rsplit_once(medium).and_then(|(_, bytes)| bytes.parse().ok());
        let upper = match (of(UPPER), of(DISK)) {
            (Some(bytes), _) => UpperSpec { bytes, on_disk: false },
            (None, bytes) => UpperSpec { bytes: bytes?, on_disk: true },
        };
        let is_ours = self.fs_type == "overlay" && self.guarded && !self.read_only;
        is_ours.then_some(upper)
    }

    fn is_top(&self) -> bool {
        self.fs_type == "tmpfs" && self.read_only && self.users().is_some()
    }

    /// The mount's specification, if this is an image mount. That of a top has no path.
    pub(super) fn spec(&self) -> Option<MountSpec> {
        let path = self.root.strip_prefix("/").unwrap_or(&self.root).to_owned();
        let noexec = self.noexec || self.is_top() && self.source.to_str()?.ends_with(NOEXEC);
        Some(MountSpec { image: self.image()?, path, noexec, upper: self.upper() })
    }

    /// The users that its owners are for, if they are not the node's own.
    pub(super) fn users(&self) -> Option<IdRange> {
        let (_, users) = self.source.to_str()?.split_once('+')?;
        let (first, length) = users.strip_suffix(NOEXEC).unwrap_or(users).split_once(':')?;
        Some(IdRange { first: first.parse().ok()?, length: length.parse().ok()? })
    }

    /// Whether this is a mount of `image` from `store`, for whatever users.
    pub(super) fn is_of(&self, image: &VerityDigest, store: StoreId) -> bool {
        let source = self.source.to_str().map(|source| source.split_once('+').map_or(source, |(of, _)| of));
        self.image().is_some() && source == Some(&source_of(image, store))
    }

    /// Whether this is a mount of the root of `image` from `store`, not of a directory in it, for the node's own users and
    /// with nothing over it.
    pub(super) fn is_whole_image(&self, image: &VerityDigest, store: StoreId) -> bool {
        self.is_of(image, store)
            && self.root == Path::new("/")
            && self.users().is_none()
            && self.upper().is_none()
    }

    /// The error for this mount at a path where only an image mount may be.
    pub(super) fn foreign(&self, target: &Path) -> MountError {
        let what = format!("{} from `{}`", self.fs_type.display(), self.source.display());
        MountError::Foreign { target: target.to_owned(), what }
    }

    /// From statmount(2); `None` if the kernel does not report the source.
    pub(super) fn from_details(details: MountDetails) -> Option<Self> {
        let has =
            |flags: MountAttrFlags| details.attributes & u64::from(flags.bits()) == u64::from(flags.bits());
        Some(Self {
            confined: has(CONFINED),
            guarded: has(GUARDED),
            noexec: has(MountAttrFlags::MOUNT_ATTR_NOEXEC),
            fs_type: details.fs_type,
            source: details.source?,
            root: PathBuf::from(details.root),
            point: PathBuf::from(details.point),
            device: details.device,
            read_only: details.read_only,
        })
    }
}

/// Whether `directory` is the root of a mount.
pub(super) fn is_mount_root(directory: impl AsFd) -> Result<bool, Errno> {
    let stat = rustix::fs::statx(directory, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
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
            guarded: true,
            noexec: true,
            read_only: true,
        }
    }

    #[test]
    fn a_top_is_known_by_type_source_and_its_filesystem() {
        let (image, users) = (VerityDigest([0xab; 32]), IdRange { first: 131_072, length: 65_536 });
        let top = |noexec| Mount {
            fs_type: "tmpfs".into(),
            source: top_source_of(&image, STORE, users, noexec).into(),
            root: "/".into(),
            confined: false,
            noexec: false,
            ..ours()
        };
        for noexec in [false, true] {
            assert_eq!(
                top(noexec).spec(),
                Some(MountSpec { image, path: PathBuf::new(), noexec, upper: None })
            );
            assert_eq!(top(noexec).users(), Some(users));
            assert!(top(noexec).is_of(&image, STORE));
            assert!(!top(noexec).is_whole_image(&image, STORE), "no base mount can be a copy of it");
        }
        let below = Mount { source: mapped_source_of(&image, STORE, users).into(), ..ours() };
        assert!(below.is_of(&image, STORE) && below.users() == Some(users));
        assert_eq!(ours().users(), None);
        for other in [
            Mount { read_only: false, ..top(false) },
            Mount { source: source_of(&image, STORE).into(), ..top(false) },
            Mount { fs_type: "ramfs".into(), ..top(false) },
        ] {
            assert_eq!(other.spec(), None, "{other:?}");
        }
    }

    #[test]
    fn what_can_be_written_to_is_an_image_mount_and_no_copy_is_made_of_it() {
        let image = VerityDigest([0xab; 32]);
        let upper = |on_disk| UpperSpec { bytes: 64 << 20, on_disk };
        let on = |on_disk| Mount {
            source: writable_source_of(&image, STORE, upper(on_disk)).into(),
            root: "/".into(),
            confined: false,
            noexec: false,
            read_only: false,
            ..ours()
        };
        for on_disk in [false, true] {
            let spec = MountSpec { image, path: PathBuf::new(), noexec: false, upper: Some(upper(on_disk)) };
            assert_eq!(on(on_disk).spec(), Some(spec));
        }
        let writable = || on(true);
        assert!(writable().is_of(&image, STORE), "a collection keeps its image");
        assert!(!writable().is_whole_image(&image, STORE), "another pod would write to the same");
        assert_eq!(writable().users(), None);
        for other in [
            Mount { fs_type: "tmpfs".into(), ..writable() },
            Mount { guarded: false, ..writable() },
            Mount { source: format!("{}+upper:x", source_of(&image, STORE)).into(), ..writable() },
            Mount { source: source_of(&image, STORE).into(), ..writable() },
        ] {
            assert_eq!(other.spec(), None, "{other:?}");
        }
    }

    #[test]
    fn the_tmpfs_of_a_volume_that_follows_is_known_and_shows_no_image_itself() {
        let following =
            Mount { fs_type: "tmpfs".into(), source: following_source_of(STORE).into(), ..ours() };
        assert_eq!((following.is_following(), following.image()), (true, None));
        for other in [
            Mount { read_only: false, ..following.clone() },
            Mount { confined: false, ..following.clone() },
            Mount { fs_type: "ramfs".into(), ..following },
            ours(),
        ] {
            assert!(!other.is_following(), "{other:?}");
        }
    }

    #[test]
    fn ours_is_known_by_type_source_and_flags() {
        let spec = MountSpec {
            image: VerityDigest([0xab; 32]),
            path: "usr/share".into(),
            noexec: true,
            upper: None,
        };
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
        assert!(whole.is_whole_image(&image, STORE));
        assert!(!whole.is_whole_image(&image, other) && !whole.is_whole_image(&VerityDigest([0; 32]), STORE));
        assert!(!ours().is_whole_image(&image, STORE), "only a directory of it");
        let elsewhere = Mount { source: source_of(&image, other).into(), ..ours() };
        assert_eq!(elsewhere.image(), Some(image), "the sweep keeps it all the same");
    }
}
