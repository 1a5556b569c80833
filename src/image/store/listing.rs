//! Listing the store's directories. Anybody may leave something there: an editor's copy, a directory made by hand, a
//! pipe, files of a later release. It is left alone and stops nothing.

use std::ffi::{OsStr, OsString};
use std::fs::FileType;
use std::io;
use std::path::Path;

use super::disk::Disk;
use super::error::StoreError;

impl Disk {
    /// The names of the files in a directory for which `is_ours` holds; none if it does not exist.
    pub(super) fn files(
        &self,
        directory: &Path,
        is_ours: impl Fn(&OsStr) -> bool,
    ) -> Result<Vec<OsString>, StoreError> {
        self.entries(directory, FileType::is_file, is_ours)
    }

    /// The same of directories in it.
    pub(super) fn directories(
        &self,
        directory: &Path,
        is_ours: impl Fn(&OsStr) -> bool,
    ) -> Result<Vec<OsString>, StoreError> {
        self.entries(directory, FileType::is_dir, is_ours)
    }

    fn entries(
        &self,
        directory: &Path,
        is_of_the_sort: impl Fn(&FileType) -> bool,
        is_ours: impl Fn(&OsStr) -> bool,
    ) -> Result<Vec<OsString>, StoreError> {
        let fail = |error| self.error("list", directory, error);
        let mut names = Vec::new();
        for entry in self.read_directory(directory)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            match entry.file_type() {
                Ok(sort) if is_of_the_sort(&sort) && is_ours(&name) => names.push(name),
                Ok(_) => {
                    self.strangers().note(&entry.path());
                }
                // Removed since it was listed, where the directory does not say what it is.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(fail(error)),
            }
        }
        Ok(names)
    }
}
