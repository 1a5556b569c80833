//! Files and directories of records that lead nowhere: found beside everything else, removed while nothing can be noted.
//!
//! Finding them reads every record, removing them looks again only at those that were found.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::disk::Disk;
use super::error::StoreError;

/// What was found by directory.
#[derive(Debug, Default)]
pub(super) struct Useless {
    found: BTreeMap<PathBuf, Vec<OsString>>,
    /// Until when the found ones may be removed; they are only looked for if there is none.
    until: Option<Instant>,
}

impl Useless {
    /// From here on what was found is removed, until then.
    pub(super) fn remove_until(&mut self, end: Instant) {
        self.until = Some(end);
    }

    /// Whether useless things are looked for, and not removed yet.
    pub(super) fn is_looking(&self) -> bool {
        self.until.is_none()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.values().all(Vec::is_empty)
    }

    /// Finds the files in `directory` that lead nowhere, or removes those that were found and still do.
    pub(super) fn sweep_files(
        &mut self,
        disk: &Disk,
        directory: &Path,
        leads_nowhere: impl Fn(&OsStr) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        self.sweep(disk, directory, leads_nowhere, |path| disk.remove(path).map(drop))
    }

    /// The same of directories, with what is in them.
    pub(super) fn sweep_directories(
        &mut self,
        disk: &Disk,
        directory: &Path,
        leads_nowhere: impl Fn(&OsStr) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        self.sweep(disk, directory, leads_nowhere, |path| disk.remove_all(path))
    }

    fn sweep(
        &mut self,
        disk: &Disk,
        directory: &Path,
        leads_nowhere: impl Fn(&OsStr) -> Result<bool, StoreError>,
        remove: impl Fn(&Path) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let found = self.found.entry(directory.to_owned()).or_default();
        let Some(end) = self.until else {
            for name in disk.list(directory)? {
                if leads_nowhere(&name)? {
                    found.push(name);
                }
            }
            return Ok(());
        };
        while Instant::now() < end
            && let Some(name) = found.pop()
        {
            if leads_nowhere(&name)? {
                remove(&directory.join(name))?;
            }
        }
        Ok(())
    }
}
