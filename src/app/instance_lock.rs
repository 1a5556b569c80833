//! Only one node plugin at a time may use a state directory.
//!
//! The recovery of volume records at the start assumes that no publish is in progress. Two releases of the chart with
//! different driver names would share the default directory; the second must fail instead of removing records of the
//! first. Commands (`composefs-csi pull`, `prune`) change no volume records and need no such lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;

/// The lock of a state directory. The kernel releases it when the process ends.
#[derive(Debug)]
pub struct InstanceLock(#[expect(dead_code, reason = "held for its lock")] File);

impl InstanceLock {
    /// Takes the lock, and creates the directory if necessary. Does file I/O, but never waits for the lock.
    ///
    /// # Errors
    /// Another node plugin holds the lock, or the directory cannot be used.
    pub fn acquire(state: &Path) -> anyhow::Result<Self> {
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
        let first = InstanceLock::acquire(&state).unwrap();
        let refused = InstanceLock::acquire(&state).unwrap_err().to_string();
        assert!(refused.starts_with("another node plugin works in"), "{refused}");
        drop(first);
        InstanceLock::acquire(&state).unwrap();
    }
}
