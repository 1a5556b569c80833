//! System calls that no crate offers, each behind a small safe function.
//!
//! This is the only place with unsafe code. It decides nothing: it passes arguments to the kernel and returns the result.
//! Errors are plain [`rustix::io::Errno`] values, so that callers can distinguish the cases and describe them.

#![allow(unsafe_code)]

pub mod directory_watch;
pub mod file_handle;
pub mod kernel_log;
pub mod lease;
pub mod loop_device;
pub mod mount_attr;
pub mod page_cache;
pub mod statmount;
pub mod user_namespace;
pub mod verity;

/// Returns freed memory to the kernel (malloc_trim(3)): after an image was built, the allocator would keep tens of MiB.
/// Does nothing if the C library has no such call.
pub fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function takes no pointer and may be called from any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The `errno` of the last failed call of the C library in this thread.
fn errno() -> rustix::io::Errno {
    std::io::Error::last_os_error()
        .raw_os_error()
        .map_or(rustix::io::Errno::IO, rustix::io::Errno::from_raw_os_error)
}
