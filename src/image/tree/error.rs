//! The errors of folding layers into a tree.

use crate::kind::Kind;
use crate::oci::choice::ChoiceError;
use crate::oci::limits::Exceeded;

/// Why a tree cannot be built. Messages name the path inside the image. Callers add the layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// An ancestor of an entry is not a directory.
    #[error(
        "{path:?} needs {blocker:?} to be a directory, but it is not; the image's builder must add the directory or remove what stands there"
    )]
    NotADirectory {
        /// The entry.
        path: String,
        /// The ancestor.
        blocker: String,
    },
    /// Too many symbolic links on the way to an entry.
    #[error(
        "the path {path:?} goes through more than {limit} symbolic links, probably a loop; the image must be rebuilt without it"
    )]
    SymlinkLoop {
        /// The entry.
        path: String,
        /// How many links a path may go through.
        limit: usize,
    },
    /// A hard link to a path that is neither in this layer nor in a lower one.
    #[error(
        "{path:?} is a hard link to {target:?}, which is in no layer up to this one; the image must be rebuilt"
    )]
    LinkTargetMissing {
        /// The entry.
        path: String,
        /// What it links to.
        target: String,
    },
    /// A hard link to a directory.
    #[error(
        "{path:?} is a hard link to the directory {target:?}, which no filesystem allows; the image must be rebuilt"
    )]
    LinkToDirectory {
        /// The entry.
        path: String,
        /// What it links to.
        target: String,
    },
    /// The root is not a directory.
    #[error("the image's root is not a directory; the image must be rebuilt")]
    RootNotADirectory,
    /// A name is longer than a filesystem can hold.
    #[error("{path:?} has a component of {length} bytes; filesystems allow {limit}")]
    NameTooLong {
        /// The entry.
        path: String,
        /// Bytes of the component.
        length: usize,
        /// The most there may be.
        limit: usize,
    },
    /// A directory is nested too deeply to be reached by a path.
    #[error("{path:?} lies more than {limit} directories deep; paths cannot reach that far")]
    TooDeep {
        /// The entry.
        path: String,
        /// The most there may be.
        limit: usize,
    },
    /// A symbolic link with an empty target, or one longer than a path.
    #[error("the symbolic link {path:?} has a target of {length} bytes; it must have 1 to {limit}")]
    SymlinkTarget {
        /// The entry.
        path: String,
        /// Bytes of the target.
        length: usize,
        /// The most there may be.
        limit: usize,
    },
    /// A device number that Linux cannot represent.
    #[error(
        "the device {path:?} has the number {major}:{minor}; Linux allows majors up to 4095 and minors up to 1048575"
    )]
    DeviceNumber {
        /// The entry.
        path: String,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A regular file whose size does not fit the way its content is kept.
    #[error(
        "the file {path:?} has {size} bytes; the image format keeps up to 64 bytes inline and up to 8 TiB as an object"
    )]
    FileSize {
        /// The entry.
        path: String,
        /// Bytes of the file.
        size: u64,
    },
    /// A character device 0:0, overlayfs's whiteout, with several names. The format stores it under a disguise.
    #[error(
        "the character device 0:0 at {path:?} has several names; composefs cannot hold a whiteout device with hard links"
    )]
    LinkedWhiteout {
        /// One of its names.
        path: String,
    },
    /// Two parts of an artifact claim one path.
    #[error(
        "two parts of the artifact claim {path:?} with different content, or one as a file and one as a directory; push it again with other names"
    )]
    Collision {
        /// The path.
        path: String,
    },
    /// Two images of one volume have different things at one path.
    #[error(
        "{path:?} of the volume is in {first} and in {second}, and they differ; give one of these images another directory by `at`"
    )]
    Meeting {
        /// The path in the volume.
        path: String,
        /// The earlier image.
        first: String,
        /// The later one.
        second: String,
    },
    /// An entry of a packed directory lies elsewhere.
    #[error(
        "{path:?} lies outside of {within:?}, the directory that its layer is said to hold; push the artifact again"
    )]
    Outside {
        /// The entry.
        path: String,
        /// The directory.
        within: String,
    },
    /// An entry that only images may have.
    #[error(
        "{path:?} is a device, a named pipe or a whiteout, which an artifact cannot hold; push it again without"
    )]
    NotInArtifacts {
        /// The entry.
        path: String,
    },
    /// The choice takes nothing, or a pattern of it does.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// The choice shows a file under a name by which its content was not stored.
    #[error(
        "{path:?} is taken by the choice, but its content was left out with its other name; include the file that it links to"
    )]
    LeftOut {
        /// The file.
        path: String,
    },
    /// Extended attributes that do not fit an inode.
    #[error("the extended attributes of {path:?} do not fit an inode: {reason}")]
    Xattrs {
        /// The entry.
        path: String,
        /// Which limit was exceeded.
        reason: String,
    },
    /// The layers exceed what this node holds in memory.
    #[error("the layers together: {0}")]
    Limit(#[from] Exceeded),
    /// Whoever wanted the tree does not want it any more.
    #[error("the image was not built to its end: nobody waits for it any more; the next request builds it")]
    Stopped,
    /// The canonical rules take the root's metadata from `/usr`, and there is none.
    #[error(
        "the image has no directory /usr, from which the canonical composefs rules take the root's metadata; it cannot have been sealed by them"
    )]
    NoUsr,
}

impl TreeError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Limit(_) => Kind::Exhausted,
            Self::Stopped => Kind::Transient,
            Self::Choice(error) => error.kind(),
            Self::NotADirectory { .. }
            | Self::SymlinkLoop { .. }
            | Self::LinkTargetMissing { .. }
            | Self::LinkToDirectory { .. }
            | Self::RootNotADirectory
            | Self::NameTooLong { .. }
            | Self::TooDeep { .. }
            | Self::SymlinkTarget { .. }
            | Self::DeviceNumber { .. }
            | Self::FileSize { .. }
            | Self::LinkedWhiteout { .. }
            | Self::Collision { .. }
            | Self::Meeting { .. }
            | Self::Outside { .. }
            | Self::NotInArtifacts { .. }
            | Self::LeftOut { .. }
            | Self::Xattrs { .. }
            | Self::NoUsr => Kind::Invalid,
        }
    }
}

/// A path for a message: absolute, and readable whatever its bytes.
pub(super) fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}
