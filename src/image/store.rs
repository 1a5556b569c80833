//! The object store of a node: what is kept, how it survives a crash, and when it may be removed.
//!
//! ```text
//! <store>/version                     {"format":1,"algorithm":"sha256"}
//! <store>/lock                        flock: shared while a hold is noted, exclusive while the sweep removes
//! <store>                             flock on the directory: of the one collection or repair that runs
//! <store>/holds/<unique>              what a pull or publish relies on, locked while it lives
//! <store>/tmp/                        files about to be renamed, each locked while its writer lives
//! <store>/dirty/<boot id>.<unique>    a hold whose objects no sync has covered yet
//! <store>/objects/xx/<62 hex>         file contents and composefs images, by fs-verity digest
//! <store>/layers/<diffid hex>         layer metadata, synced
//! <store>/staging/<boot id>/<diffid hex>   layer metadata of an unfinished pull, valid for this boot only
//! <store>/partial/<boot id>/<hash>    what has been received of a blob that is not whole yet, valid for this boot only
//! <store>/blobs/<blob hex>            the DiffID that a compressed blob was found to have
//! <store>/contents/<blob hex>         the files of a layer by sha256, so that another one need not fetch them
//! <store>/fetched/<blob hex>/         which credentials have fetched a blob, and from where
//! <store>/images/<manifest hex>.json  one record per image; its mtime is when it was last used
//! <store>/access/<manifest hex>/      where an image came from, and who could read it there
//! <store>/dossiers/<manifest hex>/    what an image is judged by at every mount
//! <store>/names/<hash>.json           what a reference and platform resolved to
//! <store>/digests/<manifest hex>.json what composefs digest a manifest had when it was first built; outlives the image
//! <store>/pins/<manifest hex>         images that the operator keeps
//! <store>/prefetched/<owner>.<wish>.<image key>   images that prefetches keep
//! <store>/volumes/                    volume records, see crate::node::volume
//! <store>/unsealed                    some objects may lack fs-verity (made where there was none, enable_verity.rs)
//! ```
//!
//! What holds at every instant, kill -9 and power cuts included:
//! * An image record names only what a `syncfs` has covered ([`Store::commit_image`]).
//! * A layer record, synced or staged in this boot, names only objects that are there: the sweep removes
//!   records before layers, and layers before objects.
//! * An object that no record names is never trusted across a power cut (`markers.rs`).
//! * Nothing is removed that a hold of any process keeps ([`Hold`]), and nothing at all while it is unknown what is
//!   needed ([`gc`]).
//! * No record is believed that does not carry a code of the node's key ([`NodeKey`]). The key lies outside: a process
//!   that can only write to this directory cannot make an image, a layer or a DiffID that is believed.
//!
//! `parts` has the directories and their records, each in a part of its own. The other files are what the parts
//! stand on (disk, key, lock, record) and the operations above them (commit, sweep, collect, examine, usage).
//!
//! The store knows nothing of mounts: the caller that removes images says which ones are mounted.

mod aside;
mod check;
mod collect;
mod commit;
mod contents;
mod disk;
mod enable_verity;
mod error;
mod examine;
mod explain;
mod file_name;
mod filesystem;
pub mod gc;
mod held;
mod hold;
mod holds;
mod image_record;
mod inventory;
mod key;
mod listing;
mod lock;
mod marked;
mod markers;
mod member;
mod metrics;
mod mounted;
mod open;
mod parts;
mod pin;
mod record;
mod recover;
mod remove_damaged;
mod rounds;
mod scrub;
mod sharing;
mod space;
mod sweep;
mod usage;
mod useless;
mod version;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

pub use crate::durable_file::Steps;
pub use check::{Checked, Finding, Weight};
pub use collect::{CollectRequest, Collected};
pub use enable_verity::VerityProgress;
pub use error::StoreError;
pub use examine::Examined;
pub use explain::{Explained, Shown, Why};
pub use filesystem::Filesystem;
pub use held::Held;
pub use hold::Hold;
pub use image_record::{ImageRecord, Variant};
pub use key::{KEY_LENGTH, KeyError, NodeKey};
pub use member::Member;
pub use metrics::StoreMetrics;
pub use mounted::{Mounted, MountedImages};
pub use parts::access::{Access, AccessRecord, AccessSubject};
pub use parts::evidence::EvidenceStore;
pub use parts::images::{Images, Listing, StoredImage};
pub use parts::layers::{LayerEntries, LayerSize, Layers, StagedLayer};
pub use parts::names::Names;
pub use parts::objects::StoredObjects;
pub(crate) use parts::partials::Geometry;
pub use parts::partials::{NotKept, Partial, PartialOf, Partials};
pub use parts::pins::{Pin, PinNote, Pins, REASON_MAX};
pub use parts::prefetched::{PrefetchPin, Prefetched};
pub use parts::volumes::Volumes;
pub use scrub::{ScrubCursor, Scrubber};
pub use space::{Measure, Space};
pub use sweep::Swept;
pub use usage::{ImageUsage, Usage};

use crate::integrity::Integrity;
use disk::Disk;
use lock::StoreLock;
use parts::Parts;
use rounds::Rounds;

