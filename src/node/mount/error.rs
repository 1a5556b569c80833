//! Why a mount could not be made or removed, and what to do about it.

use std::path::PathBuf;

use rustix::io::Errno;

use crate::image::objects::Corruption;
use crate::image::verity::VerityDigest;
use crate::kind::Kind;

/// Why a mount could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The sub-directory is not in the image.
    #[error("path {path:?} does not exist in image {image}; name a directory that the image has")]
    NoSuchPath {
        /// The attribute's value.
        path: PathBuf,
        /// The image.
        image: VerityDigest,
    },
    /// The sub-path is a file or a device, goes through one, or its links form a loop.
    #[error("path {path:?} of image {image} is not a directory; name one")]
    PathNotDirectory {
        /// The attribute's value.
        path: PathBuf,
        /// The image.
        image: VerityDigest,
    },
    /// The sub-path could leave the image, or is not a path.
    #[error("path {path:?} is not a relative path without `.` and `..`; write it as it is in the image")]
    BadPath {
        /// The attribute's value.
        path: PathBuf,
    },
    /// A pod with a user namespace gets a link or a mount for each entry of the volume's root.
    #[error(
        "path {path:?} of image {image} has more than {most} entries, which a pod with a user namespace (hostUsers: false) \
         cannot have in a volume's root; put them into a directory, or name a smaller one by `path`"
    )]
    TooManyEntries {
        /// The attribute's value.
        path: PathBuf,
        /// The image.
        image: VerityDigest,
        /// The limit.
        most: usize,
    },
    /// Nothing can be mounted on this target.
    #[error("target {} {problem}; it must be an existing directory, not a symbolic link", target.display())]
    BadTarget {
        /// The target.
        target: PathBuf,
        /// What is wrong, a predicate.
        problem: &'static str,
    },
    /// An image is already mounted on the target.
    #[error("target {} is a mount point already; unpublish the volume there first", target.display())]
    Occupied {
        /// The target.
        target: PathBuf,
    },
    /// The mount is not one that this driver made.
    #[error(
        "{} carries a mount of {what} that this driver did not make, and is left alone; unmount it by hand",
        target.display()
    )]
    Foreign {
        /// The mount point.
        target: PathBuf,
        /// Filesystem type and source.
        what: String,
    },
    /// The image is not in the store.
    #[error("image {image} is not in the store; pull it again")]
    NoSuchImage {
        /// The image.
        image: VerityDigest,
    },
    /// The store has fs-verity, but the image's object does not.
    #[error(
        "image {image} is not sealed by fs-verity although the store promises it: the file was replaced or \
         copied here; remove the image from the store and pull it again"
    )]
    NotSealed {
        /// The image.
        image: VerityDigest,
    },
    /// The fs-verity digest of the image's object is not the image's name.
    #[error(
        "image {image} is damaged: the kernel measures fs-verity digest {measured}; remove the image from \
         the store and pull it again"
    )]
    WrongDigest {
        /// The image.
        image: VerityDigest,
        /// The measured digest.
        measured: VerityDigest,
    },
    /// An object of the image does not match its digest.
    #[error(
        "object {object} of image {image} {corruption}: another program or the disk changed the store; run `composefs-csi verify \
         --repair`, then publish the volume again"
    )]
    BadObject {
        /// The image.
        image: VerityDigest,
        /// The object.
        object: VerityDigest,
        /// What is wrong with it.
        corruption: Corruption,
    },
    /// The level `read` is demanded, and the kernel does not check reads here.
    #[error(
        "image {image} cannot be mounted at integrity level read: the kernel does not check reads on this node; \
         `composefs-csi probe` says why"
    )]
    Unreachable {
        /// The image.
        image: VerityDigest,
    },
    /// The kernel's EROFS rejects the image.
    #[error(
        "image {image} is not an EROFS image that this kernel accepts ({errno}; the kernel log may say more): it \
         is damaged; remove it from the store and pull it again"
    )]
    NotAnImage {
        /// The image.
        image: VerityDigest,
        /// The kernel's error.
        errno: Errno,
    },
    /// A system call failed.
    #[error("{step} for {subject}: {errno}{}; {remedy}", log(messages))]
    Kernel {
        /// The call and its main argument, such as `fsconfig(overlay, create)`.
        step: String,
        /// The image, target or directory.
        subject: String,
        /// The kernel's error.
        errno: Errno,
        /// What the kernel wrote to the log of the filesystem context.
        messages: Vec<String>,
        /// What to do.
        remedy: &'static str,
    },
    /// The node cannot show an image of which not all is here.
    #[error(
        "image {image} cannot be mounted lazily on this node: {why}; leave `lazy` out, and it is mounted once all of it is \
         here"
    )]
    NotLazily {
        /// The image.
        image: VerityDigest,
        /// What is missing.
        why: String,
    },
    /// SELinux does not let this process mount with the configured label.
    #[error(
        "SELinux refuses mounts with the label {label}: {why}; give --selinux-context a label of this node's policy that \
         the plugin may mount with, or auto"
    )]
    Label {
        /// The value of --selinux-context.
        label: String,
        /// The step, and the kernel's error.
        why: String,
    },
    /// No method of mounting works on this node.
    #[error(
        "this node (Linux {kernel}) cannot mount composefs images: {}; they need Linux 6.6 or later with EROFS, \
         overlayfs and, before 6.12, loop devices, and a store on at most one overlayfs: the kernel log \
         says more", tried.join("; ")
    )]
    NoMountMethod {
        /// The kernel's release.
        kernel: String,
        /// Each method that was tried, and why it failed.
        tried: Vec<String>,
    },
}

fn log(messages: &[String]) -> String {
    if messages.is_empty() { String::new() } else { format!(" (kernel: {})", messages.join(", ")) }
}

