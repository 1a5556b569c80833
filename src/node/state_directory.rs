//! The state directory of a running plugin: one plugin at a time works in it, and it must stay what it was.
//!
//! The recovery of volume records at the start assumes that no publish is in progress. Two releases of the chart with
//! different driver names would share the default directory; the second must fail instead of removing records of the
//! first. Commands (`composefs-csi pull`, `prune`) change no volume records and need no such lock.
//!
//! Directories are removed, replaced and remounted read-only while programs hold files in them open. A plugin that does
//! not notice says of every image that it is missing. So what was opened is compared with what its path leads to now.

use std::fs::{File, FileTimes, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::kind::Kind;

const LOCK: &str = "plugin.lock";
/// How long a write that succeeded says that the directory takes writes.
const TRUSTED: Duration = Duration::from_secs(1);

/// A state directory that this process has claimed. The kernel releases the claim when the process ends.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    lock: File,
    claimed: Part,
    /// What the plugin keeps open besides the lock.
    opened: OnceLock<Vec<Part>>,
    /// When the directory took a write last.
    written: Mutex<Option<Instant>>,
}

/// A path, and what was there when it was opened: device and inode.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    identity: (u64, u64),
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirectoryError {
    /// Another plugin has claimed it.
    #[error(
        "another node plugin works in {}; stop it, or give this one a directory of its own with --state-dir (stateDir \
         of the chart)",
        .0.display()
    )]
    Claimed(PathBuf),
    /// It cannot be made, or written to.
    #[error(
        "the node's state directory {} cannot be written to ({error}), so no volume can be mounted on this node; \
         mount its filesystem read-write, and see the kernel log",
        path.display()
    )]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// It, or a part of it, is not what this process opened.
    #[error(
        "the node's state directory {} was removed or replaced under the running plugin ({} is another one or gone), so \
         no volume can be mounted on this node; put it back, or restart the plugin, which makes a new one",
        path.display(), part.display()
    )]
    Replaced {
        /// The directory.
        path: PathBuf,
        /// What is missing or different.
        part: PathBuf,
    },
}

impl StateDirectoryError {
    /// What sort of failure this is. A directory comes back without the caller's doing.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Claimed(_) => Kind::Busy,
            Self::NotWritable { .. } | Self::Replaced { .. } => Kind::Transient,
        }
    }
}

impl Part {
    fn of(path: PathBuf) -> io::Result<Self> {
        let found = std::fs::symlink_metadata(&path)?;
        Ok(Self { identity: (found.dev(), found.ino()), path })
    }

    fn is_there(&self) -> bool {
        Self::of(self.path.clone()).is_ok_and(|found| found.identity == self.identity)
    }
}

impl StateDirectory {
    /// Claims the directory, and creates it if necessary. Does file I/O, but never waits for another plugin.
    ///
    /// # Errors
    /// Another node plugin has claimed it, or it cannot be written to.
    pub fn claim(state: &Path) -> Result<Self, StateDirectoryError> {
        let failed = |error| StateDirectoryError::NotWritable { path: state.to_owned(), error };
        let path = state.join(LOCK);
        std::fs::create_dir_all(state).map_err(failed)?;
        let lock = open_lock(&path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateDirectoryError::Claimed(state.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let claimed = Part::of(path).map_err(failed)?;
        let (opened, written) = (OnceLock::new(), Mutex::default());
        let claim = Self { path: state.to_owned(), lock, claimed, opened, written };
        claim.check()?;
        Ok(claim)
    }

    /// From now on, these paths in the directory must stay what they are now. Counts once.
    ///
    /// # Errors
    /// One of them cannot be examined.
    pub fn keep(&self, paths: impl IntoIterator<Item = PathBuf>) -> Result<(), StateDirectoryError> {
        let parts = paths.into_iter().map(Part::of).collect::<io::Result<_>>();
        let parts =
            parts.map_err(|error| StateDirectoryError::NotWritable { path: self.path.clone(), error })?;
        let _ = self.opened.set(parts);
        Ok(())
    }

    /// Whether the directory is there, is the one that was claimed, and takes writes. A few system calls; blocks where
    /// the filesystem does.
    ///
    /// A full filesystem passes: room can be made, and what finds no room says so itself.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), StateDirectoryError> {
        self.check_parts()?;
        self.check_writes()
    }

    /// The same for callers who write there next and [`StateDirectory::check`] if that fails. That it takes writes may be
    /// what was found a second ago: each attempt is a transaction of its filesystem, for which thirty pods that start at
    /// once would wait one after the other, and longer where others sync.
    ///
    /// # Errors
    /// The same.
    pub fn check_before_work(&self) -> Result<(), StateDirectoryError> {
        self.check_parts()?;
        let written = *self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.is_some_and(|at| at.elapsed() < TRUSTED) { Ok(()) } else { self.check_writes() }
    }

    fn check_parts(&self) -> Result<(), StateDirectoryError> {
        let parts = std::iter::once(&self.claimed).chain(self.opened.get().into_iter().flatten());
        for part in parts {
            if !part.is_there() {
                let (path, part) = (self.path.clone(), part.path.clone());
                return Err(StateDirectoryError::Replaced { path, part });
            }
        }
        Ok(())
    }

    fn check_writes(&self) -> Result<(), StateDirectoryError> {
        // The cheapest write that a read-only or failed filesystem refuses and a full one takes.
        let outcome = match self.lock.set_times(FileTimes::new().set_modified(SystemTime::now())) {
            Err(error)
                if !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                Err(StateDirectoryError::NotWritable { path: self.path.clone(), error })
            }
            _ => Ok(()),
        };
        let written = outcome.is_ok().then(Instant::now);
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = written;
        outcome
    }
}

/// Opens the lock for reading only: a file that is open for writing keeps an operator from remounting read-only.
fn open_lock(path: &Path) -> io::Result<File> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
            File::open(path)
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("a/state");
        let first = StateDirectory::claim(&state).unwrap();
        let refused = StateDirectory::claim(&state).unwrap_err();
        assert_eq!(refused.kind(), Kind::Busy);
        assert!(refused.to_string().starts_with("another node plugin works in"), "{refused}");
        drop(first);
        StateDirectory::claim(&state).unwrap();
    }

    #[test]
    fn it_notices_what_has_gone_and_what_is_back() {
        let directory = tempfile::tempdir().unwrap();
        let (state, aside) = (directory.path().join("state"), directory.path().join("aside"));
        let claimed = StateDirectory::claim(&state).unwrap();
        std::fs::create_dir(state.join("store")).unwrap();
        claimed.keep([state.join("store")]).unwrap();
        claimed.check().unwrap();
        let problem = |part: &str| {
            // Also within the second for which a write is trusted.
            for problem in [claimed.check().unwrap_err(), claimed.check_before_work().unwrap_err()] {
                assert_eq!(problem.kind(), Kind::Transient);
                assert!(problem.to_string().contains(part), "{problem}");
            }
        };
        std::fs::rename(&state, &aside).unwrap();
        problem(LOCK);
        // A new one by the same name is not the same.
        std::fs::create_dir_all(state.join("store")).unwrap();
        std::fs::write(state.join(LOCK), "").unwrap();
        problem(LOCK);
        std::fs::remove_dir_all(&state).unwrap();
        std::fs::rename(&aside, &state).unwrap();
        claimed.check().unwrap();
        std::fs::remove_dir(state.join("store")).unwrap();
        problem("state/store");
    }
}