/// Percent of the filesystem that pulls leave free without a setting: of a small node's disk enough for kubelet's and
/// containerd's own files, of a large one no room wasted.
pub const MIN_FREE: u8 = 2;

/// How long a partial blob is kept without a setting: over a night in which a registry is down.
pub const KEEP_PARTIAL: Duration = Duration::from_secs(24 * 3600);

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// What its records are authenticated with.
    pub key: NodeKey,
    /// The id of this boot; the kernel's by default.
    pub boot_id: Option<String>,
    /// How long to wait for another collection, or a sweep's slice, before giving up as busy.
    pub patience: Duration,
    /// The same for an opening that has only to tidy up, which another one can do as well.
    pub tidy_patience: Duration,
    /// How the room on the filesystem is measured.
    pub measure: Measure,
    /// Percent of the filesystem's bytes and of its inodes that pulls leave free.
    pub min_free: u8,
    /// How long a partial blob is kept that nobody goes on with; zero for not at all.
    pub keep_partial: Duration,
    /// Directories of other stores on this machine, whose objects are taken instead of being written.
    pub object_sources: Vec<PathBuf>,
    /// Called before each step that changes the disk.
    pub steps: Steps,
}

impl Options {
    /// The defaults, which are right outside of tests.
    pub fn new(key: NodeKey) -> Self {
        Self {
            key,
            boot_id: None,
            patience: Duration::from_secs(30),
            // Longer than a program that is being started keeps the descriptors, and with them the locks, of the process
            // that starts it.
            tidy_patience: Duration::from_millis(50),
            measure: Measure::default(),
            min_free: MIN_FREE,
            keep_partial: KEEP_PARTIAL,
            object_sources: Vec::new(),
            steps: Steps::default(),
        }
    }
}

/// A node's store. Several processes may have one open at a time.
#[derive(Debug)]
pub struct Store {
    disk: Disk,
    store_lock: StoreLock,
    parts: Parts,
    filesystem: Filesystem,
    patience: Duration,
    tidy_patience: Duration,
    measure: Measure,
    metrics: StoreMetrics,
    /// Of collections by watermarks.
    rounds: Mutex<Rounds>,
}

impl Store {
    /// The store's directory.
    pub fn root(&self) -> &Path {
        self.disk.root()
    }

    /// The filesystem under the store, as probed when it was opened.
    pub fn filesystem(&self) -> &Filesystem {
        &self.filesystem
    }

    /// How far the bytes read from here are checked.
    pub fn integrity(&self) -> Integrity {
        self.filesystem.integrity()
    }

    /// A hold that keeps nothing yet. It costs nothing before its first note.
    pub fn hold(&self) -> Hold {
        Hold::new(&self.disk, &self.parts.holds, &self.store_lock, self.patience)
    }

    /// A hold for who only looks: on a disk that is full or read-only it does without, and what is looked at may go.
    fn hold_to_look(&self, things: &[Held]) -> Result<Option<Hold>, StoreError> {
        let hold = self.hold();
        match hold.keep_blocking(things) {
            Ok(()) => Ok(Some(hold)),
            Err(error) if error.is_unwritable() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All images, held to be looked at; those that go meanwhile are not listed.
    fn hold_all_images(&self) -> Result<(Option<Hold>, Listing), StoreError> {
        let mut listing = self.parts.images.list()?;
        let things: Vec<_> = listing.images.iter().flat_map(|image| Held::of(&image.record)).collect();
        let hold = self.hold_to_look(&things)?;
        if let Some(hold) = &hold {
            listing = self.parts.images.list()?;
            listing.images.retain(|image| hold.keeps(&image.record));
        }
        Ok((hold, listing))
    }

    /// How full the store's filesystem is.
    ///
    /// # Errors
    /// Those of statvfs(3).
    pub fn space(&self) -> Result<Space, StoreError> {
        self.measure.of(self.root()).map_err(|error| self.disk.error("measure", self.root(), error))
    }

    /// File contents and composefs images.
    pub fn objects(&self) -> &StoredObjects {
        &self.parts.objects
    }

    /// What the layers of images consist of.
    pub fn layers(&self) -> &Layers {
        &self.parts.layers
    }

    /// What has been received of blobs that are not whole yet.
    pub fn partials(&self) -> &Partials {
        &self.parts.partials
    }

    /// The records of images.
    pub fn images(&self) -> &Images {
        &self.parts.images
    }

    /// What references resolved to.
    pub fn names(&self) -> &Names {
        &self.parts.names
    }

    /// Who could read an image or a blob, and where it came from.
    pub fn access(&self) -> &Access {
        &self.parts.access
    }

    /// What images are judged by at every mount.
    pub fn evidence(&self) -> &EvidenceStore {
        &self.parts.evidence
    }

    /// The images that the operator keeps.
    pub fn pins(&self) -> &Pins {
        &self.parts.pins
    }

    /// The images that prefetches keep.
    pub fn prefetched(&self) -> &Prefetched {
        &self.parts.prefetched
    }

    /// The volumes that show images.
    pub fn volumes(&self) -> &Volumes {
        &self.parts.volumes
    }
}

#[cfg(test)]
mod golden;
