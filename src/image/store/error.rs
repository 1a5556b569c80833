//! What can go wrong in the store.

use std::io;
use std::path::{Path, PathBuf};

use crate::image::composefs::ImageError;
use crate::image::layer::RecordError;
use crate::image::objects::ObjectError;
use crate::image::verity::VerityDigest;
use crate::kind::Kind;
use crate::oci::digest::Digest;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// The step, as a verb phrase.
        doing: &'static str,
        /// The file it was about.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The filesystem, a quota or its inodes are used up.
    #[error(
        "no room left in the store {} (cannot {doing}: {source}); free space or inodes on its filesystem, \
         or remove unused images with `composefs-csi prune`",
        store.display()
    )]
    Full {
        /// The store's directory.
        store: PathBuf,
        /// The step, as a verb phrase.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The filesystem is mounted read-only.
    #[error(
        "the store {} lies on a read-only filesystem (cannot {doing}); if it is not meant to be, see the kernel log for \
         an error of the disk, then mount it writable again. Images can be listed and verified meanwhile",
        store.display()
    )]
    ReadOnly {
        /// The store's directory.
        store: PathBuf,
        /// The step, as a verb phrase.
        doing: &'static str,
    },
    /// The directory holds something else.
    #[error(
        "{} is not a store (it has {found:?} but no file `version`); choose an empty or a new directory",
        store.display()
    )]
    NotAStore {
        /// The directory.
        store: PathBuf,
        /// Something that no store has.
        found: String,
    },
    /// The store was made by a newer release, or with another digest algorithm.
    #[error(
        "the store {} has {found}, which this release ({known}) cannot read; nothing was changed. Run the release that made it \
         ({needed}) or a newer one, or choose another directory",
        store.display()
    )]
    Version {
        /// The store's directory.
        store: PathBuf,
        /// What its version file says.
        found: String,
        /// This release.
        known: &'static str,
        /// The release that can read it, as far as the file says.
        needed: String,
    },
    /// The store can be read by this release, and not written to.
    #[error(
        "the store {} is only read (cannot {doing}): {why}. Images that are here can be mounted; nothing can be pulled or removed \
         before that is put right",
        store.display()
    )]
    OnlyRead {
        /// The store's directory.
        store: PathBuf,
        /// The step, as a verb phrase.
        doing: &'static str,
        /// Why.
        why: String,
    },
    /// A record that is not what this or any earlier release writes.
    #[error("{} is damaged ({why}); remove the file, then pull the image or publish the volume again", path.display())]
    Torn {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A record without a valid code of this node's key.
    #[error(
        "{} ({what}) is not authentic: it was altered, comes from another node, from an earlier release, or the node \
         key was replaced. It is not used; pull the image again, with a pull policy that may ask the registry, and find \
         out who can write to the store",
        path.display()
    )]
    Unauthentic {
        /// The record.
        path: PathBuf,
        /// What it is about.
        what: String,
    },
    /// The same layers gave another image than before.
    #[error(
        "image {manifest} was built as composefs image {built}, but {} says that its first build here gave {recorded}: \
         the layers' records or this node's memory cannot be trusted. Nothing was published; see OPERATIONS, then \
         remove that file to have the image built anew",
        path.display()
    )]
    OtherDigest {
        /// The image.
        manifest: Digest,
        /// What it is now.
        built: VerityDigest,
        /// What it was.
        recorded: VerityDigest,
        /// Where that is recorded.
        path: PathBuf,
    },
    /// A record of a newer release.
    #[error(
        "{} has record format {found}, this release knows {known}; run a newer release, or remove the file and \
         pull the image again",
        path.display()
    )]
    Future {
        /// The record.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// A sweep, another collection or a hold excludes what the caller wants.
    #[error("the store {} is in use ({why}); try again when that is over", store.display())]
    Busy {
        /// The store's directory.
        store: PathBuf,
        /// What it is in use for.
        why: &'static str,
    },
    /// The image has no record.
    #[error("image {0} is not in the store; pull it first")]
    NoImage(Digest),
    /// A layer that an image needs has no record.
    #[error("layer {0} is not in the store; pull the image again")]
    NoLayer(Digest),
    /// An image was to be committed without its object.
    #[error(
        "image {0} was committed before its composefs image was stored; this is a defect, please report it"
    )]
    NoObject(Digest),
    /// An earlier sync failed, so it is unknown which objects are whole.
    #[error(
        "the filesystem of {} failed to write data back earlier; check the disk (kernel log), then restart: the \
         store is checked when it is opened",
        store.display()
    )]
    Unsound {
        /// The store's directory.
        store: PathBuf,
    },
    /// An object could not be stored or found.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A layer record could not be read.
    #[error("layer {diff_id}: {source}")]
    Layer {
        /// Which layer.
        diff_id: Digest,
        /// What is wrong with its record.
        source: RecordError,
    },
    /// A layer record is lost, and the composefs image does not help out.
    #[error("image {manifest}: {source}")]
    Composefs {
        /// Which image.
        manifest: Digest,
        /// What is wrong with it.
        source: ImageError,
    },
    /// Nothing can be removed, since it is unknown what is needed.
    #[error("nothing was removed from the store: {0}")]
    Blocked(String),
}

impl StoreError {
    /// An I/O error of a step of the store in `store`; running out of room is told apart.
    pub(super) fn io(store: &Path, doing: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { store: store.to_owned(), doing, source }
            }
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { store: store.to_owned(), doing },
            _ => Self::Io { doing, path: path.to_owned(), source },
        }
    }

    pub(super) fn unauthentic(path: &Path, what: String) -> Self {
        Self::Unauthentic { path: path.to_owned(), what }
    }

    /// Whether the record that was to be read will never be read again: it is damaged or gone.
    pub(super) fn is_lost_record(&self) -> bool {
        matches!(self.kind(), Kind::Corrupt | Kind::NotFound)
    }

    /// Whether nothing can be written at present: there is no room, or the filesystem is read-only. What is stored can
    /// be read and, on a full filesystem, removed.
    pub(super) fn is_unwritable(&self) -> bool {
        match self {
            Self::Full { .. } | Self::ReadOnly { .. } | Self::OnlyRead { .. } => true,
            Self::Object(error) => error.is_unwritable(),
            _ => false,
        }
    }

    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Kind::Denied,
                io::ErrorKind::NotFound => Kind::NotFound,
                _ => Kind::Transient,
            },
            Self::Full { .. } => Kind::Exhausted,
            Self::NotAStore { .. } => Kind::Invalid,
            Self::ReadOnly { .. } | Self::OnlyRead { .. } | Self::Version { .. } | Self::Future { .. } => {
                Kind::Unsupported
            }
            Self::Torn { .. }
            | Self::Unauthentic { .. }
            | Self::OtherDigest { .. }
            | Self::Unsound { .. } => Kind::Corrupt,
            Self::Busy { .. } => Kind::Busy,
            Self::NoImage(_) | Self::NoLayer(_) => Kind::NotFound,
            Self::NoObject(_) => Kind::Bug,
            Self::Object(error) => error.kind(),
            Self::Layer { source, .. } => source.kind(),
            Self::Composefs { source, .. } => source.kind(),
            Self::Blocked(_) => Kind::Conflict,
        }
    }
}
