//! Whether names may have come to a directory, or gone, since it was last read: so that a sweep, which marks in each of its
//! slices while nobody can note anything, lists only what has changed.
//!
//! All records are renamed into their place, so each that comes, is replaced or goes changes the directory's times. Times are
//! those of the kernel's last tick, and where inodes are small (ext4 with 128 bytes) of the last second. A directory that was
//! changed so shortly before it was read is read again: what came after it was read may bear the same time. A clock that is
//! set back would have to give the same nanosecond again.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::disk::Disk;
use super::error::StoreError;

/// More than any tick of the kernel's clock.
const TICK: Duration = Duration::from_millis(100);
/// More than the grain of times without a fraction.
const WHOLE_SECONDS: Duration = Duration::from_secs(2);

/// What one directory, or several of which one may be missing, looked like when it was last read.
#[derive(Debug, Default)]
pub(super) struct Seen(Option<Vec<Option<State>>>);

/// Inode, and the times of its last changes in seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    /// Reads the directories by `read`, unless they are as they were when it last succeeded. Says whether it has.
    ///
    /// # Errors
    /// Those of looking at the directories, and of `read`: then they are read again the next time.
    pub(super) fn read_if_changed(
        &mut self,
        disk: &Disk,
        directories: &[&Path],
        read: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<bool, StoreError> {
        // Before they are looked at, and that before they are read.
        let now = SystemTime::now();
        let look =
            |directory: &&Path| State::of(directory).map_err(|error| disk.error("inspect", directory, error));
        let found: Vec<_> = directories.iter().map(look).collect::<Result<_, _>>()?;
        if self.0.as_ref() == Some(&found) {
            return Ok(false);
        }
        self.0 = None;
        read()?;
        let is_settled = found.iter().flatten().all(|state| state.is_settled(now));
        self.0 = is_settled.then_some(found);
        Ok(true)
    }
}

impl State {
    /// `None` if there is no such directory.
    fn of(directory: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(directory) {
            Ok(found) => Ok(Some(Self {
                inode: found.ino(),
                modified: (found.mtime(), found.mtime_nsec()),
                changed: (found.ctime(), found.ctime_nsec()),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a change from `now` on has another time. Not of a directory from the future: the clock was set back.
    fn is_settled(&self, now: SystemTime) -> bool {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let is_whole = self.modified.1 == 0 || self.changed.1 == 0;
        let limit = since.saturating_sub(if is_whole { WHOLE_SECONDS } else { TICK });
        let limit = (i64::try_from(limit.as_secs()).unwrap_or(i64::MAX), i64::from(limit.subsec_nanos()));
        self.modified < limit && self.changed < limit
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::durable_file::Steps;

    fn set_times(directory: &Path, ago: Duration) {
        fs::File::open(directory).unwrap().set_modified(SystemTime::now() - ago).unwrap();
    }

    #[test]
    fn what_has_changed_is_read_and_what_has_just_changed_is_read_again() {
        let (root, reads) = (tempfile::tempdir().unwrap(), Cell::new(0));
        let disk = Disk::new(root.path(), Steps::default());
        let (here, absent) = (root.path().join("here"), root.path().join("absent"));
        fs::create_dir(&here).unwrap();
        let mut seen = Seen::default();
        let mut look = || {
            let read = || {
                reads.set(reads.get() + 1);
                Ok(())
            };
            seen.read_if_changed(&disk, &[&here, &absent], read).unwrap()
        };
        // Made this moment: another name might come at the same time.
        assert!(look() && look());
        // Its ctime says so as long as that is true.
        set_times(&here, Duration::from_secs(3600));
        std::thread::sleep(2 * TICK);
        assert!(look() && !look() && !look());
        fs::write(here.join("x"), "").unwrap();
        assert!(look());
        std::thread::sleep(2 * TICK);
        assert!(look() && !look());
        fs::rename(here.join("x"), here.join("y")).unwrap();
        assert!(look());
        fs::create_dir(&absent).unwrap();
        std::thread::sleep(2 * TICK);
        assert!(look() && !look());
        // Another directory in its place.
        fs::rename(&here, root.path().join("old")).unwrap();
        fs::create_dir(&here).unwrap();
        assert!(look());
        assert_eq!(reads.get(), 8);
    }

    #[test]
    fn what_failed_is_read_again() {
        let root = tempfile::tempdir().unwrap();
        let disk = Disk::new(root.path(), Steps::default());
        let mut seen = Seen::default();
        std::thread::sleep(2 * TICK);
        let fails = || Err(StoreError::Blocked("x".to_owned()));
        assert!(seen.read_if_changed(&disk, &[root.path()], fails).is_err());
        assert!(seen.read_if_changed(&disk, &[root.path()], || Ok(())).unwrap());
        assert!(!seen.read_if_changed(&disk, &[root.path()], fails).unwrap());
    }

    #[test]
    fn a_directory_from_the_future_is_read_each_time() {
        let state = |seconds| State { inode: 1, modified: (seconds, 7), changed: (5, 7) };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        assert!(state(99).is_settled(now) && !state(100).is_settled(now) && !state(200).is_settled(now));
        // The filesystem may know whole seconds only.
        let whole = |seconds| State { modified: (seconds, 0), ..state(seconds) };
        assert!(whole(97).is_settled(now) && !whole(98).is_settled(now));
    }
}
