//! Looking up the objects of images, when their base mounts are made: an opt-in.
//!
//! The first open of a file on a cold node reads a block of its directory in the store, and one of its inode. Both come in
//! large requests, and to threads instead of pods, if all objects are looked up (stat) in the order of their names. The
//! kernel then keeps a name and an inode of each, 1 KiB or more, which it gives up when it needs the memory.
//!
//! * At most as many objects of an image as the operator says, of one image at a time; an image of more than [`IMAGE_MOST`]
//!   bytes, or one behind [`WAITING`] others, is left out.
//! * By threads of the lowest priority, and none while there is nothing to do.
//! * It ends with the base mount. Whatever fails is in the debug log, and the mount works all the same.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::context::proc_path;
use super::object::{ImageFile, object_name};
use crate::image::composefs;
use crate::image::verity::VerityDigest;

/// Bytes of an image, which are in memory while its objects are listed.
const IMAGE_MOST: u64 = 64 << 20;
/// Images that wait.
const WAITING: usize = 16;
/// Lookups at a time: each waits for the disk.
const THREADS: usize = 4;
/// As nice(2) counts. The disk's scheduler goes by it, too.
const NICENESS: i32 = 19;

/// Looks up the objects of images, in the order of their mounts.
#[derive(Debug, Default)]
pub(super) struct StatAhead {
    /// Objects of an image; 0 for not at all.
    most: usize,
    shared: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Job>,
    /// What is under way. There is a thread as long as there is something.
    current: Option<(VerityDigest, Arc<AtomicBool>)>,
}

/// An image, and where its objects are.
#[derive(Debug)]
struct Job {
    image: VerityDigest,
    file: OwnedFd,
    objects: OwnedFd,
    most: usize,
    /// Nobody needs it any more.
    over: Arc<AtomicBool>,
}

impl StatAhead {
    /// Looks up at most so many objects of each image.
    pub(super) fn new(most: usize) -> Self {
        Self { most, shared: Arc::default() }
    }

    /// Begins with `image`, whose base mount is new. Returns at once.
    pub(super) fn begin(&self, image: &ImageFile, objects: impl AsFd) {
        if self.most == 0 {
            return;
        }
        let digest = image.digest();
        match self.enqueue(image, objects) {
            Ok(true) => {}
            Ok(false) => tracing::debug!(image = %digest, "not looked up: {WAITING} images wait already"),
            Err(error) => tracing::debug!(image = %digest, %error, "not looked up"),
        }
    }

    fn enqueue(&self, image: &ImageFile, objects: impl AsFd) -> Result<bool, std::io::Error> {
        // A file of its own: the image's lock would live as long as any copy of the descriptor.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(proc_path(image.as_fd()), flags, Mode::empty())?;
        let objects = objects.as_fd().try_clone_to_owned()?;
        let mut queue = queue(&self.shared);
        if queue.waiting.len() >= WAITING {
            return Ok(false);
        }
        let (image, most, over) = (image.digest(), self.most, Arc::default());
        let job = Job { image, file, objects, most, over };
        if queue.current.is_some() {
            queue.waiting.push_back(job);
            return Ok(true);
        }
        queue.current = Some((job.image, Arc::clone(&job.over)));
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("stat-ahead".into()).spawn(move || work(&shared, job));
        if let Err(error) = thread {
            queue.current = None;
            return Err(error);
        }
        Ok(true)
    }

