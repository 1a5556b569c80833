//! Volume ids.

use std::fmt;
use std::str::FromStr;

use crate::kind::Kind;
use crate::oci::digest::Digest;

/// Longest id in bytes (CSI 1.12, "Size Limits": strings hold at most 128 bytes).
pub const VOLUME_ID_MAX: usize = 128;

/// A volume's id as the orchestrator knows it. Opaque: never a path, never parsed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VolumeId(String);

/// Why a string is no volume id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VolumeIdError {
    /// Nothing was given.
    #[error("volume_id is missing; the caller must name the volume")]
    Missing,
    /// More than [`VOLUME_ID_MAX`] bytes.
    #[error("volume_id {0:?}... is longer than 128 bytes; choose a shorter volumeHandle")]
    TooLong(String),
    /// It holds a control character.
    #[error("volume_id {0:?} holds a control character; choose another volumeHandle")]
    Control(String),
}

impl VolumeIdError {
    /// A malformed id is always the input's fault.
    pub fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

impl FromStr for VolumeId {
    type Err = VolumeIdError;

    fn from_str(text: &str) -> Result<Self, VolumeIdError> {
        if text.is_empty() {
            return Err(VolumeIdError::Missing);
        }
        if text.len() > VOLUME_ID_MAX {
            return Err(VolumeIdError::TooLong(text.chars().take(32).collect()));
        }
        if text.chars().any(char::is_control) {
            return Err(VolumeIdError::Control(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl VolumeId {
    /// The id as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A file name for this volume: the sha256 of the id, for ids may hold slashes and dots.
    pub fn file_stem(&self) -> String {
        Digest::of(self.0.as_bytes()).hex()
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for good in ["csi-0123", "../../etc/passwd", "a b", &"x".repeat(128)] {
            let id: VolumeId = good.parse().unwrap();
            assert_eq!(id.as_str(), good);
            assert_eq!(id.file_stem().len(), 64);
        }
        assert_eq!("".parse::<VolumeId>(), Err(VolumeIdError::Missing));
        assert!(matches!("x".repeat(129).parse::<VolumeId>(), Err(VolumeIdError::TooLong(_))));
        assert!(matches!("a\nb".parse::<VolumeId>(), Err(VolumeIdError::Control(_))));
    }
}
