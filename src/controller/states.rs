//! The provisioned volumes: one durable file per volume, `<state>/controller/<sha256 of the id>.json`.
//!
//! The file makes CreateVolume idempotent: a retry with the same name gets the digest of the first call, even if the tag
//! has moved. If the directory does not survive the controller (an `emptyDir`), a retry after a restart resolves the tag
//! again. Once the external-provisioner has written the PersistentVolume, that has the pinned digest in any case.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable_file::{self, Step, StepError, Steps};
use crate::kind::Kind;
use crate::volume::id::VolumeId;

/// The format that this version reads and writes.
const FORMAT: u32 = 1;

/// One provisioned volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    format: u32,
    /// The name it was created with.
    pub name: String,
    /// The requested attributes.
    pub parameters: BTreeMap<String, String>,
    /// The answer: the same attributes with the image pinned.
    pub context: BTreeMap<String, String>,
}

impl State {
    /// The state of a volume whose image was resolved.
    pub(crate) fn new(
        name: &str,
        parameters: BTreeMap<String, String>,
        context: BTreeMap<String, String>,
    ) -> Self {
        Self { format: FORMAT, name: name.to_owned(), parameters, context }
    }

    /// Parses the contents of the file `path`.
    ///
    /// # Errors
    /// [`StateError::Damaged`] if it is not a state of this version.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, StateError> {
        let damaged = |why| StateError::Damaged { path: path.to_owned(), why };
        let state: Self = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if state.format != FORMAT {
            return Err(damaged(format!("format {} instead of {FORMAT}", state.format)));
        }
        Ok(state)
    }
}

/// Why a state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A system call failed.
    #[error("cannot {step} {}: {error}; check the controller's state directory", path.display())]
    System {
        /// The attempted step, a verb.
        step: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The contents are not a state of this version.
    #[error(
        "volume state {} cannot be read ({why}); if no PersistentVolume has this volume, remove the file",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl StateError {
    /// The thread that worked on a state ended without an answer.
    pub(super) fn lost(states: &States, ended: &dyn std::fmt::Display) -> Self {
        let error = io::Error::other(ended.to_string());
        Self::System { step: "finish the work in", path: states.directory.clone(), error }
    }

    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::System { error, .. } if error.kind() == io::ErrorKind::StorageFull => Kind::Exhausted,
            Self::System { .. } => Kind::Unsupported,
            Self::Damaged { .. } => Kind::Corrupt,
        }
    }
}

/// The directory of states. Blocking, a few small files at a time.
#[derive(Debug, Clone)]
pub struct States {
    directory: PathBuf,
}

impl States {
    /// The states in `directory`, which is created if missing.
    ///
    /// # Errors
    /// The directory cannot be created.
    pub fn open(directory: PathBuf) -> Result<Self, StateError> {
        fs::create_dir_all(&directory).map_err(failed("create", &directory))?;
        Ok(Self { directory })
    }

    /// The state of a volume; `None` if the volume is unknown.
    ///
    /// # Errors
    /// The file cannot be read or parsed.
    pub(crate) fn read(&self, id: &VolumeId) -> Result<Option<State>, StateError> {
        let path = self.path(id);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        State::parse(&path, &bytes).map(Some)
    }

    /// Writes the state of a volume, durably.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(&self, id: &VolumeId, state: &State) -> Result<(), StateError> {
        let path = self.path(id);
        let bytes = serde_json::to_vec(state).map_err(|error| failed("encode", &path)(error.into()))?;
        durable_file::replace(&path, path.with_extension("tmp"), &bytes).map_err(step_failed)
    }

    /// Removes the state of a volume. Succeeds if the volume is unknown.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(crate) fn remove(&self, id: &VolumeId) -> Result<(), StateError> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Ok(()) => self.sync(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("remove", &path)(error)),
        }
    }

    fn sync(&self) -> Result<(), StateError> {
        durable_file::sync_directory(&self.directory, &Steps::default()).map_err(step_failed)
    }

    fn path(&self, id: &VolumeId) -> PathBuf {
        self.directory.join(format!("{}.json", id.file_stem()))
    }
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |error| StateError::System { step, path, error }
}

fn step_failed(failed: StepError) -> StateError {
    let step = match failed.step {
        Step::Rename => "rename",
        Step::SyncDirectory => "sync",
        other => other.doing(),
    };
    StateError::System { step, path: failed.path, error: failed.source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let directory = tempfile::tempdir().unwrap();
        let states = States::open(directory.path().join("controller")).unwrap();
        let id: VolumeId = "pvc-1".parse().unwrap();
        assert_eq!(states.read(&id).unwrap(), None);
        let image = |text: &str| BTreeMap::from([("image".to_owned(), text.to_owned())]);
        let state = State::new("pvc-1", image("r.example/a:1"), image("r.example/a:1@sha256:0"));
        states.write(&id, &state).unwrap();
        assert_eq!(states.read(&id).unwrap(), Some(state));
        states.remove(&id).unwrap();
        states.remove(&id).unwrap();
        assert_eq!(states.read(&id).unwrap(), None);
    }

    #[test]
    fn damage_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let states = States::open(directory.path().to_owned()).unwrap();
        let id: VolumeId = "pvc-1".parse().unwrap();
        for bad in ["", r#"{"format":2,"name":"","parameters":{},"context":{}}"#] {
            fs::write(states.path(&id), bad).unwrap();
            assert_eq!(states.read(&id).unwrap_err().kind(), Kind::Corrupt);
        }
    }
}
