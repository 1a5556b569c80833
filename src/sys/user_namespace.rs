//! User namespaces that exist for their id mappings only (user_namespaces(7)), for idmapped mounts.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// The users and groups of a user namespace: `length` ids from 0 there are those from `first` on here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// What id 0 of the namespace is here.
    pub first: u32,
    /// The number of ids.
    pub length: u32,
}

/// A new user namespace with this mapping of users and groups. It lasts as long as the descriptor, or a mount with it.
///
/// # Errors
/// `ENOSPC`: the limit `user.max_user_namespaces` is reached. `EPERM`, `EINVAL`: the kernel refuses the mapping. Others are
/// those of pipe(2), clone(2) and of files in /proc.
pub fn user_namespace(ids: IdRange) -> io::Result<OwnedFd> {
    // A namespace needs a process until somebody has it open. This one waits for the end of a pipe, which comes when this
    // function returns, and when this process is killed.
    let (waits, ends) = io::pipe()?;
    let waits_fd = waits.as_raw_fd();
    let after = waits_fd.unsigned_abs() + 1;
    // SAFETY: as fork(2): the child has its own copy of the memory and one thread, and makes only system calls (no
    // allocation, no lock) until it ends.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        let mut byte = 0u8;
        // Nothing else stays open in it: no lock, and no end of a pipe that another such process waits for.
        // SAFETY: the descriptors are the child's own copies, `byte` has the one byte that is read at most, and `_exit`
        // runs nothing of this program.
        unsafe {
            libc::syscall(libc::SYS_close_range, after, libc::c_uint::MAX, 0);
            if let Some(before) = waits_fd.unsigned_abs().checked_sub(1) {
                libc::syscall(libc::SYS_close_range, 0, before, 0);
            }
            libc::read(waits_fd, (&raw mut byte).cast(), 1);
            libc::_exit(0);
        }
    }
    let child = libc::pid_t::try_from(child).ok().filter(|child| *child > 0);
    let child = child.ok_or_else(io::Error::last_os_error)?;
    let opened = map_and_open(child, ids);
    drop((waits, ends));
    loop {
        // SAFETY: the status is not asked for. The child is ours, and its end is at hand.
        let waited = unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        if waited != -1 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return opened;
        }
    }
}

fn map_and_open(child: libc::pid_t, ids: IdRange) -> io::Result<OwnedFd> {
    let map = format!("0 {} {}", ids.first, ids.length);
    for file in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{child}/{file}"), &map)?;
    }
    Ok(File::open(format!("/proc/{child}/ns/user"))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_at_once_do_not_wait_for_each_other() {
        if rustix::process::geteuid().is_root() {
            let make = || user_namespace(IdRange { first: 1 << 20, length: 65536 }).unwrap();
            let threads: Vec<_> =
                (0..8).map(|_| std::thread::spawn(move || (0..20).for_each(|_| drop(make())))).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        }
    }

    #[test]
    fn a_namespace_outlives_its_process() {
        if !rustix::process::geteuid().is_root() {
            return assert!(
                user_namespace(IdRange { first: 1 << 20, length: 65536 }).is_err(),
                "no right to map"
            );
        }
        let namespace = user_namespace(IdRange { first: 1 << 20, length: 65536 }).unwrap();
        let own = std::fs::read_link("/proc/self/ns/user").unwrap();
        let made = std::fs::read_link(format!("/proc/self/fd/{}", namespace.as_raw_fd())).unwrap();
        assert!(made.to_string_lossy().starts_with("user:[") && made != own, "{made:?}");
        assert!(user_namespace(IdRange { first: u32::MAX, length: 2 }).is_err(), "ids past the last one");
    }
}
