//! System calls that no crate offers, each behind a small safe function.
//!
//! The only place with unsafe code. What is here decides nothing: it passes arguments to the
//! kernel and gives its answer back, the error as the plain [`rustix::io::Errno`], so that callers
//! can tell the kernel's cases apart and put them into words.

#![allow(unsafe_code)]

pub mod kernel_log;
pub mod loop_device;
pub mod mount_attr;
pub mod pages;
pub mod statmount;
pub mod verity;

/// Gives memory that was freed back to the kernel: after an image was built, tens of MiB that the
/// allocator would keep (malloc_trim(3)). Does nothing where the C library has no such call.
pub fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function takes no pointer and may be called from any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What the last failed call of the C library left in this thread's `errno`.
fn errno() -> rustix::io::Errno {
    std::io::Error::last_os_error()
        .raw_os_error()
        .map_or(rustix::io::Errno::IO, rustix::io::Errno::from_raw_os_error)
}
