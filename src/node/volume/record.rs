//! One file per volume that is in use on this node: `<store>/volumes/<sha256 of the id>.json`.
//!
//! A record is written before the mount that it describes (an intent) and removed after the last one has
//! gone, so that at any instruction every mount has its record. Records must survive a killed process, not
//! a power cut, which takes the mounts as well: they are renamed into place without fsync and carry the boot
//! id. `<store>/volumes/boot` says for which boot the directory was last put in order; a record that a power
//! cut has torn can therefore be told from damage.
//!
//! Who claims which target is kept in memory as well, so that a publish need not read every record. This
//! process is the only one that writes here.
//!
//! The sweep of the store reads `image` and keeps that image; it writes nothing here.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::image::digest::Digest;
use crate::image::store::Integrity;
use crate::image::verity::VerityDigest;
use crate::kind::Kind;
use crate::volume::access::AccessMode;
use crate::volume::id::VolumeId;

/// The format that this version reads and writes.
const FORMAT: u32 = 1;

/// What a volume on this node is and where it is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    format: u32,
    /// The volume's id.
    pub volume_id: String,
    /// Digest of the manifest: what the sweep keeps.
    pub image: Digest,
    /// The composefs image that is mounted.
    pub composefs: VerityDigest,
    /// Bytes of the image's files.
    pub bytes: u64,
    /// Inodes of the image.
    pub inodes: u64,
    /// What was asked for when the image was resolved.
    pub request: Requested,
    /// The boot during which the image was resolved.
    pub boot: String,
    /// Where the volume is staged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<PathBuf>,
    /// Where the volume is, or is about to be, published.
    pub targets: Vec<Target>,
}

/// The part of a volume's attributes that decides what it shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// The image as the user wrote it.
    pub image: String,
    /// The sub-directory, empty for the root.
    pub path: PathBuf,
    /// The platform, if not this node's own.
    pub platform: Option<String>,
}

/// One published mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Where.
    pub path: PathBuf,
    /// Whether programs in it may not be executed.
    pub noexec: bool,
    /// The access mode asked for.
    pub mode: AccessMode,
    /// The integrity level that was demanded of the mount.
    #[serde(default)]
    pub least: Integrity,
}

/// An image that was found for a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pinned {
    /// Digest of the manifest.
    pub image: Digest,
    /// The composefs image.
    pub composefs: VerityDigest,
    /// Bytes of the image's files.
    pub bytes: u64,
    /// Inodes of the image.
    pub inodes: u64,
}

impl VolumeRecord {
    /// A volume that is in use nowhere yet.
    pub fn new(id: &VolumeId, request: Requested, image: Pinned, boot: &str) -> Self {
        let Pinned { image, composefs, bytes, inodes } = image;
        let volume_id = id.as_str().to_owned();
        let boot = boot.to_owned();
        let targets = Vec::new();
        Self {
            format: FORMAT,
            volume_id,
            image,
            composefs,
            bytes,
            inodes,
            request,
            boot,
            staged: None,
            targets,
        }
    }

    /// Parses what is in the file `path`.
    ///
    /// # Errors
    /// [`RecordError::Damaged`] for what is no record, [`RecordError::Format`] for one of another version.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let damaged =
            |error: serde_json::Error| RecordError::Damaged { path: path.to_owned(), why: error.to_string() };
        let Versioned { format } = serde_json::from_slice(bytes).map_err(damaged)?;
        if format != FORMAT {
            return Err(RecordError::Format { path: path.to_owned(), found: format });
        }
        serde_json::from_slice(bytes).map_err(damaged)
    }

    /// The image this volume shows.
    pub fn pinned(&self) -> Pinned {
        Pinned { image: self.image, composefs: self.composefs, bytes: self.bytes, inodes: self.inodes }
    }

    /// The entry for `path`.
    pub fn target(&self, path: &Path) -> Option<&Target> {
        self.targets.iter().find(|target| target.path == path)
    }

    /// Whether the volume is in use nowhere.
    pub fn is_idle(&self) -> bool {
        self.staged.is_none() && self.targets.is_empty()
    }
}

