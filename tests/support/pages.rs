//! Which pages of a file are in memory, and which physical pages those are.
//!
//! For tests, the demonstration and the benchmarks: sharing is claimed only where it was measured.
//! (`cachestat(2)` answers 0 for any file of an overlay, so it is mincore(2) and pagemap.)

#![allow(unsafe_code, reason = "no crate has these calls safe")]

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

/// A whole file mapped shared and read-only. Its bytes are not accessible: a damaged file would raise SIGBUS.
#[derive(Debug)]
pub struct Mapping {
    start: *mut libc::c_void,
    length: usize,
}

impl Mapping {
    /// Maps `file`; an empty one has no pages.
    ///
    /// # Errors
    /// Those of fstat(2) and mmap(2).
    pub fn new(file: impl AsFd) -> Result<Self, Errno> {
        let size = rustix::fs::fstat(&file)?.st_size;
        let length = usize::try_from(size).map_err(|_| Errno::OVERFLOW)?;
        if length == 0 {
            return Ok(Self { start: std::ptr::null_mut(), length });
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_fd().as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED { Err(errno()) } else { Ok(Self { start, length }) }
    }

    /// For each page of the file: is it in the page cache? Reads nothing in.
    ///
    /// # Errors
    /// Those of mincore(2). The caller must own the file or be root; others see every page as resident.
    pub fn resident(&self) -> Result<Vec<bool>, Errno> {
        let mut pages = vec![0u8; self.length.div_ceil(rustix::param::page_size())];
        if self.length > 0 {
            // SAFETY: the range is our mapping, and `pages` has one byte for each page of it.
            let result = unsafe { libc::mincore(self.start, self.length, pages.as_mut_ptr()) };
            if result != 0 {
                return Err(errno());
            }
        }
        Ok(pages.into_iter().map(|page| page & 1 != 0).collect())
    }

    /// Reads the file in and keeps its pages in memory, where they are, as long as this value lives.
    ///
    /// # Errors
    /// `EAGAIN`, `ENOMEM`: a page could not be read, or more than RLIMIT_MEMLOCK without CAP_IPC_LOCK.
    pub fn pin(&self) -> Result<(), Errno> {
        // SAFETY: the range is our mapping; locking it changes no bytes.
        if self.length > 0 && unsafe { libc::mlock(self.start, self.length) } != 0 {
            return Err(errno());
        }
        Ok(())
    }

    /// Reads the file in and gives each page's physical frame number. Two files with the same frame share
    /// that memory.
    ///
    /// # Errors
    /// `EFAULT`: a page could not be read (damaged, truncated). `EPERM`: no CAP_SYS_ADMIN, without
    /// which the kernel shows every frame as 0. Others: those of reading /proc/self/pagemap.
    pub fn frames(&self) -> Result<Vec<u64>, Errno> {
        if self.length == 0 {
            return Ok(Vec::new());
        }
        // SAFETY: the range is our mapping; populating it changes no bytes, and an unreadable page is
        // an error here, not a signal.
        if unsafe { libc::madvise(self.start, self.length, libc::MADV_POPULATE_READ) } != 0 {
            return Err(errno());
        }
        let page_size = rustix::param::page_size();
        let mut entries = vec![0u8; self.length.div_ceil(page_size) * 8];
        let first = u64::try_from(self.start.addr() / page_size).map_err(|_| Errno::OVERFLOW)?;
        File::open("/proc/self/pagemap")
            .and_then(|pagemap| pagemap.read_exact_at(&mut entries, first * 8))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let frames: Vec<u64> = entries.chunks_exact(8).filter_map(frame).collect();
        if frames.contains(&0) { Err(Errno::PERM) } else { Ok(frames) }
    }
}

/// Bits 0-54 of a pagemap entry (Documentation/admin-guide/mm/pagemap.rst).
fn frame(entry: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(entry.try_into().ok()?) & ((1 << 55) - 1))
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: the range was mapped by `new`, and nothing points into it.
            unsafe { libc::munmap(self.start, self.length) };
        }
    }
}

/// Reads a whole file without keeping it, so that its pages come into the cache as a program's read brings
/// them. Returns its length.
///
/// # Errors
/// Those of read(2).
pub fn read_through(file: &mut File) -> std::io::Result<u64> {
    let mut buffer = vec![0; 128 * 1024];
    let mut total = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(total),
            count => total += count as u64,
        }
    }
}

/// What the last failed call of the C library left in this thread's `errno`.
fn errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
