//! The fs-verity ioctls (Documentation/filesystems/fsverity.rst), with the parameters of composefs:
//! sha256, 4096-byte blocks, no salt.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use rustix::ioctl::opcode;

/// `struct fsverity_enable_arg`.
#[repr(C)]
struct EnableArg {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt_ptr: u64,
    sig_size: u32,
    reserved1: u32,
    sig_ptr: u64,
    reserved2: [u64; 11],
}

/// The fixed part of `struct fsverity_digest`; the number of the ioctl encodes its size.
#[repr(C)]
struct DigestHeader {
    algorithm: u16,
    size: u16,
}

/// `struct fsverity_digest` with room for a sha256 digest.
#[repr(C)]
struct Digest {
    header: DigestHeader,
    bytes: [u8; 32],
}

const SHA256: u16 = 1;
const BLOCK_SIZE: u32 = 4096;
const ENABLE: rustix::ioctl::Opcode = opcode::write::<EnableArg>(b'f', 133);
const MEASURE: rustix::ioctl::Opcode = opcode::read_write::<DigestHeader>(b'f', 134);

/// Enables fs-verity on a file: the kernel builds the Merkle tree. From then on it checks every read and refuses
/// writes. `file` must be open for reading only.
///
/// # Errors
/// `EEXIST`: already enabled. `ETXTBSY`: the file is open for writing. `EOPNOTSUPP`: the feature is off (ext4 without
/// `-O verity`, a kernel without FS_VERITY). `ENOTTY`: the filesystem does not support fs-verity (XFS, tmpfs).
pub fn enable_verity(file: impl AsFd) -> Result<(), Errno> {
    let arg = EnableArg {
        version: 1,
        hash_algorithm: u32::from(SHA256),
        block_size: BLOCK_SIZE,
        salt_size: 0,
        salt_ptr: 0,
        sig_size: 0,
        reserved1: 0,
        sig_ptr: 0,
        reserved2: [0; 11],
    };
    // SAFETY: the descriptor is open for the borrow's duration; the kernel only reads `arg`, which
    // has the layout and the size that the request's number states.
    check(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), ENABLE as _, &raw const arg) })
}

/// The fs-verity digest that the kernel enforces for a file. Takes constant time: nothing is read or hashed.
///
/// # Errors
/// `ENODATA`: fs-verity is not enabled on the file. `ENOTTY`, `EOPNOTSUPP`: as [`enable_verity`], and for every file
/// seen through overlayfs. `EOVERFLOW`: another algorithm than sha256.
pub fn measure_verity(file: impl AsFd) -> Result<[u8; 32], Errno> {
    let mut digest = Digest { header: DigestHeader { algorithm: 0, size: 32 }, bytes: [0; 32] };
    // SAFETY: the descriptor is open; the kernel writes the header and at most `header.size` bytes
    // behind it, which is the room that `digest` has.
    check(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), MEASURE as _, &raw mut digest) })?;
    if digest.header.algorithm != SHA256 || digest.header.size != 32 {
        return Err(Errno::OVERFLOW);
    }
    Ok(digest.bytes)
}

fn check(result: libc::c_int) -> Result<(), Errno> {
    if result == 0 { Ok(()) } else { Err(super::errno()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<EnableArg>(), 128);
        assert_eq!(size_of::<Digest>(), 36);
        #[cfg(target_arch = "x86_64")]
        assert_eq!((ENABLE, MEASURE), (0x4080_6685, 0xc004_6686));
    }

    #[test]
    fn a_file_that_cannot_be_sealed_says_so() {
        let file = std::fs::File::open("/proc/self/maps").unwrap();
        assert_eq!(measure_verity(&file), Err(Errno::NOTTY));
        assert_eq!(enable_verity(&file), Err(Errno::NOTTY));
    }
}
