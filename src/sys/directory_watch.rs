//! Directories watched for new files (inotify(7)).
//!
//! A watch ends by itself when its directory is removed.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// Room for at least 15 events with the longest names.
const BUFFER: usize = 4096;

/// The watched directories.
#[derive(Debug)]
pub struct DirectoryWatch {
    inotify: AsyncFd<OwnedFd>,
    directories: HashMap<i32, PathBuf>,
}

/// Something has happened in the watched directories.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// A file was written or moved into this directory.
    File(PathBuf, OsString),
    /// The kernel had more events than it keeps; anything may have happened.
    Lost,
}

impl DirectoryWatch {
    /// Watches nothing yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// `EMFILE`: the limit `fs.inotify.max_user_instances` is reached. Others are those of epoll_ctl(2).
    pub fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        // SAFETY: an `OwnedFd` keeps its one descriptor until it is dropped, and nothing else closes it.
        let inotify = unsafe { AsyncFd::register(inotify) }?;
        Ok(Self { inotify, directories: HashMap::new() })
    }

    /// Watches `directory` as well, which may be watched already.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`: there is no such directory. `ENOSPC`: the limit `fs.inotify.max_user_watches` is reached.
    pub fn add(&mut self, directory: &Path) -> Result<(), Errno> {
        let wanted =
            WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW;
        let watch = inotify::add_watch(self.inotify.get_ref(), directory, wanted)?;
        self.directories.insert(watch, directory.to_owned());
        Ok(())
    }

    /// Whether `directory` is watched.
    pub fn has(&self, directory: &Path) -> bool {
        self.directories.values().any(|watched| watched == directory)
    }

    /// The watched directories.
    pub fn directories(&self) -> Vec<PathBuf> {
        self.directories.values().cloned().collect()
    }

    /// Waits for events. Dropping the future loses none.
    ///
    /// # Errors
    /// Those of read(2).
    pub async fn next(&mut self) -> io::Result<Vec<Seen>> {
        loop {
            let mut ready = self.inotify.readable().await?;
            let mut buffer = [MaybeUninit::uninit(); BUFFER];
            let (mut events, mut drained) = (Vec::new(), false);
            let mut reader = Reader::new(ready.get_inner(), &mut buffer);
            loop {
                match reader.next() {
                    Ok(event) => {
                        let name =
                            event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                        events.push((event.wd(), event.events(), name));
                    }
                    Err(Errno::AGAIN) => drained = true,
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
                // What is left comes with the next call.
                if drained || reader.is_buffer_empty() {
                    break;
                }
            }
            if drained {
                ready.clear_ready();
            }
            drop(ready);
            let seen: Vec<Seen> = events.into_iter().filter_map(|event| self.seen(event)).collect();
            if !seen.is_empty() {
                return Ok(seen);
            }
        }
    }

    fn seen(&mut self, (watch, events, name): (i32, ReadFlags, Option<OsString>)) -> Option<Seen> {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            return Some(Seen::Lost);
        }
        if events.contains(ReadFlags::IGNORED) {
            self.directories.remove(&watch);
            return None;
        }
        Some(Seen::File(self.directories.get(&watch)?.clone(), name?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn new_files_are_seen_until_the_directory_goes() {
        let (directory, mut watch) = (tempfile::tempdir().unwrap(), DirectoryWatch::new().unwrap());
        let pod = directory.path().join("pod");
        assert_eq!(watch.add(&pod), Err(Errno::NOENT));
        std::fs::create_dir(&pod).unwrap();
        watch.add(&pod).unwrap();
        watch.add(&pod).unwrap();
        std::fs::create_dir(pod.join("volumes")).unwrap();
        std::fs::write(directory.path().join("elsewhere"), "x").unwrap();
        std::fs::rename(directory.path().join("elsewhere"), pod.join("userns")).unwrap();
        assert_eq!(watch.next().await.unwrap(), [Seen::File(pod.clone(), "userns".into())]);
        assert!(watch.has(&pod) && !watch.has(directory.path()));
        std::fs::remove_dir_all(&pod).unwrap();
        std::fs::create_dir(&pod).unwrap();
        watch.add(&pod).unwrap();
        std::fs::write(pod.join("userns"), "y").unwrap();
        assert_eq!(watch.next().await.unwrap(), [Seen::File(pod.clone(), "userns".into())]);
        assert_eq!(watch.directories().len(), 1, "the first directory is forgotten");
    }
}