/// A record's file, and what it holds if that can be read.
pub type Listed = (PathBuf, Result<VolumeRecord, RecordError>);

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A system call failed.
    #[error("cannot {step} the volume record {}: {error}; check the filesystem that holds it", path.display())]
    System {
        /// What was tried, a verb.
        step: &'static str,
        /// The record.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// Its contents make no sense.
    #[error(
        "volume record {} is damaged ({why}); unmount what the volume has mounted, then remove the file",
        path.display()
    )]
    Damaged {
        /// The record.
        path: PathBuf,
        /// What the parser said.
        why: String,
    },
    /// It was written by another version.
    #[error(
        "volume record {} has format {found} and this version reads format 1; run the version that wrote it",
        path.display()
    )]
    Format {
        /// The record.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

impl RecordError {
    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::System { error, .. } if error.kind() == io::ErrorKind::StorageFull => Kind::Exhausted,
            Self::System { error, .. } if error.kind() == io::ErrorKind::QuotaExceeded => Kind::Exhausted,
            Self::System { .. } | Self::Format { .. } => Kind::Unsupported,
            Self::Damaged { .. } => Kind::Corrupt,
        }
    }

    /// Whether the file can be what a power cut leaves of a record.
    pub(super) fn is_torn(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}

/// The directory of records.
#[derive(Debug)]
pub struct Records {
    directory: PathBuf,
    claims: Mutex<HashMap<PathBuf, Claim>>,
}

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
            if let Ok(record) = record {
                records.claim(&record);
            }
        }
        Ok(records)
    }

    /// The volume whose record claims `target` during `boot`.
    pub fn claimant(&self, target: &Path, boot: &str) -> Option<String> {
        let claims = self.claims();
        claims.get(target).filter(|claim| claim.boot == boot).map(|claim| claim.volume.clone())
    }

    /// The record of a volume; `None` where it is in use nowhere.
    ///
    /// # Errors
    /// It cannot be read, or not be understood.
    pub fn read(&self, id: &VolumeId) -> Result<Option<VolumeRecord>, RecordError> {
        let path = self.path(id);
        let record = read(&path)?;
        match record {
            Some(record) if record.volume_id != id.as_str() => {
                let why = format!("it is about volume {:?}", record.volume_id);
                Err(RecordError::Damaged { path, why })
            }
            record => Ok(record),
        }
    }

    /// Writes the record of a volume, atomically for everybody who reads it while the system runs. The
    /// caller holds the volume's guard.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, id: &VolumeId, record: &VolumeRecord) -> Result<(), RecordError> {
        let path = self.path(id);
        let failed = |step| move |error| RecordError::System { step, path, error };
        let text = serde_json::to_vec(record).map_err(|error| failed("encode")(error.into()))?;
        self.replace(&self.path(id), &text)?;
        self.claim(record);
        Ok(())
    }

    /// Removes the record of a volume; none is fine.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self, id: &VolumeId) -> Result<(), RecordError> {
        remove(&self.path(id))?;
        self.claims().retain(|_, claim| claim.volume != id.as_str());
        Ok(())
    }

    /// Every record with its file, in no order; those that cannot be read come as errors.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn all(&self) -> Result<Vec<Listed>, RecordError> {
        let failed = |error| RecordError::System { step: "list", path: self.directory.clone(), error };
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                match read(&path) {
                    Ok(None) => {}
                    Ok(Some(record)) => records.push((path, Ok(record))),
                    Err(error) => records.push((path, Err(error))),
                }
            }
        }
        Ok(records)
    }

    /// Removes what a process that was killed between writing and renaming has left.
    fn remove_leftovers(&self) -> Result<(), RecordError> {
        let failed = |error| RecordError::System { step: "list", path: self.directory.clone(), error };
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// The boot for which the directory was last put in order.
    pub(super) fn boot(&self) -> Option<String> {
        fs::read_to_string(self.directory.join("boot")).ok()
    }

    pub(super) fn set_boot(&self, boot: &str) -> Result<(), RecordError> {
        self.replace(&self.directory.join("boot"), boot.as_bytes())
    }

    pub(super) fn discard(&self, file: &Path) -> Result<(), RecordError> {
        remove(file)
    }

    fn claim(&self, record: &VolumeRecord) {
        let mut claims = self.claims();
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

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), RecordError> {
        let failed = |step| move |error| RecordError::System { step, path: path.to_owned(), error };
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, bytes).map_err(failed("write"))?;
        fs::rename(&temporary, path).map_err(failed("rename"))
    }
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
        Ok(bytes) => VolumeRecord::parse(path, &bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RecordError::System { step: "read", path: path.to_owned(), error }),
    }
}

#[cfg(test)]
mod tests;
