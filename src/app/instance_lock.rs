//! One node plugin at a time works in a state directory.
//!
//! Volume records are put in order at the start, which takes for granted that nobody is in the middle of a publish.
//! Two releases of the chart side by side, each with a driver's name of its own, would share the default directory;
//! the second must say so instead of tidying up behind the first. Commands (`composefs-csi pull`, `prune`) touch no
//! volume records and need no such turn.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;

/// Whoever has this is the state directory's node plugin. The kernel takes it back when the process ends.
#[derive(Debug)]
pub struct Alone(#[expect(dead_code, reason = "held for its lock")] File);

impl Alone {
    /// Takes the turn, making the directory if need be. Blocking, but never for long.
    ///
    /// # Errors
    /// Another node plugin has it, or the directory cannot be used.
    pub fn in_directory(state: &Path) -> anyhow::Result<Self> {
        let path = state.join("plugin.lock");
        let failed = || format!("cannot lock {}; the state directory must be writable", path.display());
        std::fs::create_dir_all(state).with_context(failed)?;
        let file =
            OpenOptions::new().create(true).append(true).mode(0o600).open(&path).with_context(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => anyhow::bail!(
                "another node plugin works in {}; stop it, or give this one a directory of its own with --state-dir \
                 (stateDir of the chart)",
                state.display()
            ),
            Err(TryLockError::Error(error)) => Err(error).with_context(failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("a/state");
        let first = Alone::in_directory(&state).unwrap();
        let refused = Alone::in_directory(&state).unwrap_err().to_string();
        assert!(refused.starts_with("another node plugin works in"), "{refused}");
        drop(first);
        Alone::in_directory(&state).unwrap();
    }
}
