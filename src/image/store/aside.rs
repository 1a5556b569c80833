//! Records that are no good: renamed, so that nobody takes them for records.

use std::io;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::disk::Disk;

/// Why a record is put aside, which is what its file name ends in then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aside {
    /// A power cut tore it. The next sweep removes it.
    Torn,
    /// This node did not write it. It stays, for the operator to find out where it comes from.
    Forged,
}

impl Aside {
    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Torn => "torn",
            Self::Forged => "forged",
        }
    }
}

impl Disk {
    /// Renames a record that is no good, and logs `error`, which says why.
    pub(super) fn put_aside(&self, path: &Path, why: Aside, error: &StoreError) -> Result<(), StoreError> {
        let aside: PathBuf = path.with_extension(why.extension());
        match why {
            Aside::Forged => tracing::error!(%error, aside = %aside.display(), "record put aside"),
            Aside::Torn => tracing::warn!(%error, aside = %aside.display(), "record put aside"),
        }
        self.step("put aside", path, || match std::fs::rename(path, &aside) {
            // Another process was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        })
    }
}
