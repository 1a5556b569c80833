//! A hold: what a pull or publish keeps from the sweep while it works. Everything else can go meanwhile.
//!
//! A holder notes what it relies on, and only then looks for it or makes it. What it finds after that stays until the
//! last clone of the hold is dropped, or its process is gone. Nothing is locked in between, so a hold may last as long as
//! a registry takes to answer. Notes are idempotent; those of objects cost a write(2) and two flock(2) each.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::disk::Disk;
use super::error::StoreError;
use super::held::Held;
use super::holds::Holds;
use super::image_record::ImageRecord;
use super::lock::{Gate, POLL, SWEEPING, StoreLock};
use super::markers::Marker;
use crate::image::objects::{Keep, ObjectError};
use crate::image::verity::VerityDigest;

/// Keeps what is noted in it. Cheap to clone; the last clone ends it.
#[derive(Debug, Clone)]
pub struct Hold(Arc<Holder>);

#[derive(Debug)]
struct Holder {
    disk: Disk,
    holds: Holds,
    store_lock: StoreLock,
    patience: Duration,
    /// Present once this holder has begun to write objects.
    marker: Mutex<Option<Marker>>,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    /// Made at the first note.
    file: Option<NotesFile>,
    /// What was noted, but for objects, which are many.
    noted: HashSet<Held>,
    /// Whether something was made that no image record names yet.
    unsettled: bool,
}

#[derive(Debug)]
struct NotesFile {
    /// Its lock says that the holder lives. Opened before anything was written, so `syncfs` through it reports every
    /// failed write-back since (Linux 5.8).
    file: Arc<File>,
    path: PathBuf,
    gate: Gate,
    length: u64,
    /// A write failed: what comes after it might not be read.
    broken: bool,
}

impl Hold {
    pub(super) fn new(disk: &Disk, holds: &Holds, store_lock: &StoreLock, patience: Duration) -> Self {
        Self(Arc::new(Holder {
            disk: disk.clone(),
            holds: holds.clone(),
            store_lock: store_lock.clone(),
            patience,
            marker: Mutex::default(),
            notes: Mutex::default(),
        }))
    }

