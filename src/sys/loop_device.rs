//! Loop devices, for images whose filesystem cannot back EROFS directly (tmpfs, overlayfs), and for what pods write to a disk.
//!
//! The devices are detached when their last user is gone (autoclear), so that a crash leaves none behind. udev is not needed: if the device node is missing, one is created, opened and unlinked.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const LOOP_CTL_GET_FREE: u64 = 0x4c82;
const LOOP_CONFIGURE: u64 = 0x4c0a;
const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;
const LOOP_MAJOR: u32 = 7;
/// How often to try again if another process takes the free device first.
const ATTEMPTS: usize = 32;

/// Attaches `image` (open for reading) to a free loop device, read-only, with autoclear and without direct
/// I/O. The device stays attached while the returned descriptor or a mount of it exists. `losetup` shows
/// `label`. `scratch` is a directory for a short-lived device node if /dev lacks one.
///
/// # Errors
/// `ENOENT`: no /dev/loop-control (module `loop` not loaded, or the container is not privileged).
/// `EACCES`: `scratch` lies on a `nodev` mount and /dev lacks the node. `EBUSY`: other processes
/// took every free device first.
pub fn attach_read_only(image: BorrowedFd<'_>, label: &str, scratch: impl AsFd) -> Result<OwnedFd, Errno> {
    attach(image, label, scratch.as_fd(), (OFlags::RDONLY, READ_ONLY | AUTOCLEAR))
}

/// As [`attach_read_only`], of a `file` that is open for reading and writing, to be written through the device: with direct
/// I/O where the file's filesystem has it, so that nothing is in memory twice.
///
/// # Errors
/// Those of [`attach_read_only`].
pub fn attach_writable(file: BorrowedFd<'_>, label: &str, scratch: impl AsFd) -> Result<OwnedFd, Errno> {
    attach(file, label, scratch.as_fd(), (OFlags::RDWR, AUTOCLEAR | DIRECT_IO))
}

fn attach(
    file: BorrowedFd<'_>,
    label: &str,
    scratch: BorrowedFd<'_>,
    (access, flags): (OFlags, u32),
) -> Result<OwnedFd, Errno> {
    let control = rustix::fs::open("/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    for _ in 0..ATTEMPTS {
        // SAFETY: the descriptor is open, and this request takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
        let number = u32::try_from(number).map_err(|_| super::errno())?;
        let device = open_device(number, scratch, access)?;
        match configure(&device, file, label, flags) {
            Err(Errno::BUSY) => {}
            Err(errno) => return Err(errno),
            Ok(()) => return Ok(device),
        }
    }
    Err(Errno::BUSY)
}

fn configure(device: &OwnedFd, file: BorrowedFd<'_>, label: &str, flags: u32) -> Result<(), Errno> {
    let mut file_name = [0; 64];
    // The last byte stays NUL.
    for (to, from) in file_name.iter_mut().take(63).zip(label.bytes()) {
        *to = from;
    }
    let config = Config {
        fd: file.as_raw_fd().unsigned_abs(),
        block_size: 0,
        info: Info {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags,
            file_name,
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: both descriptors are open; the kernel only reads `config`, which has its layout.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) };
    if result == 0 { Ok(()) } else { Err(super::errno()) }
}

/// Opens `/dev/loopN`, or a temporary node for it in `scratch`: a container's /dev contains only the devices that
/// existed when it started.
fn open_device(number: u32, scratch: BorrowedFd<'_>, access: OFlags) -> Result<OwnedFd, Errno> {
    let flags = access | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, format!("/dev/loop{number}"), flags, Mode::empty()) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let name = format!(".loop{number}.{}", std::process::id());
    let device = rustix::fs::makedev(LOOP_MAJOR, number);
    match rustix::fs::mknodat(scratch, &name, FileType::BlockDevice, Mode::from_raw_mode(0o600), device) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let opened = rustix::fs::openat(scratch, &name, flags, Mode::empty());
    rustix::fs::unlinkat(scratch, &name, AtFlags::empty())?;
    opened
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<Info>(), 232);
        assert_eq!(size_of::<Config>(), 304);
    }
}
