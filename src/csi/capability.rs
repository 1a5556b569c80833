//! Parses a volume capability into an [`Access`].

use super::proto::VolumeCapability;
use super::proto::volume_capability::AccessType;
use super::proto::volume_capability::access_mode::Mode;
use crate::volume::access::{Access, AccessError, AccessMode};

/// Parses one capability.
///
/// # Errors
/// It is absent or incomplete, requests a block device, or requests what an image cannot provide.
pub(crate) fn access(capability: Option<&VolumeCapability>) -> Result<Access, AccessError> {
    let capability = capability.ok_or(AccessError::Missing("volume_capability"))?;
    let mount = match &capability.access_type {
        None => return Err(AccessError::Missing("volume_capability.access_type")),
        Some(AccessType::Block(_)) => return Err(AccessError::Block),
        Some(AccessType::Mount(mount)) => mount,
    };
    let mode =
        capability.access_mode.as_ref().ok_or(AccessError::Missing("volume_capability.access_mode"))?;
    let mode = match mode.mode() {
        Mode::Unknown => return Err(AccessError::Missing("volume_capability.access_mode.mode")),
        Mode::SingleNodeWriter => AccessMode::SingleNodeWriter,
        Mode::SingleNodeReaderOnly => AccessMode::SingleNodeReaderOnly,
        Mode::MultiNodeReaderOnly => AccessMode::MultiNodeReaderOnly,
        Mode::SingleNodeSingleWriter => AccessMode::SingleNodeSingleWriter,
        Mode::SingleNodeMultiWriter => AccessMode::SingleNodeMultiWriter,
        Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter => return Err(AccessError::Writer),
    };
    Access::new(mode, &mount.fs_type, &mount.mount_flags, &mount.volume_mount_group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csi::proto::volume_capability::{AccessMode as Wire, BlockVolume, MountVolume};

    fn capability(mode: Mode) -> VolumeCapability {
        VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume::default())),
            access_mode: Some(Wire { mode: mode.into() }),
        }
    }

    #[test]
    fn incomplete_and_impossible_ones_are_refused() {
        assert!(matches!(access(None), Err(AccessError::Missing(_))));
        let mut incomplete = capability(Mode::MultiNodeReaderOnly);
        incomplete.access_mode = None;
        assert!(matches!(access(Some(&incomplete)), Err(AccessError::Missing(_))));
        let mut block = capability(Mode::MultiNodeReaderOnly);
        block.access_type = Some(AccessType::Block(BlockVolume::default()));
        assert!(matches!(access(Some(&block)), Err(AccessError::Block)));
        for mode in [Mode::MultiNodeSingleWriter, Mode::MultiNodeMultiWriter] {
            assert!(matches!(access(Some(&capability(mode))), Err(AccessError::Writer)));
        }
        let mut unknown = capability(Mode::Unknown);
        assert!(matches!(access(Some(&unknown)), Err(AccessError::Missing(_))));
        unknown.access_mode = Some(Wire { mode: 99 });
        assert!(matches!(access(Some(&unknown)), Err(AccessError::Missing(_))));
    }

    #[test]
    fn readers_and_single_node_writers_are_taken() {
        for (wire, mode) in [
            (Mode::SingleNodeWriter, AccessMode::SingleNodeWriter),
            (Mode::SingleNodeReaderOnly, AccessMode::SingleNodeReaderOnly),
            (Mode::MultiNodeReaderOnly, AccessMode::MultiNodeReaderOnly),
            (Mode::SingleNodeSingleWriter, AccessMode::SingleNodeSingleWriter),
            (Mode::SingleNodeMultiWriter, AccessMode::SingleNodeMultiWriter),
        ] {
            assert_eq!(access(Some(&capability(wire))).unwrap().mode, mode);
        }
    }
}
