//! Small files that are whole at every instant: a reader sees the old content or the new, and never a part.
//!
//! [`replace`] survives a power cut: the content is written to a temporary file and synced, the file is renamed, and
//! the directory is synced (rename(2) alone orders neither the data nor the name). [`replace_without_sync`] survives
//! only the death of the process. The caller chooses the temporary name, so that its own cleaning at the next start
//! recognises what a killed writer has left.
//!
//! Everything here blocks. Where debug assertions are on, a thread that runs the runtime's tasks panics instead of
//! blocking ([`assert_may_block`]), so that tests find such places.
//!
//! The node key is not written here: its creation must fail if there is a key already, so it is linked and not
//! renamed (`image/store/key.rs`).

mod blocking;
mod steps;
mod temporary;

use std::fs::File;
use std::path::{Path, PathBuf};

pub use blocking::assert_may_block;
pub use steps::{Step, StepError, Steps};
pub use temporary::{Temporary, try_lock};

/// Makes `path` hold exactly `bytes`, by way of `temporary` in the same directory; survives a power cut.
///
/// The file gets the mode 0666 without the umask's bits. Two writers must not use the same temporary name at a time.
///
/// # Errors
/// The step that failed. The temporary file is removed then.
pub fn replace(path: &Path, temporary: PathBuf, bytes: &[u8]) -> Result<(), StepError> {
    let steps = Steps::default();
    let mut file = Temporary::create(temporary, &steps)?;
    file.write(bytes)?;
    file.sync()?;
    file.rename(path)?;
    // A bare file name lies in the working directory.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_directory(directory, &steps)
}

/// The same without both syncs, for volume records only (ADR 0002): after a power cut the file may be empty or torn,
/// which its reader must recognise.
///
/// # Errors
/// The same.
pub fn replace_without_sync(path: &Path, temporary: PathBuf, bytes: &[u8]) -> Result<(), StepError> {
    let mut file = Temporary::create(temporary, &Steps::default())?;
    file.write(bytes)?;
    file.rename(path)
}

/// Makes the names in a directory survive a power cut.
///
/// # Errors
/// [`Step::SyncDirectory`].
pub fn sync_directory(directory: &Path, steps: &Steps) -> Result<(), StepError> {
    steps.take(Step::SyncDirectory, directory, || File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests;
