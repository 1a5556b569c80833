//! Small files that are whole at every instant: a reader sees the old content or the new, and never a part.
//!
//! [`replace`] survives a power cut: the content is written to a temporary file and synced, the file is renamed, and
//! the directory is synced (rename(2) alone orders neither the data nor the name). [`replace_without_sync`] survives
//! only the death of the process. The caller chooses the temporary name, so that its own cleaning at the next start
//! recognises what a killed writer has left.
//!
//! The node key is not written here: its creation must fail if there is a key already, so it is linked and not
//! renamed (`image/store/key.rs`).

mod steps;
mod temporary;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

pub use steps::{Step, Steps};
pub use temporary::{Temporary, try_lock};

/// A step that failed. Each caller makes an error of its own of it, with the remedy for its files.
#[derive(Debug)]
pub struct StepError {
    /// The step.
    pub step: Step,
    /// The file or directory that the step was about.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

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
