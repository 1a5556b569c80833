//! How a volume may be used.
//!
//! An image has no writer, so every mount is read-only whatever the mode says. The single-node writer modes
//! are accepted all the same: inline volumes and claims with `ReadWriteOnce` arrive that way, and refusing
//! them would refuse the usual pod. The multi-node writer modes promise that writes are seen elsewhere;
//! those are refused.

use serde::{Deserialize, Serialize};

use crate::kind::Kind;

/// The access modes that are served, all of them read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessMode {
    /// `ReadWriteOnce`, and every inline volume.
    SingleNodeWriter,
    /// Readers on one node.
    SingleNodeReaderOnly,
    /// `ReadOnlyMany`.
    MultiNodeReaderOnly,
    /// `ReadWriteOncePod`: at one target only.
    SingleNodeSingleWriter,
    /// `ReadWriteOnce` where the orchestrator tells the two apart.
    SingleNodeMultiWriter,
}

/// How one caller wants to use a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Who shares it.
    pub mode: AccessMode,
    /// The mount flag `noexec` was given.
    pub noexec: bool,
}

/// Why a volume cannot be used like that.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AccessError {
    /// A part of the request that must be there.
    #[error("{0} is missing; the caller must say how the volume is to be used")]
    Missing(&'static str),
    /// Raw block access.
    #[error("an image is a filesystem and cannot be a block device; set volumeMode: Filesystem")]
    Block,
    /// Writers on several nodes.
    #[error("an image cannot be written, least of all from several nodes; use accessModes: [ReadOnlyMany]")]
    Writer,
    /// A filesystem was asked for by name.
    #[error("fsType {0:?} cannot be chosen, images are composefs; leave fsType empty")]
    FsType(String),
    /// An SELinux label, which kubelet passes for a CSIDriver with `seLinuxMount: true`, or a claim's mountOptions do.
    #[error(
        "mount option {0:?} is not taken: all pods of a node share an image's mount, whose SELinux label is the node \
         plugin's to choose (--selinux-context); set seLinuxMount: false in the CSIDriver object, as installed, or remove \
         it from mountOptions"
    )]
    Context(&'static str),
    /// A mount option that is not passed on.
    #[error("mount option {0:?} is not supported; ro, nosuid and nodev always hold, noexec may be added")]
    Flag(String),
    /// A group to own the files.
    #[error("group {0:?} cannot be given the files of an image; remove the pod's fsGroup")]
    Group(String),
}

impl AccessError {
    /// A use that an image cannot have is the caller's fault.
    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

impl Access {
    /// Checks what comes with a mode in a capability of type mount.
    ///
    /// # Errors
    /// A filesystem type, option or group that would not be honoured: nothing is ignored silently.
    pub fn new(mode: AccessMode, fs_type: &str, flags: &[String], group: &str) -> Result<Self, AccessError> {
        if !matches!(fs_type, "" | "composefs") {
            return Err(AccessError::FsType(fs_type.to_owned()));
        }
        if !group.is_empty() {
            return Err(AccessError::Group(group.to_owned()));
        }
        let mut noexec = false;
        for flag in flags.iter().flat_map(|flags| flags.split(',')) {
            match flag {
                "ro" | "nosuid" | "nodev" => {}
                "noexec" => noexec = true,
                other => return Err(refusal(other)),
            }
        }
        Ok(Self { mode, noexec })
    }
}

/// Of a label only the option's name is told: its categories may have a comma, at which it was split.
fn refusal(flag: &str) -> AccessError {
    let name = flag.split('=').next().unwrap_or_default();
    let label =
        ["context", "fscontext", "defcontext", "rootcontext"].into_iter().find(|label| *label == name);
    label.map_or_else(|| AccessError::Flag(flag.to_owned()), AccessError::Context)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(fs_type: &str, flags: &[&str], group: &str) -> Result<Access, AccessError> {
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        Access::new(AccessMode::MultiNodeReaderOnly, fs_type, &flags, group)
    }

    #[test]
    fn nothing_is_ignored_silently() {
        assert!(!with("", &[], "").unwrap().noexec);
        assert!(!with("composefs", &["ro", "nosuid,nodev"], "").unwrap().noexec);
        assert!(with("", &["ro,noexec"], "").unwrap().noexec);
        assert_eq!(with("ext4", &[], ""), Err(AccessError::FsType("ext4".into())));
        assert_eq!(with("", &["rw"], ""), Err(AccessError::Flag("rw".into())));
        assert_eq!(with("", &["contexts=x"], ""), Err(AccessError::Flag("contexts=x".into())));
        // As kubelet writes it.
        let label = r#"context="system_u:object_r:container_file_t:s0:c1,c2""#;
        assert_eq!(with("", &[label], ""), Err(AccessError::Context("context")));
        assert_eq!(with("", &["ro,rootcontext=x"], ""), Err(AccessError::Context("rootcontext")));
        assert_eq!(with("", &[], "1000"), Err(AccessError::Group("1000".into())));
    }
}
