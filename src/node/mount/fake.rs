//! A mounter for tests without a kernel or privilege. It enforces the kernel's rules.
//!
//! A target must be a real directory, not a symbolic link. A second mount on it is refused. Only images that were added
//! exist. As with a real mount point, a target with a mount cannot be removed: the fake puts a file into it. Tests can
//! inject faults.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::{IdRange, MountError, MountSpec, Mounter, UpperSpec, Usage, table};
use crate::image::store::Mounted;
use crate::image::verity::VerityDigest;
use crate::integrity::Integrity;

/// The file that makes a mounted target non-empty.
const MARKER: &str = ".fake-mount";

/// The mount table of a fake node.
#[derive(Debug, Default)]
pub struct FakeMounter {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    images: BTreeMap<VerityDigest, BTreeSet<PathBuf>>,
    bases: BTreeMap<VerityDigest, Integrity>,
    mounts: BTreeMap<PathBuf, Vec<Stacked>>,
    users: BTreeMap<PathBuf, IdRange>,
    held: BTreeSet<VerityDigest>,
    faults: BTreeMap<&'static str, Errno>,
    calls: Vec<&'static str>,
}

#[derive(Debug, Clone)]
enum Stacked {
    Ours(MountSpec),
    Foreign,
}

impl FakeMounter {
    /// A node without images or mounts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `image` with these sub-directories.
    pub fn add_image(&self, image: VerityDigest, directories: &[&str]) {
        self.lock().images.insert(image, directories.iter().map(PathBuf::from).collect());
    }

    /// Makes the next call of `operation` (`mount`, `mounted`, `map`, `show_current`, `unmount`, `release`) fail with `errno`, before it does
    /// anything.
    pub fn fail_next(&self, operation: &'static str, errno: Errno) {
        self.lock().faults.insert(operation, errno);
    }

    /// Adds a foreign mount on `target`.
    pub fn mount_foreign(&self, target: &Path) {
        self.lock().mounts.entry(target.to_owned()).or_default().push(Stacked::Foreign);
    }

    /// A container has a mount of the image, where this process sees none; or not any more.
    pub fn hold(&self, image: VerityDigest, is_held: bool) {
        let mut state = self.lock();
        state.held.remove(&image);
        state.held.extend(is_held.then_some(image));
    }

    /// Forgets every mount, as a reboot does; the directories stay.
    pub fn reboot(&self) {
        let mut state = self.lock();
        for target in std::mem::take(&mut state.mounts).keys() {
            let _ = std::fs::remove_file(target.join(MARKER));
        }
        state.bases.clear();
        state.users.clear();
    }

    /// The targets with a mount.
    pub fn targets(&self) -> Vec<PathBuf> {
        self.lock().mounts.keys().cloned().collect()
    }

    /// The users that `target` was mapped for.
    pub fn users(&self, target: &Path) -> Option<IdRange> {
        self.lock().users.get(target).copied()
    }

    /// The images with a base mount.
    pub fn bases(&self) -> BTreeSet<VerityDigest> {
        self.lock().bases.keys().copied().collect()
    }

    /// The operations called so far, in order.
    pub fn calls(&self) -> Vec<&'static str> {
        self.lock().calls.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, operation: &'static str, subject: impl ToString) -> Result<(), MountError> {
        self.calls.push(operation);
        match self.faults.remove(operation) {
            Some(errno) => Err(MountError::kernel(operation, subject, errno)),
            None => Ok(()),
        }
    }

    fn topmost(&self, target: &Path) -> Result<Option<&MountSpec>, MountError> {
        match self.mounts.get(target).and_then(|stack| stack.last()) {
            None => Ok(None),
            Some(Stacked::Ours(spec)) => Ok(Some(spec)),
            Some(Stacked::Foreign) => {
                Err(MountError::Foreign { target: target.to_owned(), what: "tmpfs from `tmpfs`".into() })
            }
        }
    }
}

