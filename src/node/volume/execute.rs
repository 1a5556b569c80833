//! Looking at what is there, and carrying out plans: dull on purpose, blocking throughout.
//!
//! Everything here runs inside one `spawn_blocking` closure that owns the volume's guard.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use super::guard::VolumeGuard;
use super::plan::{Seen, Step};
use super::record::{RecordError, Records, VolumeRecord};
use super::target::{Directory, TargetPath};
use crate::kind::Kind;
use crate::node::mount::{MountError, Mounter};

/// Rights of a target until something is mounted on it: the kubelet's own for volume directories.
const TARGET_MODE: u32 = 0o750;

/// Why a volume could not be looked at, or a step not be taken.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The mount.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The target directory.
    #[error("cannot {step} target {}: {error}; {remedy}", path.display())]
    Directory {
        /// What was tried, a verb.
        step: &'static str,
        /// The target.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
        /// What to do.
        remedy: &'static str,
    },
}

impl StepError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Record(error) => error.kind(),
            Self::Mount(error) => error.kind(),
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

/// What looking and stepping need.
#[derive(Debug, Clone, Copy)]
pub struct Io<'a> {
    /// The records.
    pub records: &'a Records,
    /// The mounts.
    pub mounter: &'a dyn Mounter,
    /// The boot that is running.
    pub boot: &'a str,
}

impl Io<'_> {
    /// Sees how things stand for a volume at a target.
    ///
    /// # Errors
    /// The record is unreadable, or something that is not ours is mounted there.
    pub fn look(&self, guard: &VolumeGuard, target: &TargetPath) -> Result<Seen, StepError> {
        let record = self.records.read(guard.volume())?;
        let directory = target.look().map_err(|error| self.failed("look at", target, error))?;
        let mounted = match directory {
            Directory::Missing | Directory::Other => None,
            Directory::Empty | Directory::Filled => self.mounter.mounted(target.path())?,
        };
        let owner =
            self.records.claimant(target.path(), self.boot).filter(|id| id != guard.volume().as_str());
        Ok(Seen { record, directory, mounted, owner, boot: self.boot.to_owned() })
    }

    /// Sees a volume's record only: staging mounts nothing.
    ///
    /// # Errors
    /// The record is unreadable.
    pub fn look_at_record(&self, guard: &VolumeGuard) -> Result<Seen, StepError> {
        let record = self.records.read(guard.volume())?;
        let boot = self.boot.to_owned();
        Ok(Seen { record, directory: Directory::Missing, mounted: None, owner: None, boot })
    }

    /// Takes the steps of a plan in order. Where one fails, what the earlier ones have added is taken back,
    /// and nothing else: what was there before, or belongs to others, stays.
    ///
    /// # Errors
    /// The step's.
    pub fn run(
        &self,
        guard: &VolumeGuard,
        target: &TargetPath,
        before: Option<&VolumeRecord>,
        steps: &[Step],
    ) -> Result<(), StepError> {
        for (at, step) in steps.iter().enumerate() {
            if let Err(error) = self.step(guard, target, step) {
                self.take_back(guard, target, before, &steps[..at]);
                return Err(error);
            }
        }
        Ok(())
    }

    fn step(&self, guard: &VolumeGuard, target: &TargetPath, step: &Step) -> Result<(), StepError> {
        match step {
            Step::Record(record) => self.records.write(guard.volume(), record)?,
            Step::Forget => self.records.remove(guard.volume())?,
            Step::CreateDirectory => DirBuilder::new()
                .mode(TARGET_MODE)
                .create(target.path())
                .map_err(|error| self.failed("create", target, error))?,
            Step::Mount(spec, least) => {
                self.mounter.mount_at_least(spec, *least, target.path())?;
            }
            Step::Unmount => self.mounter.unmount(target.path())?,
            Step::RemoveDirectory => match fs::remove_dir(target.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(self.failed("remove", target, error));
                }
                _ => {}
            },
            Step::Release(image) => self.mounter.release(image)?,
        }
        Ok(())
    }

    /// Undoes what a failed publish has added. Unpublishing takes nothing back: its next call goes on.
    fn take_back(
        &self,
        guard: &VolumeGuard,
        target: &TargetPath,
        before: Option<&VolumeRecord>,
        taken: &[Step],
    ) {
        let undone = taken.iter().rev().try_for_each(|step| match step {
            Step::CreateDirectory => self.step(guard, target, &Step::RemoveDirectory),
            Step::Record(new) if new.targets.len() > before.map_or(0, |old| old.targets.len()) => {
                match before {
                    Some(old) => self.step(guard, target, &Step::Record(old.clone())),
                    None => self.step(guard, target, &Step::Forget),
                }
            }
            _ => Ok(()),
        });
        if let Err(error) = undone {
            tracing::warn!("a failed publish was not taken back entirely, unpublish will: {error}");
        }
    }

    fn failed(&self, step: &'static str, target: &TargetPath, error: io::Error) -> StepError {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "its parent must exist, the caller creates it",
            io::ErrorKind::DirectoryNotEmpty => {
                "something was written into it while nothing was mounted there; empty it by hand"
            }
            io::ErrorKind::ResourceBusy => "something is mounted on it in another mount namespace; try again",
            _ => "check the filesystem and the rights of the plugin",
        };
        StepError::Directory { step, path: target.path().to_owned(), error, remedy }
    }
}
