//! Reading images ahead, when their base mounts are made.
//!
//! EROFS reads the metadata of a file-backed image page by page as pods look at files, thousands of single requests on a
//! cold node. An image is small (15 MB for 50,000 files) and all of it is read when all files are opened, so its pages may
//! as well come in large requests. They are ordinary page cache, which the kernel drops when it needs the memory.
//!
//! * Once per base mount and not per publish, in a thread of its own: no publish waits for it. Mounts that pods write to have
//!   superblocks of their own, and ask for what is mostly here already; of these, one is enough.
//! * At most [`MOST`] bytes of an image, one image at a time, and at most [`WAITING`] images wait; others are left out.
//! * It is no more than advice: whatever fails is in the debug log, and the mount works all the same.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{Advice, Mode, OFlags};
use rustix::io::Errno;

use super::context::proc_path;
use super::object::ImageFile;
use crate::image::verity::VerityDigest;

/// Bytes of one image, at most: those of 200,000 files.
const MOST: u64 = 64 << 20;
/// Bytes of one request. The kernel cuts larger ones off at the device's `read_ahead_kb`, by default as much.
const STEP: u64 = 128 << 10;
/// Images that wait.
const WAITING: usize = 16;
/// How long a process that ends waits for what it has begun. `composefs-csi mount` ends right after the mount.
const LAST: Duration = Duration::from_secs(1);

/// Reads images ahead, in their order.
#[derive(Debug, Default)]
pub(super) struct ReadAhead(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    idle: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    images: VecDeque<(VerityDigest, OwnedFd)>,
    /// Whether there is a thread. There is none while nothing is to be read.
    is_running: bool,
}

impl ReadAhead {
    /// Begins to read `image` ahead. Returns at once.
    pub(super) fn begin(&self, image: &ImageFile) {
        let digest = image.digest();
        match self.enqueue(image) {
            Ok(true) => {}
            Ok(false) => tracing::debug!(image = %digest, "not read ahead: {WAITING} images wait already"),
            Err(error) => tracing::debug!(image = %digest, %error, "not read ahead"),
        }
    }

    fn enqueue(&self, image: &ImageFile) -> Result<bool, std::io::Error> {
        // A file of its own: the image's lock would live as long as any copy of the descriptor.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(proc_path(image.as_fd()), flags, Mode::empty())?;
        let mut queue = self.0.queue();
        if queue.images.iter().any(|(waiting, _)| *waiting == image.digest()) {
            return Ok(true);
        }
        if queue.images.len() >= WAITING {
            return Ok(false);
        }
        queue.images.push_back((image.digest(), file));
        if !queue.is_running {
            let shared = Arc::clone(&self.0);
            let thread = std::thread::Builder::new().name("read-ahead".into()).spawn(move || shared.work());
            if let Err(error) = thread {
                queue.images.clear();
                return Err(error);
            }
            queue.is_running = true;
        }
        Ok(true)
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        // What lasts longer ends with the process, which loses nothing.
        let _ = self.0.idle.wait_timeout_while(self.0.queue(), LAST, |queue| queue.is_running);
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what waits, until nothing does.
    fn work(&self) {
        while let Some((image, file)) = self.next() {
            match advise(&file) {
                Ok(bytes) => tracing::debug!(%image, bytes, "read ahead"),
                Err(error) => tracing::debug!(%image, %error, "not read ahead"),
            }
        }
    }

    fn next(&self) -> Option<(VerityDigest, OwnedFd)> {
        let mut queue = self.queue();
        let next = queue.images.pop_front();
        if next.is_none() {
            queue.is_running = false;
            self.idle.notify_all();
        }
        next
    }
}

/// Asks the kernel for the file's first bytes; they come when the disk has them. Returns how many.
fn advise(file: &OwnedFd) -> Result<u64, Errno> {
    let size = u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0).min(MOST);
    let mut at = 0;
    while at < size {
        let step = STEP.min(size - at);
        rustix::fs::fadvise(file, at, std::num::NonZeroU64::new(step), Advice::WillNeed)?;
        at += step;
    }
    Ok(size)
}