impl Mounter for FakeMounter {
    fn mount_at_least(
        &self,
        spec: &MountSpec,
        least: Integrity,
        target: &Path,
    ) -> Result<Integrity, MountError> {
        let mut state = self.lock();
        state.enter("mount", target.display())?;
        let bad = |problem| MountError::BadTarget { target: target.to_owned(), problem };
        match std::fs::symlink_metadata(target) {
            Err(_) => return Err(bad("does not exist")),
            Ok(found) if !found.is_dir() => return Err(bad("is not a directory")),
            Ok(_) => {}
        }
        if state.topmost(target)?.is_some() {
            return Err(MountError::Occupied { target: target.to_owned() });
        }
        let (image, path) = (spec.image, &spec.path);
        let directories = state.images.get(&image).ok_or(MountError::NoSuchImage { image })?;
        // Nothing checks reads here.
        if least == Integrity::Read {
            return Err(MountError::Unreachable { image });
        }
        if !table::is_plain_descent(path) {
            return Err(MountError::BadPath { path: path.clone() });
        }
        if !path.as_os_str().is_empty() && !directories.contains(path) {
            return Err(MountError::NoSuchPath { path: path.clone(), image });
        }
        // Last: what is refused leaves the target as it was.
        std::fs::write(target.join(MARKER), image.hex()).map_err(|_| bad("is not writable"))?;
        let level = *state.bases.entry(image).and_modify(|level| *level = least.max(*level)).or_insert(least);
        state.mounts.insert(target.to_owned(), vec![Stacked::Ours(spec.clone())]);
        Ok(level)
    }

    fn level(&self, image: &VerityDigest) -> Integrity {
        self.lock().bases.get(image).copied().unwrap_or_default()
    }

    fn mounted(&self, target: &Path) -> Result<Option<MountSpec>, MountError> {
        let mut state = self.lock();
        state.enter("mounted", target.display())?;
        Ok(state.topmost(target)?.cloned())
    }

    fn usage(&self, target: &Path) -> Result<Option<Usage>, MountError> {
        let state = self.lock();
        // Nobody can write here, so all is free.
        let usage =
            |UpperSpec { bytes, .. }| Usage { bytes, free_bytes: bytes, inodes: 1024, free_inodes: 1024 };
        Ok(state.topmost(target)?.and_then(|spec| spec.upper).map(usage))
    }

    fn map(
        &self,
        spec: &MountSpec,
        _least: Integrity,
        users: IdRange,
        target: &Path,
    ) -> Result<bool, MountError> {
        let mut state = self.lock();
        state.enter("map", target.display())?;
        if state.topmost(target)?.is_none_or(|found| found.image != spec.image) {
            let problem = "shows another image or none";
            return Err(MountError::BadTarget { target: target.to_owned(), problem });
        }
        if state.users.insert(target.to_owned(), users) == Some(users) {
            return Ok(false);
        }
        // A top has no path.
        let top = MountSpec { path: PathBuf::new(), ..spec.clone() };
        state.mounts.entry(target.to_owned()).or_default().push(Stacked::Ours(top));
        Ok(true)
    }

    fn show_current(
        &self,
        spec: &MountSpec,
        least: Integrity,
        target: &Path,
    ) -> Result<Integrity, MountError> {
        let mut state = self.lock();
        state.enter("show_current", target.display())?;
        let before = match state.topmost(target)? {
            Some(_) => state.mounts.remove(target),
            None => None,
        };
        drop(state);
        let shown = self.mount_at_least(spec, least, target);
        if let (Err(_), Some(before)) = (&shown, before) {
            self.lock().mounts.insert(target.to_owned(), before);
        }
        shown
    }

    fn in_use(&self, image: &VerityDigest) -> bool {
        let state = self.lock();
        let shows = |mount: &Stacked| matches!(mount, Stacked::Ours(spec) if spec.image == *image);
        state.held.contains(image) || state.mounts.values().flatten().any(shows)
    }

    fn unmount(&self, target: &Path) -> Result<(), MountError> {
        let mut state = self.lock();
        state.enter("unmount", target.display())?;
        if state.topmost(target)?.is_some() {
            state.users.remove(target);
        }
        while state.topmost(target)?.is_some() {
            let stack = state.mounts.entry(target.to_owned()).or_default();
            stack.pop();
            if stack.is_empty() {
                state.mounts.remove(target);
                let _ = std::fs::remove_file(target.join(MARKER));
            }
        }
        Ok(())
    }

