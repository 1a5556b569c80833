//! The users of a pod with a user namespace.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::MountError;
use crate::sys::user_namespace::{IdRange, user_namespace};

/// The users of a pod, and a user namespace with them for the kernel.
#[derive(Debug)]
pub(super) struct Users {
    pub(super) range: IdRange,
    pub(super) namespace: OwnedFd,
}

impl Users {
    pub(super) fn new(range: IdRange) -> Result<Self, MountError> {
        let failed = |error: std::io::Error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            let subject = format!("{} ids from {}", range.length, range.first);
            MountError::kernel("making a user namespace", subject, errno)
        };
        Ok(Self { range, namespace: user_namespace(range).map_err(failed)? })
    }
}
