//! Leases (`fcntl(2)`), to learn whether a file is open.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// `F_SETSIG` of the kernel's asm-generic/fcntl.h, which the libc crate does not have.
const F_SETSIG: libc::c_int = 10;

/// Whether somebody else than the holder of `file` has the same file open, in this process or another, or in the kernel:
/// a mounted filesystem and a loop device hold theirs. `file` is open for reading and by this descriptor only.
///
/// A lease for writing is granted only where nobody else has the file open. It is given back at once.
///
/// # Errors
/// `EACCES`: the file is somebody else's, and no CAP_LEASE. `EINVAL`: the filesystem has no leases.
pub fn is_open_elsewhere(file: impl AsFd) -> Result<bool, Errno> {
    let file = file.as_fd().as_raw_fd();
    let control = |command, argument: libc::c_int| {
        // SAFETY: the descriptor is open for the call, and these commands take a number.
        let result = unsafe { libc::fcntl(file, command, argument) };
        if result == -1 { Err(super::errno()) } else { Ok(()) }
    };
    // Who opens the file meanwhile waits a moment, and the holder gets a signal: SIGIO, which would end the process,
    // unless another is asked for. This one is ignored.
    control(F_SETSIG, libc::SIGURG)?;
    match control(libc::F_SETLEASE, libc::F_WRLCK) {
        Err(Errno::AGAIN) => Ok(true),
        Err(errno) => Err(errno),
        Ok(()) => control(libc::F_SETLEASE, libc::F_UNLCK).map(|()| false),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn another_open_file_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let own = File::open(&path).unwrap();
        assert_eq!(is_open_elsewhere(&own), Ok(false));
        let other = File::open(&path).unwrap();
        assert_eq!(is_open_elsewhere(&own), Ok(true));
        drop(other);
        assert_eq!(is_open_elsewhere(&own), Ok(false), "and no lease is left");
        assert!(File::options().write(true).open(&path).is_ok());
    }
}
