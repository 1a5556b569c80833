//! The steps of writing a file that a crash can separate, and the hook that tests stop the world with.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blocking::assert_may_block;

/// A step of writing a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Creating the temporary file.
    Create,
    /// Locking it.
    Lock,
    /// Looking whether a cleaner has removed it meanwhile.
    Inspect,
    /// Writing it.
    Write,
    /// Syncing it.
    Sync,
    /// Giving it its name.
    Rename,
    /// Syncing the directory.
    SyncDirectory,
}

impl Step {
    /// The step as a verb phrase, to be followed by the file that it is about.
    pub fn doing(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Lock => "lock",
            Self::Inspect => "inspect",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Rename => "rename a temporary file to",
            Self::SyncDirectory => "sync directory",
        }
    }
}

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

/// Called with the name of each step before it is taken; an error is given to the caller as the
/// step's own. For fault injection in tests; does nothing by default.
#[derive(Clone, Default)]
pub struct Steps(Option<Arc<dyn Fn(&'static str) -> io::Result<()> + Send + Sync>>);

impl Steps {
    /// Calls `before` ahead of every step.
    pub fn new(before: impl Fn(&'static str) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(before)))
    }

    /// Calls the hook, if there is one, ahead of the step named `doing`, which may block.
    ///
    /// # Errors
    /// The hook's.
    pub fn before(&self, doing: &'static str) -> io::Result<()> {
        assert_may_block();
        self.0.as_ref().map_or(Ok(()), |before| before(doing))
    }

    pub(super) fn take<T>(
        &self,
        step: Step,
        path: &Path,
        act: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, StepError> {
        let failed = |source| StepError { step, path: path.to_owned(), source };
        self.before(step.doing()).and_then(|()| act()).map_err(failed)
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Steps(watched)" } else { "Steps" })
    }
}
