//! Scrubbing: reading every object of the store again, slowly, so that a disk that rots is known before a pod reads it.
//!
//! A round goes through the directories of the objects in their order. After each, a cursor is written, so that a round
//! of weeks survives restarts. What reads nothing else (a page that is cached) tells nothing new; with fs-verity the
//! kernel checks whatever comes from the disk. At its end a round looks for what images name and is not there.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::image::verity::VerityDigest;

/// The cursor's file in the store.
const FILE: &str = "scrub";
/// Directories of objects.
const DIRECTORIES: u16 = 256;

/// How far a store's scrubbing is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubCursor {
    /// When the round began, seconds since 1970; `None` between two.
    pub began: Option<u64>,
    /// The next directory of objects, of 256.
    pub next: u16,
    /// Objects that this round has read.
    pub objects: u64,
    /// Bytes that it has read.
    pub bytes: u64,
    /// Damaged ones among the objects.
    pub damaged: u64,
    /// When the last full round ended, seconds since 1970.
    pub last_ended: Option<u64>,
}

/// What to do about the objects, one after the other. The first answer says whether to go on.
pub trait Scrubber {
    /// An object was read: so many bytes, in so long. Pacing is done here.
    fn read(&mut self, bytes: u64, took: Duration) -> bool;
    /// An object is damaged.
    fn damaged(&mut self, object: VerityDigest);
}

impl ScrubCursor {
    /// How long until a round is due, where there is to be one in each time `every`. A clock that was ahead delays none by
    /// more than that.
    pub fn due_in(&self, every: Duration, now: SystemTime) -> Duration {
        let Some(ended) = self.last_ended.filter(|_| self.began.is_none()) else { return Duration::ZERO };
        let ended = SystemTime::UNIX_EPOCH + Duration::from_secs(ended);
        match now.duration_since(ended) {
            Ok(ago) => every.saturating_sub(ago),
            Err(ahead) => every.min(ahead.duration()),
        }
    }
}

fn seconds() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}

impl Store {
    /// How far the scrubbing is. What cannot be read is a beginning.
    ///
    /// # Errors
    /// Those of reading a file.
    pub fn scrub_cursor(&self) -> Result<ScrubCursor, StoreError> {
        let bytes = self.disk.read(&self.scrub_file())?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
    }

    /// Goes on with the round, or begins one. Returns whether the round has ended; if not, `scrubber` has stopped it.
    /// Blocking, for as long as `scrubber` makes it.
    ///
    /// # Errors
    /// Those of reading directories and of writing the cursor. An object that cannot be opened for want of descriptors or
    /// memory ends the call as well; the next one begins with its directory.
    pub fn scrub(&self, scrubber: &mut dyn Scrubber) -> Result<bool, StoreError> {
        let mut cursor = self.scrub_cursor()?;
        if cursor.began.is_none() || cursor.next >= DIRECTORIES {
            let last_ended = cursor.last_ended;
            cursor = ScrubCursor { began: Some(seconds()), last_ended, ..ScrubCursor::default() };
        }
        while let Ok(byte) = u8::try_from(cursor.next) {
            if !self.scrub_directory(byte, &mut cursor, scrubber)? {
                return Ok(false);
            }
            cursor.next += 1;
            self.write_cursor(&cursor)?;
        }
        // What is not there is not met in any directory.
        for object in self.missing_objects()? {
            // Of something else in its place the directory has told.
            if self.parts.objects.all().examine(&object)?.1.is_some_and(|damage| damage.is_missing()) {
                cursor.damaged += 1;
                scrubber.damaged(object);
            }
        }
        self.metrics.scrubbed(seconds());
        tracing::info!(
            objects = cursor.objects,
            bytes = cursor.bytes,
            damaged = cursor.damaged,
            "all objects of the store were read again"
        );
        cursor.last_ended = Some(seconds());
        cursor.began = None;
        self.write_cursor(&cursor)?;
        Ok(true)
    }

    fn scrub_directory(
        &self,
        byte: u8,
        cursor: &mut ScrubCursor,
        scrubber: &mut dyn Scrubber,
    ) -> Result<bool, StoreError> {
        let objects = self.parts.objects.all();
        let mut names = Vec::new();
        objects.for_each_of(byte, &mut |digest, _| {
            names.push(digest);
            Ok::<(), StoreError>(())
        })?;
        // What has an object's name and is no file is a finding, too, and hides none of the others.
        names.extend(objects.odd_of(byte)?);
        for digest in names {
            let began = Instant::now();
            let (bytes, damage) = objects.examine_cold(&digest)?;
            cursor.objects += 1;
            cursor.bytes += bytes;
            self.metrics.scrub_read(bytes);
            // One that is missing has been removed since it was listed.
            if damage.is_some_and(|damage| !damage.is_missing()) {
                cursor.damaged += 1;
                scrubber.damaged(digest);
            }
            if !scrubber.read(bytes, began.elapsed()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Without a sync: after a power cut a round begins a little earlier.
    fn write_cursor(&self, cursor: &ScrubCursor) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(cursor).unwrap_or_default();
        self.disk.write_for_this_boot(&self.scrub_file(), &bytes)
    }

    fn scrub_file(&self) -> PathBuf {
        self.root().join(FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_due_when_the_last_one_is_old_enough() {
        let (day, now) =
            (Duration::from_secs(86_400), SystemTime::UNIX_EPOCH + Duration::from_secs(10_000_000));
        let ended = |ended| ScrubCursor { last_ended: Some(ended), ..ScrubCursor::default() };
        assert_eq!(ScrubCursor::default().due_in(day, now), Duration::ZERO, "there was none");
        assert_eq!(ended(10_000_000 - 3600).due_in(day, now), day - Duration::from_secs(3600));
        assert_eq!(ended(1).due_in(day, now), Duration::ZERO);
        // By a clock that was years ahead.
        assert_eq!(ended(100_000_000).due_in(day, now), day);
        let under_way = ScrubCursor { began: Some(1), ..ended(10_000_000) };
        assert_eq!(under_way.due_in(day, now), Duration::ZERO, "goes on at once");
    }
}
