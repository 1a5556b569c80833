//! `statmount(2)` and `listmount(2)` (Linux 6.8): facts about one mount in constant time. Reading
//! /proc/self/mountinfo takes time for every mount of the machine.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;

/// Facts about a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountDetails {
    /// The filesystem type.
    pub fs_type: OsString,
    /// The source; absent before Linux 6.13.
    pub source: Option<OsString>,
    /// The directory of the filesystem that the mount shows.
    pub root: OsString,
    /// Where it is mounted, seen from this process's root.
    pub point: OsString,
    /// `MOUNT_ATTR_*` flags.
    pub attributes: u64,
    /// Major and minor number of the filesystem (`st_dev` of its directories).
    pub device: (u32, u32),
    /// Whether the filesystem itself is read-only, not only this mount of it.
    pub read_only: bool,
}

/// `struct mnt_id_req`, version 0.
#[repr(C)]
struct Request {
    size: u32,
    spare: u32,
    mount: u64,
    param: u64,
}

// The same numbers on every architecture that Rust and Kubernetes have in common.
const SYS_STATMOUNT: libc::c_long = 457;
const SYS_LISTMOUNT: libc::c_long = 458;
/// `LSMT_ROOT`: every mount below this process's root.
const ALL: u64 = u64::MAX;
/// `STATX_MNT_ID_UNIQUE` (Linux 6.8): ids that are never used again.
const STATX_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
/// SB_BASIC, MNT_BASIC, MNT_ROOT, MNT_POINT, FS_TYPE, SB_SOURCE.
const WANTED: u64 = 0x1 | 0x2 | 0x8 | 0x10 | 0x20 | 0x200;
/// Offset of the strings in `struct statmount`.
const STRINGS: usize = 512;

/// The unique id of the mount that an open file is on; `None` before Linux 6.8.
///
/// # Errors
/// Those of statx(2).
pub fn mount_id(file: impl AsFd) -> Result<Option<u64>, Errno> {
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, STATX_UNIQUE)?;
    Ok((stat.stx_mask & STATX_UNIQUE.bits() != 0).then_some(stat.stx_mnt_id))
}

/// Describes the mount with the unique id `mount`.
///
/// # Errors
/// `ENOENT`: no such mount below this process's root. `ENOSYS`: before Linux 6.8 (a sandbox may
/// answer `EPERM`); use mountinfo.
pub fn statmount(mount: u64) -> Result<MountDetails, Errno> {
    let mut buffer = vec![0u8; 4096];
    loop {
        match call_statmount(mount, &mut buffer) {
            // The strings did not fit. Paths have at most 4 KiB, so a few rounds are enough.
            Err(Errno::OVERFLOW) if buffer.len() < (1 << 20) => buffer.resize(buffer.len() * 4, 0),
            Err(errno) => return Err(errno),
            Ok(()) => return parse(&buffer).ok_or(Errno::PROTO),
        }
    }
}

fn call_statmount(mount: u64, buffer: &mut [u8]) -> Result<(), Errno> {
    let request = Request { size: 24, spare: 0, mount, param: WANTED };
    // SAFETY: the kernel reads 24 bytes of `request`, and writes at most `buffer.len()` bytes.
    let result =
        unsafe { libc::syscall(SYS_STATMOUNT, &raw const request, buffer.as_mut_ptr(), buffer.len(), 0) };
    if result == 0 { Ok(()) } else { Err(super::errno()) }
}

/// The unique ids of all mounts below this process's root that are greater than `after`, ascending; at most
/// 512 at a time, empty at the end.
///
/// # Errors
/// `ENOSYS`: before Linux 6.8 (a sandbox may answer `EPERM`); use mountinfo.
pub fn listmount(after: u64) -> Result<Vec<u64>, Errno> {
    let mut ids = vec![0u64; 512];
    let request = Request { size: 24, spare: 0, mount: ALL, param: after };
    // SAFETY: the kernel reads 24 bytes of `request`, and writes at most `ids.len()` numbers.
    let count = unsafe { libc::syscall(SYS_LISTMOUNT, &raw const request, ids.as_mut_ptr(), ids.len(), 0) };
    ids.truncate(usize::try_from(count).map_err(|_| super::errno())?);
    Ok(ids)
}

/// Parses `struct statmount`; `None` if a field or string is out of bounds.
fn parse(buffer: &[u8]) -> Option<MountDetails> {
    let mask = u64_at(buffer, 8)?;
    let has = |bit: u64| mask & bit != 0;
    if !(has(0x1) && has(0x2) && has(0x8) && has(0x10) && has(0x20)) {
        return None;
    }
    Some(MountDetails {
        fs_type: string_at(buffer, 36)?,
        source: if has(0x200) { Some(string_at(buffer, 124)?) } else { None },
        root: string_at(buffer, 104)?,
        point: string_at(buffer, 108)?,
        attributes: u64_at(buffer, 64)?,
        device: (u32_at(buffer, 16)?, u32_at(buffer, 20)?),
        // SB_RDONLY
        read_only: u32_at(buffer, 32)? & 1 != 0,
    })
}

fn u64_at(buffer: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(buffer.get(offset..offset + 8)?.try_into().ok()?))
}

fn u32_at(buffer: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(buffer.get(offset..offset + 4)?.try_into().ok()?))
}

/// The string whose offset is at `field`.
fn string_at(buffer: &[u8], field: usize) -> Option<OsString> {
    let offset = usize::try_from(u32_at(buffer, field)?).ok()?;
    let text = buffer.get(STRINGS.checked_add(offset)?..)?;
    let end = text.iter().position(|byte| *byte == 0)?;
    Some(OsString::from_vec(text.get(..end)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_described() {
        let proc = std::fs::File::open("/proc").unwrap();
        let Some(id) = mount_id(&proc).unwrap() else { return assert_eq!(statmount(1), Err(Errno::NOSYS)) };
        let details = statmount(id).unwrap();
        assert_eq!(details.fs_type, "proc");
        assert_eq!(details.root, "/");
        assert_eq!(details.point, "/proc");
        assert!(listmount(0).unwrap().contains(&id));
        assert!(!listmount(id).unwrap().contains(&id));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        for byte in 0..=255 {
            for length in [0, 8, 16, 124, 511, 512, 513, 600] {
                let _ = parse(&vec![byte; length]);
            }
        }
    }
}
