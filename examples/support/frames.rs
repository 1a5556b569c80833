//! How much physical memory the files of several directories occupy together.
//!
//! It counts page frame numbers, which root can read in /proc/self/pagemap. Two files that share memory have the same
//! frames. Nothing is estimated.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::pages::Mapping;
use anyhow::{Context, Result};

/// Pages in memory, by owner (a pod).
#[derive(Debug)]
pub struct Count {
    /// Pages of all files that an owner sees.
    pub seen: Vec<u64>,
    /// Page frames that no earlier owner uses.
    pub added: Vec<u64>,
}

impl Count {
    /// Page frames of all owners together.
    pub fn frames(&self) -> u64 {
        self.added.iter().sum()
    }
}

/// Counts the frames of groups of files with equal content; each file has the number of its owner.
///
/// Groups share nothing with each other. While a group is counted its pages are pinned, so that a page that the
/// kernel drops and reads again (proactive reclaim) is not counted as a second copy.
pub fn count(owners: usize, groups: impl IntoIterator<Item = Vec<(usize, PathBuf)>>) -> Result<Count> {
    let mut count = Count { seen: vec![0; owners], added: vec![0; owners] };
    for mut group in groups {
        group.sort();
        let (mut known, mut pinned) = (HashSet::new(), Vec::new());
        for (owner, path) in group {
            let mapping = pin(&path)?;
            let frames = mapping.frames().with_context(|| refused(&path))?;
            pinned.push(mapping);
            count.seen[owner] += frames.len() as u64;
            count.added[owner] += frames.into_iter().filter(|frame| known.insert(*frame)).count() as u64;
        }
    }
    Ok(count)
}

/// Maps a file with all its pages in memory.
fn pin(path: &Path) -> Result<Mapping> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mapping = Mapping::new(&file).with_context(|| refused(path))?;
    mapping.pin().with_context(|| refused(path))?;
    Ok(mapping)
}

fn refused(path: &Path) -> String {
    format!("cannot see the pages of {} (root only)", path.display())
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