    /// Ends what is under way or waits for `image`, whose base mount goes.
    pub(super) fn end(&self, image: &VerityDigest) {
        let mut queue = queue(&self.shared);
        queue.waiting.retain(|job| job.image != *image);
        if let Some((current, over)) = &queue.current
            && current == image
        {
            over.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for StatAhead {
    fn drop(&mut self) {
        // A process that ends waits for nothing of this.
        let mut queue = queue(&self.shared);
        queue.waiting.clear();
        if let Some((_, over)) = &queue.current {
            over.store(true, Ordering::Relaxed);
        }
    }
}

fn queue(shared: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does the job, and what waits after it.
fn work(shared: &Mutex<Queue>, first: Job) {
    // Of this thread, and of those that it starts.
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "a thread does not give way");
    }
    let mut next = Some(first);
    while let Some(job) = next {
        let image = job.image;
        match job.named() {
            Ok(named) => {
                let found = look_up(&named, job.objects.as_fd(), &job.over);
                tracing::debug!(%image, objects = found, of = named.len(), "looked up");
            }
            Err(why) => tracing::debug!(%image, why, "not looked up"),
        }
        let mut queue = queue(shared);
        next = queue.waiting.pop_front();
        queue.current = next.as_ref().map(|job| (job.image, Arc::clone(&job.over)));
    }
}

impl Job {
    /// The first objects of the image by name, as many as are looked up.
    fn named(&self) -> Result<Vec<VerityDigest>, String> {
        let size = rustix::fs::fstat(&self.file).map_err(|error| error.to_string())?.st_size;
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        if size > IMAGE_MOST {
            return Err(format!("its image has {size} bytes, more than {IMAGE_MOST}"));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        let mut filled = 0;
        while filled < bytes.len() {
            match rustix::io::pread(&self.file, &mut bytes[filled..], filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        bytes.truncate(filled);
        let mut named = composefs::list_objects(&bytes).map_err(|error| error.to_string())?;
        named.truncate(self.most);
        Ok(named)
    }
}

/// Looks objects up until all are, or it is over. Returns how many were there.
fn look_up(named: &[VerityDigest], objects: BorrowedFd<'_>, over: &AtomicBool) -> usize {
    let (next, found) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS.min(named.len()) {
            let one = || {
                while !over.load(Ordering::Relaxed)
                    && let Some(object) = named.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let stat = rustix::fs::statat(objects, object_name(object), AtFlags::SYMLINK_NOFOLLOW);
                    // One that a collection has just removed belongs to no mount that anybody sees.
                    found.fetch_add(usize::from(stat.is_ok()), Ordering::Relaxed);
                }
            };
            // Without another thread, those that there are do it all.
            if std::thread::Builder::new().spawn_scoped(scope, one).is_err() {
                tracing::debug!("no thread to look up objects");
            }
        }
    });
    found.into_inner()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn directory(count: u32) -> (tempfile::TempDir, OwnedFd, Vec<VerityDigest>) {
        let root = tempfile::tempdir().unwrap();
        let named: Vec<_> = (0..count).map(|n| VerityDigest::of(&n.to_le_bytes())).collect();
        for object in &named {
            let path = root.path().join(object_name(object));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(root.path(), flags, Mode::empty()).unwrap();
        (root, opened, named)
    }

    #[test]
    fn all_objects_are_looked_up_and_missing_ones_do_no_harm() {
        let (root, objects, named) = directory(100);
        fs::remove_file(root.path().join(object_name(&named[7]))).unwrap();
        assert_eq!(look_up(&named, objects.as_fd(), &AtomicBool::new(false)), 99);
        assert_eq!(look_up(&[], objects.as_fd(), &AtomicBool::new(false)), 0);
    }

    #[test]
    fn nothing_is_looked_up_once_it_is_over() {
        let (_root, objects, named) = directory(100);
        assert_eq!(look_up(&named, objects.as_fd(), &AtomicBool::new(true)), 0);
    }

    #[test]
    fn what_ends_is_neither_waited_for_nor_done() {
        let ahead = StatAhead::new(10);
        let (_root, objects, named) = directory(2);
        let job = |image: VerityDigest| {
            let clone = || objects.try_clone().unwrap();
            Job { image, file: clone(), objects: clone(), most: 10, over: Arc::default() }
        };
        let current = Arc::new(AtomicBool::new(false));
        {
            let mut queue = queue(&ahead.shared);
            queue.current = Some((named[0], Arc::clone(&current)));
            queue.waiting.extend([job(named[1]), job(named[0])]);
        }
        ahead.end(&named[1]);
        assert!(!current.load(Ordering::Relaxed));
        ahead.end(&named[0]);
        assert!(current.load(Ordering::Relaxed) && queue(&ahead.shared).waiting.is_empty());
    }
}
