//! Access modes and mount options of a volume.
//!
//! Every mount is read-only, whatever the mode. The single-node writer modes are accepted nevertheless: inline volumes
//! and claims with `ReadWriteOnce` have them, so a refusal would affect the usual pod. The multi-node writer modes are
//! refused, because they promise that other nodes see the writes.

use serde::{Deserialize, Serialize};

use crate::kind::Kind;

/// The supported access modes. All of them are read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessMode {
    /// `ReadWriteOnce`, and every inline volume.
    SingleNodeWriter,
    /// Readers on one node.
    SingleNodeReaderOnly,
    /// `ReadOnlyMany`.
    MultiNodeReaderOnly,
    /// `ReadWriteOncePod`: one target only.
    SingleNodeSingleWriter,
    /// `ReadWriteOnce`, if the orchestrator distinguishes it from `ReadWriteOncePod`.
    SingleNodeMultiWriter,
}

/// How a request wants to use a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Access {
    /// The access mode.
    pub mode: AccessMode,
    /// Whether the mount flag `noexec` is set.
    pub noexec: bool,
}

/// Why a volume cannot be used as requested.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum AccessError {
    /// A required part of the request is missing.
    #[error("{0} is missing; the caller must say how the volume is to be used")]
    Missing(&'static str),
    /// The request wants a block device.
    #[error("an image is a filesystem and cannot be a block device; set volumeMode: Filesystem")]
    Block,
    /// The request wants writers on several nodes.
    #[error("an image cannot be written, and so not from several nodes; use accessModes: [ReadOnlyMany]")]
    Writer,
    /// The request names a filesystem type.
    #[error("fsType {0:?} cannot be chosen, images are composefs; leave fsType empty")]
    FsType(String),
    /// The request has an SELinux label, from kubelet for a CSIDriver with `seLinuxMount: true` or from mountOptions.
    #[error(
        "mount option {0:?} is not taken: all pods of a node share an image's mount, whose SELinux label is the node \
         plugin's to choose (--selinux-context); set seLinuxMount: false in the CSIDriver object, as installed, or remove \
         it from mountOptions"
    )]
    Context(&'static str),
    /// The mount option is not supported.
    #[error("mount option {0:?} is not supported; ro, nosuid and nodev always hold, noexec may be added")]
    Flag(String),
    /// The request wants a group to own the files.
    #[error("group {0:?} cannot be given the files of an image; remove the pod's fsGroup")]
    Group(String),
}

impl AccessError {
    /// Invalid: the caller chose the use.
    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

impl Access {
    /// Checks the other fields of a capability of type mount.
    ///
    /// # Errors
    /// A filesystem type, option or group cannot be honoured. Nothing is ignored silently.
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
                // Set on every mount anyway.
                "ro" | "nosuid" | "nodev" => {}
                "noexec" => noexec = true,
                other => return Err(refusal(other)),
            }
        }
        Ok(Self { mode, noexec })
    }
}

/// The error for an option. For a label it names only the option: the value may be incomplete, because options are split
/// at commas and a label's categories may contain one.
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
