//! How much physical memory the files of several directories occupy together.
//!
//! Counted by page frame numbers, which the kernel tells root in /proc/self/pagemap: two files that share
//! memory have the same frames. Nothing is estimated.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use composefs_csi::sys::pages::Mapping;

/// Pages of files in memory.
#[derive(Debug, Default)]
pub struct Frames {
    distinct: HashSet<u64>,
    /// Pages that the files have, each counted as often as it is seen.
    pub seen: u64,
}

impl Frames {
    /// Reads `file` in and counts its pages.
    pub fn add(&mut self, file: &Path) -> Result<()> {
        let opened = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
        let frames = Mapping::new(&opened)
            .and_then(|mapping| mapping.frames())
            .with_context(|| format!("cannot see the pages of {} (root only)", file.display()))?;
        self.seen += frames.len() as u64;
        self.distinct.extend(frames);
        Ok(())
    }

    /// Pages of physical memory behind all files added.
    pub fn distinct(&self) -> u64 {
        self.distinct.len() as u64
    }
}

/// The regular files below `directory` that have content, as paths relative to it, in a fixed order.
pub fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut left) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("cannot read {}", next.display()))? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            if metadata.is_dir() {
                left.push(path);
            } else if metadata.is_file() && metadata.size() > 0 {
                found.push(path.strip_prefix(directory)?.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}
