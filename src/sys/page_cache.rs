//! What of a file lies in the page cache.

use std::os::fd::{AsFd, AsRawFd as _};

use rustix::io::Errno;

/// Not in the C library everywhere; the same number on all architectures (include/uapi/asm-generic/unistd.h, Linux 6.5).
const CACHESTAT: libc::c_long = 451;

#[repr(C)]
struct Range {
    offset: u64,
    length: u64,
}

/// `struct cachestat` (include/uapi/linux/mman.h), pages.
#[repr(C)]
#[derive(Default)]
struct Found {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// How many pages of the file are in the page cache (cachestat(2)).
///
/// # Errors
/// `ENOSYS` before Linux 6.5, and those of the call.
pub fn cached_pages(file: impl AsFd) -> Result<u64, Errno> {
    // A length of 0 means to the end.
    let range = Range { offset: 0, length: 0 };
    let mut found = Found::default();
    // SAFETY: both structures live until the call returns, and have the layout that it reads and writes.
    let outcome = unsafe {
        libc::syscall(CACHESTAT, file.as_fd().as_raw_fd(), &raw const range, &raw mut found, 0_u32)
    };
    if outcome == 0 { Ok(found.cached) } else { Err(super::errno()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn pages_that_were_written_are_there() {
        let mut file = tempfile::tempfile().unwrap();
        match cached_pages(&file) {
            // Linux before 6.5.
            Err(errno) => assert_eq!(errno, Errno::NOSYS),
            Ok(before) => {
                file.write_all(&[1; 8192]).unwrap();
                assert_eq!((before, cached_pages(&file)), (0, Ok(2)));
            }
        }
    }
}
