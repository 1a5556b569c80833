//! Lists and removes the mounts below a directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{UnmountFlags, unmount};

/// The mount points below `directory`, in the order they were made.
pub fn below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    Ok(points.filter(|point| point.starts_with(directory)).collect())
}

/// Unmounts everything below `directory`, the latest first.
pub fn unmount_below(directory: &Path) -> Result<()> {
    for point in below(directory)?.into_iter().rev() {
        unmount(&point, UnmountFlags::empty())
            .with_context(|| format!("cannot unmount {}", point.display()))?;
    }
    Ok(())
}

/// Removes a directory that may be absent.
pub fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}