    /// Notes that `things` are relied on. Only what is looked for *afterwards* is certain to stay.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if a sweep takes longer than [`super::Options::patience`], and those of writing a file.
    pub async fn keep(&self, things: &[Held]) -> Result<(), StoreError> {
        let deadline = tokio::time::Instant::now() + self.0.patience;
        while !self.0.note(things, false)? {
            if tokio::time::Instant::now() >= deadline {
                return Err(self.0.store_lock.busy(SWEEPING));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// [`Hold::keep`] for callers that may block; waits for a sweep's slice however long it takes.
    ///
    /// # Errors
    /// Those of writing a file.
    pub fn keep_blocking(&self, things: &[Held]) -> Result<(), StoreError> {
        self.0.note(things, true).map(drop)
    }

    /// Whether all that a mount of the image needs is noted. If the record was read after that, the image stays.
    pub fn keeps(&self, record: &ImageRecord) -> bool {
        let noted = &self.0.notes().noted;
        Held::of(record).iter().all(|thing| noted.contains(thing))
    }

    /// Makes sure that there is a file that was opened before anything is written, and a marker of the writes, made by
    /// `make` if there is none.
    pub(super) fn begin_writing(
        &self,
        make: impl FnOnce() -> Result<Marker, StoreError>,
    ) -> Result<(), StoreError> {
        self.file()?;
        let mut marker = self.0.marker.lock().unwrap_or_else(PoisonError::into_inner);
        // Held while the marker is made: no clone may write before it is durable.
        if marker.is_none() {
            *marker = Some(make()?);
        }
        Ok(())
    }

    /// Objects were noted to be looked at, so the end of this hold leaves nothing to be tidied up.
    pub(super) fn has_made_nothing(&self) {
        self.0.notes().unsettled = false;
    }

    /// Takes the marker away, once a sync has covered all that was written.
    pub(super) fn take_marker(&self) -> Option<Marker> {
        self.0.notes().unsettled = false;
        self.0.marker.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The file, to sync the filesystem through.
    pub(super) fn file(&self) -> Result<Arc<File>, StoreError> {
        let mut notes = self.0.notes();
        Ok(Arc::clone(&self.0.file_of(&mut notes)?.file))
    }
}

impl Holder {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file_of<'a>(&self, notes: &'a mut Notes) -> Result<&'a mut NotesFile, StoreError> {
        if notes.file.is_none() {
            let gate = self.store_lock.gate()?;
            let (file, path) = self.holds.make()?;
            notes.file = Some(NotesFile { file: Arc::new(file), path, gate, length: 0, broken: false });
        }
        // It was made above if there was none.
        notes.file.as_mut().ok_or_else(|| self.store_lock.busy(SWEEPING))
    }

    /// Writes what is not noted yet; false if a sweep is removing something and the caller does not `wait` for it.
    fn note(&self, things: &[Held], wait: bool) -> Result<bool, StoreError> {
        let mut notes = self.notes();
        let new: Vec<Held> = things.iter().filter(|thing| !notes.noted.contains(thing)).copied().collect();
        if new.is_empty() {
            return Ok(true);
        }
        let file = match self.file_of(&mut notes) {
            // Nothing can be removed either.
            Err(StoreError::ReadOnly { .. } | StoreError::OnlyRead { .. }) => {
                notes.noted.extend(new);
                return Ok(true);
            }
            file => file?,
        };
        self.disk.step("note in a hold below", self.disk.root(), || Ok(()))?;
        let noted = file.append(&new, wait);
        if !noted.map_err(|error| self.disk.error("note in a hold below", self.disk.root(), error))? {
            return Ok(false);
        }
        for thing in new {
            match thing {
                Held::Object(_) => notes.unsettled = true,
                other => drop(notes.noted.insert(other)),
            }
        }
        Ok(true)
    }
}

impl NotesFile {
    fn append(&mut self, new: &[Held], wait: bool) -> io::Result<bool> {
        if self.broken {
            return Err(io::Error::other("an earlier write failed"));
        }
        let entries: Vec<u8> = new.iter().flat_map(Held::encode).collect();
        let written = self.gate.pass(wait, || self.file.write_all_at(&entries, self.length));
        self.broken = written.is_err();
        if let Ok(true) = written {
            self.length += entries.len() as u64;
        }
        written
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let notes = self.notes.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = &notes.file else { return };
        if notes.unsettled {
            self.holds.abandon(&file.path);
        } else {
            self.holds.end(&file.path);
        }
        // Closing would not be enough: a program that is being started has a copy of the descriptor for a moment.
        let _ = rustix::fs::flock(&*file.file, rustix::fs::FlockOperation::Unlock);
    }
}

impl Keep for Hold {
    fn keep(&self, digest: &VerityDigest) -> Result<(), ObjectError> {
        let root = self.0.disk.root();
        self.keep_blocking(&[Held::Object(*digest)]).map_err(|error| match error {
            StoreError::Full { source, .. } | StoreError::Io { source, .. } => {
                ObjectError::from_io(source, "a note in a hold below", root)
            }
            StoreError::ReadOnly { .. } | StoreError::OnlyRead { .. } => {
                ObjectError::from_io(io::ErrorKind::ReadOnlyFilesystem.into(), "a note in a hold below", root)
            }
            other => ObjectError::from_io(io::Error::other(other), "a note in a hold below", root),
        })
    }
}

impl Held {
    /// What a mount of an image needs, whichever of its variants it is.
    pub fn of(record: &ImageRecord) -> Vec<Self> {
        let images = record.images().map(|own| Self::Composefs(own.image));
        std::iter::once(Self::Manifest(record.key())).chain(images).collect()
    }
}
