//! Integrity levels: how far the bytes that a pod reads are checked. A word that every layer uses.

use serde::{Deserialize, Serialize};

/// How far the bytes that a pod reads are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Integrity {
    /// Digests were checked when the image was pulled.
    #[default]
    Fetch,
    /// And once more, by this process, before the first mount.
    Mount,
    /// By the kernel at every read (fs-verity).
    Read,
}

impl std::fmt::Display for Integrity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fetch => "fetch",
            Self::Mount => "mount",
            Self::Read => "read",
        })
    }
}
