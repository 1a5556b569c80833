//! A filesystem context (fsopen, fsconfig, fsmount). Its errors include the kernel's own messages.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags};

use super::MountError;
use super::store_mount::CONFINED;

/// An open filesystem context.
#[derive(Debug)]
pub(super) struct Context<'a> {
    fd: OwnedFd,
    filesystem: &'static str,
    subject: &'a str,
}

impl<'a> Context<'a> {
    /// Opens a context for `filesystem`; `subject` is what errors are about.
    pub(super) fn open(filesystem: &'static str, subject: &'a str) -> Result<Self, MountError> {
        let fd = rustix::mount::fsopen(filesystem, FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(|errno| MountError::kernel(format!("fsopen({filesystem})"), subject, errno))?;
        Ok(Self { fd, filesystem, subject })
    }

    /// Opens a context to reconfigure the filesystem that is mounted at `root`.
    pub(super) fn of_mounted(
        root: impl AsFd,
        filesystem: &'static str,
        subject: &'a str,
    ) -> Result<Self, MountError> {
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        let fd = rustix::mount::fspick(root.as_fd(), "", flags)
            .map_err(|errno| MountError::kernel(format!("fspick({filesystem})"), subject, errno))?;
        Ok(Self { fd, filesystem, subject })
    }

    pub(super) fn flag(&self, key: &str) -> Result<(), MountError> {
        self.check(key, rustix::mount::fsconfig_set_flag(self.fd.as_fd(), key))
    }

    pub(super) fn string(&self, key: &str, value: &str) -> Result<(), MountError> {
        let result = rustix::mount::fsconfig_set_string(self.fd.as_fd(), key, value);
        self.check(&format!("{key}={value}"), result)
    }

    pub(super) fn descriptor(&self, key: &str, value: impl AsFd) -> Result<(), MountError> {
        self.check(key, rustix::mount::fsconfig_set_fd(self.fd.as_fd(), key, value))
    }

    /// Makes a superblock and a detached mount of it. The mount ends when its descriptor is closed.
    pub(super) fn mount(self) -> Result<OwnedFd, MountError> {
        self.mount_with(CONFINED)
    }

    /// As [`Context::mount`], with these flags.
    pub(super) fn mount_with(self, flags: MountAttrFlags) -> Result<OwnedFd, MountError> {
        self.check("create", rustix::mount::fsconfig_create(self.fd.as_fd()))?;
        let result = rustix::mount::fsmount(self.fd.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags);
        result.map_err(|errno| self.error(format!("fsmount({})", self.filesystem), errno))
    }

    /// Changes the mounted filesystem.
    pub(super) fn reconfigure(self) -> Result<(), MountError> {
        self.check("reconfigure", rustix::mount::fsconfig_reconfigure(self.fd.as_fd()))
    }

    fn check(&self, what: &str, result: Result<(), Errno>) -> Result<(), MountError> {
        result.map_err(|errno| self.error(format!("fsconfig({}, {what})", self.filesystem), errno))
    }

    fn error(&self, step: String, errno: Errno) -> MountError {
        MountError::logged(step, self.subject, errno, self.messages())
    }

    /// The messages of the context: one per read, `ENODATA` at the end. Of the levels (`e `, `w `, `i `), only errors
    /// and warnings are kept.
    fn messages(&self) -> Vec<String> {
        let mut buffer = [0; 1024];
        let mut messages = Vec::new();
        // The kernel keeps eight messages; the bound only prevents an endless loop.
        for _ in 0..16 {
            let Ok(length) = rustix::io::read(&self.fd, &mut buffer) else { break };
            let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
            if let Some(message) = text.strip_prefix("e ").or_else(|| text.strip_prefix("w ")) {
                messages.push(message.trim_end().to_owned());
            }
        }
        messages
    }
}

/// A path to an open file, independent of the file's name.
pub(super) fn proc_path(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_carry_what_the_kernel_says() {
        if !rustix::process::geteuid().is_root() {
            // Without privilege the kernel's only word is this.
            let error = Context::open("overlay", "image aa").unwrap_err();
            return assert!(error.to_string().contains("CAP_SYS_ADMIN"), "{error}");
        }
        let context = Context::open("overlay", "image aa").unwrap();
        let error = context.string("nonsense", "on").unwrap_err().to_string();
        for part in ["fsconfig(overlay, nonsense=on) for image aa", "Unknown parameter 'nonsense'"] {
            assert!(error.contains(part), "{part:?} is missing in {error:?}");
        }
        let error = Context::open("nonsense", "image aa").unwrap_err().to_string();
        assert!(error.contains("fsopen(nonsense)") && error.contains("modprobe"), "{error}");
    }
}
