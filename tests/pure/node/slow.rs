//! Mounts that wait.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use composefs_csi::image::store::Mounted;
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::integrity::Integrity;
use composefs_csi::node::mount::fake::FakeMounter;
use composefs_csi::node::mount::{IdRange, MountError, MountSpec, Mounter, Usage};
/// A mounter that stops before each mount until it is let on.
#[derive(Debug)]
pub struct SlowMounter {
    pub inner: Arc<FakeMounter>,
    /// Whether a mount is waiting, and whether it may go on.
    pub gate: Arc<(Mutex<(bool, bool)>, Condvar)>,
}

impl Mounter for SlowMounter {
    fn mount_at_least(
        &self,
        spec: &MountSpec,
        least: Integrity,
        target: &Path,
    ) -> Result<Integrity, MountError> {
        let (state, changed) = &*self.gate;
        let mut state = state.lock().unwrap();
        state.0 = true;
        changed.notify_all();
        while !state.1 {
            state = changed.wait(state).unwrap();
        }
        drop(state);
        self.inner.mount_at_least(spec, least, target)
    }
    fn level(&self, image: &VerityDigest) -> Integrity {
        self.inner.level(image)
    }
    fn mounted(&self, target: &Path) -> Result<Option<MountSpec>, MountError> {
        self.inner.mounted(target)
    }
    fn usage(&self, target: &Path) -> Result<Option<Usage>, MountError> {
        self.inner.usage(target)
    }
    fn map(
        &self,
        spec: &MountSpec,
        least: Integrity,
        users: IdRange,
        target: &Path,
    ) -> Result<bool, MountError> {
        self.inner.map(spec, least, users, target)
    }
    fn show_current(
        &self,
        spec: &MountSpec,
        least: Integrity,
        target: &Path,
    ) -> Result<Integrity, MountError> {
        self.inner.show_current(spec, least, target)
    }
    fn in_use(&self, image: &VerityDigest) -> bool {
        self.inner.in_use(image)
    }
    fn unmount(&self, target: &Path) -> Result<(), MountError> {
        self.inner.unmount(target)
    }
    fn release(&self, image: &VerityDigest) -> Result<(), MountError> {
        self.inner.release(image)
    }
    fn refresh(&self, images: &BTreeSet<VerityDigest>) -> Result<(), MountError> {
        self.inner.refresh(images)
    }
    fn mounted_images(&self) -> Result<Mounted, MountError> {
        self.inner.mounted_images()
    }
}
