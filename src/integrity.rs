//! Integrity levels: how thoroughly the data that a pod reads is checked.

use serde::{Deserialize, Serialize};

/// How thoroughly the data that a pod reads is checked. Later levels include earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Integrity {
    /// Digests were checked when the image was pulled.
    #[default]
    Fetch,
    /// Also checked by this process before the first mount.
    Mount,
    /// Checked by the kernel at every read (fs-verity).
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
