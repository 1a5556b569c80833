//! Observes the state of a volume and carries out plans. It decides nothing, and everything blocks.
//!
//! Everything here runs inside one `spawn_blocking` closure that owns the volume's guard.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::guard::VolumeGuard;
use super::plan::{Observed, Step};
use super::pod_users::PodUsersError;
use super::record::{RecordError, Records, VolumeRecord};
use super::target::{TargetPath, TargetState};
use super::writable::WritableRefusal;
use crate::kind::Kind;
use crate::node::mount::{MountError, Mounter};
use crate::node::state_directory::StateDirectory;

/// Mode of a target directory before the mount: the same as kubelet's for volume directories.
const TARGET_MODE: u32 = 0o750;

/// Why a volume could not be observed, or a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The record failed.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The mount failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The users of a pod are not known.
    #[error(transparent)]
    PodUsers(#[from] PodUsersError),
    /// The pod cannot have a writable volume.
    #[error(transparent)]
    Writable(#[from] WritableRefusal),
    /// The target directory failed.
    #[error("cannot {step} target {}: {error}; {remedy}", path.display())]
    Directory {
        /// The attempted step, a verb.
        step: &'static str,
        /// The target.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
        /// What to do about it.
        remedy: &'static str,
    },
}

impl StepError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Record(error) => error.kind(),
            Self::Mount(error) => error.kind(),
            Self::PodUsers(error) => error.kind(),
            Self::Writable(refusal) => refusal.kind(),
            Self::Directory { error, .. } => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Kind::Invalid,
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => Kind::Conflict,
                io::ErrorKind::ResourceBusy => Kind::Busy,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Exhausted,
                _ => Kind::Unsupported,
            },
        }
    }
}

/// Access to records and mounts: the input and output of plans.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Io<'a> {
    /// The records.
    pub records: &'a Records,
    /// The mounts.
    pub mounter: &'a dyn Mounter,
    /// Where the records and the store are.
    pub state: &'a StateDirectory,
    /// The kubelet's directory.
    pub kubelet: &'a Path,
    /// The boot that is running.
    pub boot: &'a str,
}

impl Io<'_> {
    /// Observes a volume at a target.
    ///
    /// # Errors
    /// The record is unreadable, or a foreign mount is on the target.
    pub fn observe(&self, guard: &VolumeGuard, target: &TargetPath) -> Result<Observed, StepError> {
        let record = self.records.read(guard.volume())?;
        self.observe_target(guard, target, record)
    }

    /// As [`Io::observe`], of a volume with this record.
    ///
    /// # Errors
    /// The target cannot be examined, or a foreign mount is on it.
    pub(super) fn observe_target(
        &self,
        guard: &VolumeGuard,
        target: &TargetPath,
        record: Option<VolumeRecord>,
    ) -> Result<Observed, StepError> {
        let directory = target.inspect().map_err(|error| failed("look at", target, error))?;
        let mounted = match directory {
            // Only a directory can have a mount of this driver.
            TargetState::Missing | TargetState::Other => None,
            TargetState::Empty | TargetState::Filled => self.mounter.mounted(target.path())?,
        };
        let owner =
            self.records.claimant(target.path(), self.boot).filter(|id| id != guard.volume().as_str());
        Ok(Observed { directory, mounted, owner, ..self.observed(record) })
    }

    /// Observes a volume's record only: staging mounts nothing.
    ///
    /// # Errors
    /// The record is unreadable.
    pub fn observe_record(&self, guard: &VolumeGuard) -> Result<Observed, StepError> {
        Ok(self.observed(self.records.read(guard.volume())?))
    }

    /// A volume with this record, of which nothing else is looked at.
    pub(super) fn observed(&self, record: Option<VolumeRecord>) -> Observed {
        let boot = self.boot.to_owned();
        Observed { record, directory: TargetState::Missing, mounted: None, owner: None, boot }
    }

    /// Takes the steps of a plan in order. If one fails, what the earlier steps added is rolled back. What was there
    /// before, or belongs to another volume, stays.
    ///
    /// # Errors
    /// A step failed.
    pub fn run(
        &self,
        guard: &VolumeGuard,
        target: &TargetPath,
        before: Option<&VolumeRecord>,
        steps: &[Step],
    ) -> Result<(), StepError> {
        for (at, step) in steps.iter().enumerate() {
            if let Err(error) = self.step(guard, target, step) {
                self.roll_back(guard, target, before, &steps[..at]);
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn step(
        &self,
        guard: &VolumeGuard,
        target: &TargetPath,
        step: &Step,
    ) -> Result<(), StepError> {
        match step {
            Step::Record(record) => self.records.write(guard.volume(), record)?,
            Step::Forget => self.records.remove(guard.volume())?,
            Step::CreateDirectory => DirBuilder::new()
                .mode(TARGET_MODE)
                .create(target.path())
                .map_err(|error| failed("create", target, error))?,
            Step::Mount(spec, least) => {
                self.mounter.mount_at_least(spec, *least, target.path())?;
            }
            Step::Unmount => self.mounter.unmount(target.path())?,
            Step::RemoveDirectory => remove_directory(target)?,
            Step::Release(image) => self.mounter.release(image)?,
        }
        Ok(())
    }

    /// Rolls back what a failed publish has added. A failed unpublish is not rolled back: its retry continues.
    fn roll_back(
        &self,
        guard: &VolumeGuard,
        target: &TargetPath,
        before: Option<&VolumeRecord>,
        taken: &[Step],
    ) {
        // Newest first, so that the record stays until the directory is gone.
        let undone = taken.iter().rev().try_for_each(|step| match step {
            Step::CreateDirectory => self.step(guard, target, &Step::RemoveDirectory),
            Step::Record(new) if new.targets.len() > before.map_or(0, |old| old.targets.len()) => {
                match before {
                    Some(old) => self.step(guard, target, &Step::Record(Box::new(old.clone()))),
                    None => self.step(guard, target, &Step::Forget),
                }
            }
            _ => Ok(()),
        });
        if let Err(error) = undone {
            tracing::warn!("a failed publish was not rolled back completely, unpublish will do it: {error}");
        }
    }
}

/// Removes the target, which must be empty. Another process may have removed it first.
pub(super) fn remove_directory(target: &TargetPath) -> Result<(), StepError> {
    match fs::remove_dir(target.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", target, error)),
        _ => Ok(()),
    }
}

fn failed(step: &'static str, target: &TargetPath, error: io::Error) -> StepError {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "its parent must exist; the caller creates it",
        io::ErrorKind::DirectoryNotEmpty => {
            "something was written into it while nothing was mounted there; empty it by hand"
        }
        io::ErrorKind::ResourceBusy => "something is mounted on it in another mount namespace; try again",
        _ => "check the filesystem and the plugin's permissions",
    };
    StepError::Directory { step, path: target.path().to_owned(), error, remedy }
}