impl MountError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoSuchPath { .. } | Self::NoSuchImage { .. } => Kind::NotFound,
            Self::PathNotDirectory { .. }
            | Self::BadPath { .. }
            | Self::BadTarget { .. }
            | Self::TooManyEntries { .. } => Kind::Invalid,
            Self::Occupied { .. } | Self::Foreign { .. } => Kind::Conflict,
            Self::NotSealed { .. }
            | Self::WrongDigest { .. }
            | Self::BadObject { .. }
            | Self::NotAnImage { .. } => Kind::Corrupt,
            Self::NoMountMethod { .. }
            | Self::Unreachable { .. }
            | Self::NotLazily { .. }
            | Self::Label { .. } => Kind::Unsupported,
            Self::Kernel { errno, .. } => kind_of(*errno),
        }
    }

    /// The step and the kernel's error alone, for lists that would repeat subject and remedy.
    pub(super) fn brief(&self) -> String {
        match self {
            Self::Kernel { step, errno, messages, .. } => format!("{step}: {errno}{}", log(messages)),
            other => other.to_string(),
        }
    }

    pub(super) fn kernel(step: impl Into<String>, subject: impl ToString, errno: Errno) -> Self {
        Self::logged(step, subject, errno, Vec::new())
    }

    pub(super) fn logged(
        step: impl Into<String>,
        subject: impl ToString,
        errno: Errno,
        messages: Vec<String>,
    ) -> Self {
        let (step, subject) = (step.into(), subject.to_string());
        Self::Kernel { step, subject, errno, messages, remedy: remedy_for(errno) }
    }

    /// There is no room for what a pod may write.
    pub(super) fn no_room(bytes: u64, subject: &str, errno: Errno) -> Self {
        let (step, subject) =
            (format!("taking room for {bytes} bytes that the pod may write"), subject.to_owned());
        let remedy = "free room on the filesystem of the plugin's state directory (--state-dir), or ask for a smaller \
                      upperSizeLimit";
        Self::Kernel { step, subject, errno, messages: Vec::new(), remedy }
    }

    pub(super) fn no_loop_devices(subject: &str, errno: Errno) -> Self {
        let (step, subject) = ("opening /dev/loop-control".to_owned(), subject.to_owned());
        let remedy = "load the kernel module loop (modprobe loop), and run the plugin privileged";
        Self::Kernel { step, subject, errno, messages: Vec::new(), remedy }
    }
}

fn kind_of(errno: Errno) -> Kind {
    match errno {
        Errno::IO | Errno::BADMSG | Errno::UCLEAN => Kind::Corrupt,
        // EPERM: the plugin lacks a capability. The node's operator must act, not the caller.
        Errno::NODEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTBLK | Errno::PERM => {
            Kind::Unsupported
        }
        Errno::BUSY | Errno::AGAIN => Kind::Busy,
        Errno::NOENT | Errno::STALE => Kind::NotFound,
        Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG => Kind::Invalid,
        Errno::ACCESS => Kind::Denied,
        Errno::NOMEM | Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE => Kind::Exhausted,
        _ => Kind::Transient,
    }
}

fn remedy_for(errno: Errno) -> &'static str {
    match errno {
        Errno::IO | Errno::BADMSG | Errno::UCLEAN => {
            "the image or the disk below it is damaged: see the kernel log, then remove the image and pull it again"
        }
        Errno::NODEV => {
            "the kernel lacks this filesystem: load its module (modprobe erofs, overlay, or ext4 for writable volumes on disk), or install it"
        }
        Errno::NOTBLK => "the store's filesystem cannot back EROFS directly, and a loop device is needed",
        Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS => {
            "this kernel refuses the call or an option of it: the kernel log says which, the plugin's first log lines what works here"
        }
        Errno::PERM | Errno::ACCESS => {
            "the plugin needs CAP_SYS_ADMIN in the host's user namespace (a privileged container)"
        }
        Errno::BUSY | Errno::AGAIN => "something else is using it; try again",
        Errno::NOENT | Errno::STALE => "it is gone; publish the volume again",
        Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG => "check the path",
        Errno::NOSPC | Errno::DQUOT => {
            "no space on the filesystem, or the limit fs.mount-max on mounts is reached"
        }
        Errno::MFILE | Errno::NFILE => "no file descriptors left: raise LimitNOFILE or fs.file-max",
        Errno::NOMEM => "the kernel is out of memory",
        _ => "see the kernel log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_error_tells_step_subject_errno_log_and_remedy() {
        let error = MountError::logged(
            "fsconfig(overlay, create)",
            "image aa",
            Errno::INVAL,
            vec!["overlayfs: bad option".into()],
        );
        let text = error.to_string();
        for part in [
            "fsconfig(overlay, create)",
            "image aa",
            "(os error 22)",
            "overlayfs: bad option",
            "first log lines",
        ] {
            assert!(text.contains(part), "{part:?} is missing in {text:?}");
        }
        assert_eq!(error.kind(), Kind::Unsupported);
    }

    #[test]
    fn errno_decides_the_kind() {
        let table = [
            (Errno::IO, Kind::Corrupt),
            (Errno::BADMSG, Kind::Corrupt),
            (Errno::NODEV, Kind::Unsupported),
            (Errno::INVAL, Kind::Unsupported),
            (Errno::OPNOTSUPP, Kind::Unsupported),
            (Errno::BUSY, Kind::Busy),
            (Errno::NOENT, Kind::NotFound),
            (Errno::NOSPC, Kind::Exhausted),
            (Errno::LOOP, Kind::Invalid),
            (Errno::INTR, Kind::Transient),
        ];
        for (errno, kind) in table {
            assert_eq!(MountError::kernel("step", "subject", errno).kind(), kind, "{errno:?}");
        }
    }
}
