//! A little disk of its own for the node's state: ext4 on a loop device, which can be filled and emptied.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::registry::run;
use crate::support::tools::installed;

/// Bytes of the disk, and its inodes. Smaller than what the pods' images need together.
const SIZE: u64 = 256 << 20;
const INODES: &str = "6000";

/// A mounted disk; unmounted when dropped.
#[derive(Debug)]
pub struct Disk {
    mounted: PathBuf,
    _image: tempfile::NamedTempFile,
}

/// What is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    Bytes,
    Inodes,
}

impl Disk {
    /// Makes a disk and mounts it on `point`.
    pub fn mount(point: &Path) -> Self {
        let image = tempfile::NamedTempFile::new_in("/var/tmp").expect("/var/tmp");
        image.as_file().set_len(SIZE).expect("a sparse file");
        let mut format = Command::new(installed("mke2fs"));
        run(format.args(["-q", "-t", "ext4", "-m", "0", "-N", INODES]).arg(image.path()));
        fs::create_dir_all(point).expect("a mount point");
        run(Command::new(installed("mount")).args(["-o", "loop"]).arg(image.path()).arg(point));
        Self { mounted: point.to_owned(), _image: image }
    }

    /// Uses up all of it.
    pub fn fill(&self, what: Fill) {
        let filler = self.filler();
        fs::create_dir_all(&filler).expect("a directory");
        match what {
            Fill::Bytes => {
                let file = File::create(filler.join("bytes")).expect("a file");
                // In ever smaller pieces, until not one block is left.
                let (mut at, mut piece) = (0, 32u64 << 20);
                while piece >= 4096 {
                    match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), at, piece) {
                        Ok(()) => at += piece,
                        Err(_) => piece /= 2,
                    }
                }
            }
            Fill::Inodes => {
                let mut names = (0..).map(|number| filler.join(number.to_string()));
                while names.next().is_some_and(|name| File::create(name).is_ok()) {}
            }
        }
    }

    /// Gives it back.
    pub fn relieve(&self) {
        let _ = fs::remove_dir_all(self.filler());
    }

    fn filler(&self) -> PathBuf {
        self.mounted.join("somebody-elses-files")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.mounted, rustix::mount::UnmountFlags::DETACH);
    }
}
