//! What this kernel, with this store's filesystem, can do: found out by doing it, not from version numbers.
//!
//! Kernels differ in which way of stacking works (6.12 takes no descriptors of detached mounts), distributions leave
//! modules out, point releases break things (7.0.1 to 7.0.6 refuse every object under `verity=require`), and an image
//! on overlayfs or tmpfs needs a loop device. So a tiny image is mounted and read at the start.

use std::fmt;

use super::selinux::Labelling;
use super::superblock::{Backing, Layers, Way};
use crate::integrity::Integrity;

/// Whether objects are checked by the kernel at every open and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verity {
    /// `verity=require`: an object that is not sealed, or has another digest, cannot be opened.
    Required,
    /// The store has no fs-verity, so there is nothing to demand.
    NotInStore,
    /// The store has fs-verity but this kernel's overlayfs cannot use it; the reason.
    Unusable(String),
}

/// The result of the self-test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// The kernel's release.
    pub kernel: String,
    /// What EROFS reads an image from.
    pub backing: Backing,
    /// How the overlay is told its layers.
    pub layers: Layers,
    /// Whether the kernel checks objects as they are read.
    pub verity: Verity,
    /// How mounts are labelled for SELinux.
    pub selinux: Labelling,
    /// The ways that were tried before and do not work here, with the kernel's reason.
    pub failed: Vec<String>,
}

impl Capabilities {
    /// How far the bytes read from a mount are checked: what the store promises counts only where the
    /// kernel enforces it.
    pub fn integrity(&self) -> Integrity {
        if self.verity == Verity::Required { Integrity::Read } else { Integrity::Fetch }
    }

    /// The way to mount images.
    pub(super) fn way(&self) -> Way {
        Way {
            backing: self.backing,
            layers: self.layers,
            verity: self.verity == Verity::Required,
            context: self.selinux.context.clone(),
        }
    }
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "EROFS from the image file",
            Self::LoopDevice => "EROFS from a loop device",
        })
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Descriptors => "overlay layers by descriptor",
            Self::Paths => "overlay layers by path",
            Self::Classic => "overlay layers in one lowerdir option",
        })
    }
}

impl fmt::Display for Verity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Required => f.write_str("verity=require"),
            Self::NotInStore => f.write_str("no fs-verity in the store"),
            Self::Unusable(why) => write!(f, "fs-verity in the store cannot be required: {why}"),
        }
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Linux {}: {}, {}, {}", self.kernel, self.backing, self.layers, self.verity)?;
        if let Some(label) = &self.selinux.label {
            write!(f, ", SELinux label {label}")?;
        }
        if !self.failed.is_empty() {
            write!(f, "; not working here: {}", self.failed.join("; "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_for_the_log() {
        let found = Capabilities {
            kernel: "6.12.9".into(),
            backing: Backing::File,
            layers: Layers::Paths,
            verity: Verity::Required,
            selinux: Labelling::default(),
            failed: vec!["by descriptor: EBADF".into()],
        };
        assert_eq!(
            found.to_string(),
            "Linux 6.12.9: EROFS from the image file, overlay layers by path, verity=require; \
             not working here: by descriptor: EBADF"
        );
        assert!(found.way().verity);
        assert_eq!(found.integrity(), Integrity::Read);
        let unusable = Capabilities { verity: Verity::Unusable("EIO".into()), ..found };
        assert!(!unusable.way().verity);
        assert_eq!(unusable.integrity(), Integrity::Fetch, "never more than the kernel enforces");
    }
}
