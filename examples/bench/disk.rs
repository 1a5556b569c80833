//! The disk that everything is measured on: an ext4 of its own with a journal, on a loop device with direct I/O.
//!
//! The machine's own disk would distort: other programs use it, an ext4 without a journal skips inodes that were freed just
//! now, one by one, and what is read through two page caches is hardly ever cold. The device's own counter says how many
//! requests a measurement made, whatever else the machine did meanwhile.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::support::mounts::{remove, unmount_below};

/// A sparse file; the images of all peers together take less.
const SIZE: u64 = 16 << 30;

/// A mounted disk; it goes with this value.
#[derive(Debug)]
pub struct Disk {
    point: PathBuf,
    file: PathBuf,
    device: PathBuf,
}

impl Disk {
    /// Makes a disk and mounts it on `point`, beside which its file lies. What an earlier run left is removed.
    pub fn mount(point: &Path) -> Result<Self> {
        let file = point.with_extension("disk");
        unmount_below(point)?;
        remove(point)?;
        if file.exists() {
            fs::remove_file(&file)?;
        }
        fs::File::create(&file)?.set_len(SIZE)?;
        fs::create_dir_all(point)?;
        // Nothing is left to the kernel to initialise later, in the middle of a measurement.
        let lazy = "lazy_itable_init=0,lazy_journal_init=0";
        run(Command::new("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-J", "size=128", "-m", "0", "-E", lazy])
            .arg(&file))?;
        let attach = ["--find", "--show", "--direct-io=on"];
        let device = PathBuf::from(run(Command::new("losetup").args(attach).arg(&file))?.trim());
        let disk = Self { point: point.to_owned(), file, device };
        // What most devices have; a loop device may still have what its last user set.
        fs::write(disk.queue("read_ahead_kb")?, "128")?;
        run(Command::new("mount").arg(&disk.device).arg(point))?;
        Ok(disk)
    }

    /// The device's count of read requests that it has completed; only differences mean something.
    pub fn requests(&self) -> Result<u64> {
        let path = self.sys()?.join("stat");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // Documentation/block/stat.rst: the first field is that of reads.
        let reads = text.split_whitespace().next().and_then(|field| field.parse().ok());
        reads.with_context(|| format!("{} has no counter of reads", path.display()))
    }
}

impl Disk {
    fn sys(&self) -> Result<PathBuf> {
        Ok(Path::new("/sys/block").join(self.device.file_name().context("a device has a name")?))
    }

    fn queue(&self, setting: &str) -> Result<PathBuf> {
        Ok(self.sys()?.join("queue").join(setting))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let all = unmount_below(&self.point)
            .and_then(|()| run(Command::new("losetup").arg("--detach").arg(&self.device)).map(drop))
            .and_then(|()| remove(&self.point))
            .and_then(|()| Ok(fs::remove_file(&self.file)?));
        if let Err(error) = all {
            eprintln!("bench: {} stays: {error:#}", self.file.display());
        }
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.env("PATH", path()).output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// sbin is not on everybody's PATH.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}
