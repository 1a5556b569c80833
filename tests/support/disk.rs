//! A small filesystem of its own, to fill up and to remount, or of another kind than the machine's.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small disk that is mounted. Whoever mounted it there unmounts it, or it is unmounted when this is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    point: PathBuf,
    image: PathBuf,
}

impl SmallDisk {
    /// Makes a disk of so many MiB and inodes, and mounts it on `point`. Nothing of it is reserved for root.
    pub fn mount(point: &Path, mebibytes: u64, inodes: u32) -> Self {
        let image = point.with_extension("disk");
        File::create(&image).and_then(|file| file.set_len(mebibytes << 20)).expect("a file for the disk");
        fs::create_dir_all(point).expect("a mount point");
        let inodes = inodes.to_string();
        let options = ["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-I", "256", "-N", &inodes];
        command(Command::new("mke2fs").env("PATH", "/usr/sbin:/sbin").args(options).arg(&image));
        command(Command::new("mount").args(["-o", "loop"]).args([&image, point]));
        Self { point: point.to_owned(), image }
    }

    /// The same with XFS, whose files can share blocks (reflinks). It has 300 MiB at least.
    pub fn mount_xfs(point: &Path, mebibytes: u64) -> Self {
        let image = point.with_extension("disk");
        File::create(&image).and_then(|file| file.set_len(mebibytes << 20)).expect("a file for the disk");
        fs::create_dir_all(point).expect("a mount point");
        command(
            Command::new("mkfs.xfs")
                .env("PATH", "/usr/sbin:/sbin")
                .args(["-q", "-m", "reflink=1"])
                .arg(&image),
        );
        command(Command::new("mount").args(["-o", "loop"]).args([&image, point]));
        Self { point: point.to_owned(), image }
    }

    /// Remounts it, `ro` or `rw`.
    pub fn remount(&self, how: &str) {
        command(Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.point));
    }

    /// Makes empty files until there is no inode for another.
    pub fn fill_inodes(&self) -> Filler {
        let filler = Filler::new(&self.point);
        while File::create(filler.0.join(fresh())).is_ok() {}
        filler
    }

    /// Writes until there is no block left.
    pub fn fill_bytes(&self) -> Filler {
        let filler = Filler::new(&self.point);
        let mut file = File::create(filler.0.join("bytes")).expect("a file");
        for size in [1 << 20, 4096, 1] {
            while file.write(&vec![1; size]).is_ok() {}
        }
        // Only then is it known that the blocks are there.
        let _ = file.sync_all();
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.point, rustix::mount::UnmountFlags::DETACH);
        let _ = fs::remove_file(&self.image);
    }
}

/// What somebody else filled a disk with; it goes when dropped.
#[derive(Debug)]
pub struct Filler(PathBuf);

impl Filler {
    fn new(point: &Path) -> Self {
        let directory = point.join("filler");
        fs::create_dir_all(&directory).expect("a directory to fill");
        Self(directory)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn fresh() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

fn command(command: &mut Command) {
    let output = command.output().expect("a command of the system");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