    fn release(&self, image: &VerityDigest) -> Result<(), MountError> {
        let mut state = self.lock();
        state.enter("release", image)?;
        let held = state.mounts.values().flatten().any(|mount| match mount {
            Stacked::Ours(spec) => spec.image == *image,
            Stacked::Foreign => false,
        });
        if !held {
            state.bases.remove(image);
        }
        Ok(())
    }

    fn mounted_images(&self) -> Result<Mounted, MountError> {
        let state = self.lock();
        let published = state.mounts.values().flatten().filter_map(|mount| match mount {
            Stacked::Ours(spec) => Some(spec.image),
            Stacked::Foreign => None,
        });
        Ok(Mounted { here: published.chain(state.bases.keys().copied()).collect(), ..Mounted::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(path: &str) -> MountSpec {
        MountSpec { image: VerityDigest([7; 32]), path: path.into(), noexec: false, upper: None }
    }

    #[test]
    fn it_keeps_the_kernels_rules() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("mount");
        let fake = FakeMounter::new();
        assert!(matches!(fake.mount(&spec(""), &target), Err(MountError::BadTarget { .. })));
        std::fs::create_dir(&target).unwrap();
        assert!(matches!(fake.mount(&spec(""), &target), Err(MountError::NoSuchImage { .. })));
        fake.add_image(spec("").image, &["etc"]);
        assert!(matches!(fake.mount(&spec("usr"), &target), Err(MountError::NoSuchPath { .. })));
        fake.mount(&spec("etc"), &target).unwrap();
        assert!(matches!(fake.mount(&spec("etc"), &target), Err(MountError::Occupied { .. })));
        assert_eq!(fake.mounted(&target).unwrap(), Some(spec("etc")));
        std::fs::remove_dir(&target).unwrap_err();
        fake.release(&spec("").image).unwrap();
        assert_eq!(fake.mounted_images().unwrap().all().len(), 1, "a clone remains");
        fake.unmount(&target).unwrap();
        fake.unmount(&target).unwrap();
        fake.release(&spec("").image).unwrap();
        assert!(fake.mounted_images().unwrap().all().is_empty());
        std::fs::remove_dir(&target).unwrap();
    }

    #[test]
    fn what_it_refuses_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let (target, fake) = (directory.path(), FakeMounter::new());
        let image = spec("").image;
        fake.add_image(image, &[]);
        let refused = fake.mount_at_least(&spec("usr"), Integrity::Read, target).unwrap_err();
        assert!(
            matches!(refused, MountError::Unreachable { .. }),
            "the level comes before the path: {refused}"
        );
        for (path, least) in [("", Integrity::Read), ("usr", Integrity::Fetch), ("../usr", Integrity::Mount)]
        {
            fake.mount_at_least(&spec(path), least, target).unwrap_err();
            assert_eq!(fake.mounted(target).unwrap(), None);
            assert!(fake.mounted_images().unwrap().all().is_empty());
            assert_eq!(std::fs::read_dir(target).unwrap().count(), 0, "the target is as it was");
        }
        let bad = fake.mount(&spec("../usr"), target);
        assert!(matches!(bad, Err(MountError::BadPath { .. })), "{bad:?}");
        let level = fake.mount_at_least(&spec(""), Integrity::Mount, target).unwrap();
        assert_eq!((level, fake.level(&image)), (Integrity::Mount, Integrity::Mount));
        fake.reboot();
        fake.mount_foreign(target);
        let occupied = fake.mount(&spec(""), target);
        assert!(matches!(occupied, Err(MountError::Foreign { .. })), "{occupied:?}");
    }

    #[test]
    fn foreign_mounts_and_ordered_faults() {
        let directory = tempfile::tempdir().unwrap();
        let fake = FakeMounter::new();
        fake.mount_foreign(directory.path());
        assert!(matches!(fake.mounted(directory.path()), Err(MountError::Foreign { .. })));
        assert!(matches!(fake.unmount(directory.path()), Err(MountError::Foreign { .. })));
        fake.reboot();
        fake.fail_next("unmount", Errno::BUSY);
        assert_eq!(fake.unmount(directory.path()).unwrap_err().kind(), crate::kind::Kind::Busy);
        fake.unmount(directory.path()).unwrap();
    }
}
