//! Images that are mounted before their objects are there: a store of hand-made files, and objects that come when a test
//! says so.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use composefs_csi::image::entry::INLINE_MAX;
use composefs_csi::image::objects::{Arrivals, Objects};
use composefs_csi::image::verity::VerityDigest;
use composefs_csi::node::mount::{KernelMounter, LazyMount, MountSpec, Wanted};

use super::mount::{Bench, Node, image_by};

/// An image whose files are not in the store.
#[derive(Debug)]
pub struct Late {
    pub image: VerityDigest,
    /// What its objects hold.
    pub contents: BTreeMap<VerityDigest, Vec<u8>>,
    objects: Objects,
}

/// Notes what is waited for.
#[derive(Debug, Clone)]
pub struct Noting(Arc<Mutex<Sender<VerityDigest>>>);

impl Noting {
    /// Tells `sender` of each.
    pub fn new(sender: Sender<VerityDigest>) -> Self {
        Self(Arc::new(Mutex::new(sender)))
    }
}

impl Wanted for Noting {
    fn want(&self, object: &VerityDigest) {
        // Nobody listens any more.
        let _ = self.0.lock().unwrap().send(*object);
    }
}

impl Late {
    /// The image is written, and none of the files that have objects.
    pub fn new(bench: &Bench, files: &[(&str, Vec<u8>)]) -> Self {
        let large = files.iter().filter(|(_, content)| content.len() > INLINE_MAX);
        let contents: BTreeMap<_, _> =
            large.map(|(_, content)| (VerityDigest::of(content), content.clone())).collect();
        let nodes: Vec<_> =
            files.iter().map(|(name, content)| (*name, Node::File(content.clone()))).collect();
        let image = image_by(&nodes, |content| {
            let digest = VerityDigest::of(content);
            if contents.contains_key(&digest) { digest } else { bench.put(content) }
        });
        Objects::create(&bench.store()).unwrap();
        let objects = Objects::open(&bench.store(), bench.sealed).unwrap();
        Self { image, contents, objects }
    }

    /// Mounts it. The receiver hears what is waited for.
    pub fn mount(&self, mounter: &KernelMounter, target: &Path) -> (LazyMount, Receiver<VerityDigest>) {
        let (sender, wanted) = channel();
        let spec = MountSpec { image: self.image, path: "".into(), noexec: false, upper: None };
        let objects = self.contents.keys().copied();
        let mount = mounter.mount_lazily(&spec, target, objects, Noting::new(sender)).unwrap();
        (mount, wanted)
    }

    /// Writes an object whole and in one step, as a store does, and says nothing.
    pub fn write(&self, object: &VerityDigest) {
        assert_eq!(self.objects.put(&self.contents[object]).unwrap().0, *object);
    }

    /// Writes an object, and says so.
    pub fn bring(&self, object: &VerityDigest, arrivals: &Arc<dyn Arrivals>) {
        self.write(object);
        arrivals.arrived(object);
    }

    /// Brings each object a moment after somebody waits for it, until nobody can any more. Returns which, in their order.
    pub fn bring_all(
        &self,
        arrivals: &Arc<dyn Arrivals>,
        wanted: Receiver<VerityDigest>,
    ) -> Vec<VerityDigest> {
        let mut brought = Vec::new();
        for object in wanted {
            std::thread::sleep(Duration::from_millis(20));
            self.bring(&object, arrivals);
            brought.push(object);
        }
        brought
    }
}
