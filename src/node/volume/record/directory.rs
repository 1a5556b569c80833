//! The directory of records: read, written and removed one by one.
//!
//! An index in memory says which volume claims which target, so that a publish does not read every record. It stays
//! correct because no other process writes here.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{RecordError, VolumeRecord};
use crate::durable_file::{self, Step};
use crate::volume::id::VolumeId;

/// A record's file, and its record if that can be read.
type Listed = (PathBuf, Result<VolumeRecord, RecordError>);

/// The directory of records.
#[derive(Debug)]
pub struct Records {
    directory: PathBuf,
    /// The index: one claim per target.
    claims: Mutex<HashMap<PathBuf, Claim>>,
}

/// The volume that a target belongs to, and the boot during which it was recorded.
#[derive(Debug)]
struct Claim {
    volume: String,
    boot: String,
}

impl Records {
    /// The records below `directory`, which is created if missing.
    ///
    /// # Errors
    /// The directory cannot be created or listed.
    pub fn open(directory: PathBuf) -> Result<Self, RecordError> {
        fs::create_dir_all(&directory).map_err(|error| RecordError::System {
            step: "create the directory of",
            path: directory.clone(),
            error,
        })?;
        let records = Self { directory, claims: Mutex::default() };
        records.remove_leftovers()?;
        for (_, record) in records.all()? {
            // The recovery reports records that cannot be read.
            if let Ok(record) = record {
                records.claim(&record);
            }
        }
        Ok(records)
    }

    /// The volume whose record claims `target` during `boot`.
    pub(crate) fn claimant(&self, target: &Path, boot: &str) -> Option<String> {
        let claims = self.claims();
        claims.get(target).filter(|claim| claim.boot == boot).map(|claim| claim.volume.clone())
    }

    /// The volumes that claim a target below `directory`.
    pub(crate) fn claimants_below(&self, directory: &Path) -> BTreeSet<VolumeId> {
        let claims = self.claims();
        let below = claims.iter().filter(|(target, _)| target.starts_with(directory));
        below.filter_map(|(_, claim)| claim.volume.parse().ok()).collect()
    }

    /// Whether the volume is known to claim another target than `path`.
    pub(crate) fn claims_other(&self, id: &VolumeId, path: &Path) -> bool {
        self.claims().iter().any(|(target, claim)| claim.volume == id.as_str() && target != path)
    }

    /// Lets go of a target whose record cannot be changed.
    pub(crate) fn disclaim(&self, target: &Path) {
        self.claims().remove(target);
    }

    /// The record of a volume; `None` if the volume is not in use.
    ///
    /// # Errors
    /// The record cannot be read or parsed.
    pub(crate) fn read(&self, id: &VolumeId) -> Result<Option<VolumeRecord>, RecordError> {
        read(&self.path(id))
    }

    /// Writes the record of a volume, atomically for every reader while the system runs. The caller holds the volume's
    /// guard.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(&self, id: &VolumeId, record: &VolumeRecord) -> Result<(), RecordError> {
        let path = self.path(id);
        let failed = |step| move |error| RecordError::System { step, path, error };
        let text = serde_json::to_vec(record).map_err(|error| failed("encode")(error.into()))?;
        replace(&self.path(id), &text)?;
        self.claim(record);
        Ok(())
    }

    /// Removes the record of a volume. Succeeds if there is none.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub(crate) fn remove(&self, id: &VolumeId) -> Result<(), RecordError> {
        remove(&self.path(id))?;
        self.claims().retain(|_, claim| claim.volume != id.as_str());
        Ok(())
    }

    /// Every record with its file, in no particular order. A record that cannot be read is an error in the list.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub(crate) fn all(&self) -> Result<Vec<Listed>, RecordError> {
        let failed = |error| RecordError::System { step: "list", path: self.directory.clone(), error };
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            // Something else than a file is not a record, and a pipe would be waited for.
            let is_file = entry.file_type().is_ok_and(|sort| sort.is_file());
            if is_file && path.extension().is_some_and(|extension| extension == "json") {
                match read(&path) {
                    // Removed since the directory was listed.
                    Ok(None) => {}
                    Ok(Some(record)) => records.push((path, Ok(record))),
                    Err(error) => records.push((path, Err(error))),
                }
            }
        }
        Ok(records)
    }

    /// Removes the temporary files of a process that was killed between writing and renaming.
    fn remove_leftovers(&self) -> Result<(), RecordError> {
        let failed = |error| RecordError::System { step: "list", path: self.directory.clone(), error };
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let is_file = entry.file_type().is_ok_and(|sort| sort.is_file());
            if is_file && path.extension().is_some_and(|extension| extension == "tmp") {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// The boot id of the last recovery.
    pub(in crate::node::volume) fn boot(&self) -> Option<String> {
        fs::read_to_string(self.directory.join("boot")).ok()
    }

    pub(in crate::node::volume) fn set_boot(&self, boot: &str) -> Result<(), RecordError> {
        replace(&self.directory.join("boot"), boot.as_bytes())
    }

    pub(in crate::node::volume) fn discard(&self, file: &Path) -> Result<(), RecordError> {
        remove(file)
    }

    fn claim(&self, record: &VolumeRecord) {
        let mut claims = self.claims();
        // The new record replaces every earlier claim of its volume.
        claims.retain(|_, claim| claim.volume != record.volume_id);
        for target in &record.targets {
            let claim = Claim { volume: record.volume_id.clone(), boot: record.boot.clone() };
            claims.insert(target.path.clone(), claim);
        }
    }

    fn claims(&self) -> MutexGuard<'_, HashMap<PathBuf, Claim>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, id: &VolumeId) -> PathBuf {
        self.directory.join(format!("{}.json", id.file_stem()))
    }
}

/// Without fsync: a record describes mounts, which a power cut takes as well (ADR 0002).
fn replace(path: &Path, bytes: &[u8]) -> Result<(), RecordError> {
    durable_file::replace_without_sync(path, path.with_extension("tmp"), bytes).map_err(|failed| {
        let step = if failed.step == Step::Rename { "rename" } else { "write" };
        RecordError::System { step, path: path.to_owned(), error: failed.source }
    })
}

fn remove(path: &Path) -> Result<(), RecordError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RecordError::System { step: "remove", path: path.to_owned(), error })
        }
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<Option<VolumeRecord>, RecordError> {
    match fs::read(path) {
        Ok(bytes) => {
            let record = VolumeRecord::parse(path, &bytes)?;
            // A copy of another volume's record would claim that volume's targets.
            let named = record.volume_id.parse().is_ok_and(|id: VolumeId| {
                path.file_stem().is_some_and(|stem| stem == id.file_stem().as_str())
            });
            if named {
                return Ok(Some(record));
            }
            let why = format!("it is about volume {:?}", record.volume_id);
            Err(RecordError::Damaged { path: path.to_owned(), why })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RecordError::System { step: "read", path: path.to_owned(), error }),
    }
}
