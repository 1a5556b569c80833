//! File handles (`name_to_handle_at(2)`): one file, had through another mount of its filesystem.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// `MAX_HANDLE_SZ` of the kernel's include/linux/exportfs.h, in bytes.
const LONGEST: usize = 128;

/// `struct file_handle` with room for the longest.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    value: [u8; LONGEST],
}

/// Opens `file` once more for reading, through the mount that `mount` is on. linkat(2) refuses a source that was opened
/// through another mount than its target's, even where both are of one filesystem, as two volumes of a container are.
///
/// Neither argument is opened with O_PATH. The caller sees that both are of one filesystem: a handle means another file on
/// another one.
///
/// # Errors
/// `EPERM`: no CAP_DAC_READ_SEARCH in the initial user namespace. `EOPNOTSUPP`: the filesystem has no handles.
/// `ESTALE`: the file is gone.
pub fn open_through(mount: impl AsFd, file: impl AsFd) -> Result<OwnedFd, Errno> {
    let mut handle = Handle { bytes: LONGEST as u32, kind: 0, value: [0; LONGEST] };
    let mut mount_id: libc::c_int = 0;
    // SAFETY: the descriptor is open for the borrow's duration, the path is empty and ends in NUL, and `handle` has the
    // kernel's layout and the room that `bytes` states.
    let named = unsafe {
        libc::name_to_handle_at(
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            (&raw mut handle).cast(),
            &raw mut mount_id,
            libc::AT_EMPTY_PATH,
        )
    };
    if named != 0 {
        return Err(super::errno());
    }
    // SAFETY: the descriptor is open, and `handle` is as the kernel has just written it.
    let opened = unsafe {
        libc::open_by_handle_at(
            mount.as_fd().as_raw_fd(),
            (&raw mut handle).cast(),
            libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK,
        )
    };
    if opened < 0 {
        return Err(super::errno());
    }
    // SAFETY: the descriptor is new, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    #[test]
    fn the_same_file_is_opened() {
        // Not below /tmp, which may be a tmpfs of a container whose handles mean nothing.
        let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "content").unwrap();
        let (mount, file) = (File::open(directory.path()).unwrap(), File::open(&path).unwrap());
        match open_through(&mount, &file) {
            Ok(again) => {
                let mut text = String::new();
                File::from(again).read_to_string(&mut text).unwrap();
                assert_eq!(text, "content");
            }
            Err(errno) => {
                let known = [Errno::PERM, Errno::OPNOTSUPP];
                assert!(
                    known.contains(&errno),
                    "{errno}: without the right, or on a filesystem without handles"
                );
            }
        }
    }
}
