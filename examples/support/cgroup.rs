//! A memory cgroup for this process, to learn what the kernel's memory is taken for: inodes, names and mounts are charged to
//! who makes them. Of version 1 or 2, whichever the machine has.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Bytes that are charged to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charged {
    /// Of the kernel's own: inodes, names, superblocks.
    pub kernel: u64,
    /// Of the page cache.
    pub pages: u64,
}

impl Charged {
    /// What came since `before`.
    pub fn since(self, before: &Self) -> Self {
        let less = |now: u64, then: u64| now.saturating_sub(then);
        Self { kernel: less(self.kernel, before.kernel), pages: less(self.pages, before.pages) }
    }
}

/// A group that this process is in as long as the value lives.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    /// Where the process was before.
    home: PathBuf,
}

impl Group {
    /// Makes a group beside all others, and moves this process into it.
    pub fn enter(name: &str) -> Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let place = |kind: &str| {
            let line = own.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(kind));
            line.map(|path| path.trim_start_matches('/').to_owned())
        };
        let (root, home) = match place("memory:") {
            Some(home) => (Path::new("/sys/fs/cgroup/memory"), home),
            None => (Path::new("/sys/fs/cgroup"), place(":").context("no memory cgroups")?),
        };
        let group = Self { path: root.join(name), home: root.join(home) };
        fs::create_dir_all(&group.path)?;
        let move_in = fs::write(group.path.join("cgroup.procs"), "0");
        move_in.with_context(|| format!("cannot enter {}", group.path.display()))?;
        Ok(group)
    }

    /// What is charged to it now.
    pub fn charged(&self) -> Result<Charged> {
        let text = fs::read_to_string(self.path.join("memory.stat"))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.trim().parse().ok())
        };
        let kernel = match fs::read_to_string(self.path.join("memory.kmem.usage_in_bytes")) {
            Ok(bytes) => bytes.trim().parse()?,
            Err(_) => field("kernel").context("no account of the kernel's memory")?,
        };
        let pages = field("cache").or_else(|| field("file")).context("no account of the page cache")?;
        Ok(Charged { kernel, pages })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let left = fs::write(self.home.join("cgroup.procs"), "0").and_then(|()| fs::remove_dir(&self.path));
        if let Err(error) = left {
            eprintln!("bench: {} stays: {error}", self.path.display());
        }
    }
}
