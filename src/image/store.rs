//! The object store of a node: what is kept, how it survives a crash, who may remove it.
//!
//! ```text
//! <store>/version                     {"format":1,"algorithm":"sha256"}
//! <store>/lock                        flock: shared by leases, exclusive by the sweep
//! <store>/tmp/                        files about to be renamed, each locked while its writer lives
//! <store>/dirty/<boot id>.<unique>    a lease whose objects no sync has covered yet
//! <store>/objects/xx/<62 hex>         file contents and composefs images, by fs-verity digest
//! <store>/layers/<diffid hex>         layer metadata, synced
//! <store>/staging/<boot id>/<diffid hex>   layer metadata of an unfinished pull, valid for this boot only
//! <store>/blobs/<blob hex>            the DiffID that a compressed blob was found to have
//! <store>/fetched/<blob hex>/         which credentials have fetched a blob from where
//! <store>/images/<manifest hex>.json  one record per image; its mtime is when it was last used
//! <store>/access/<manifest hex>/      where an image came from, and who could read it there
//! <store>/dossiers/<manifest hex>/    what an image is judged by at every mount
//! <store>/names/<hash>.json           what a reference and platform resolved to
//! <store>/digests/<manifest hex>.json what composefs digest a manifest had when it was first built; outlives the image
//! <store>/pins/<manifest hex>         images that the operator keeps
//! <store>/volumes/                    volume records, see crate::node::volume
//! <store>/unsealed                    some objects may lack fs-verity (made where there was none)
//! ```
//!
//! What holds at every instant, kill -9 and power cuts included:
//! * An image record names only what a `syncfs` has covered ([`Store::commit_image`]).
//! * A layer record, synced or staged in this boot, names only objects that are there: the sweep removes
//!   records before layers, and layers before objects.
//! * An object that no record reaches is never trusted across a power cut (`dirty.rs`).
//! * Nothing is removed while a lease exists in any process ([`Lease`]), and nothing at all while it
//!   is unknown what is needed ([`gc`]).
//!
//! * No record is believed that does not carry a code of the node's key ([`NodeKey`]), which lies outside: whoever
//!   can only write to this directory cannot make an image, a layer or a link out of what he writes.
//!
//! The store knows nothing of mounts: whoever asks it to remove images says which ones are mounted.

mod access;
mod collect;
mod commit;
mod digests;
mod dirty;
mod disk;
mod enable_verity;
mod error;
mod evidence;
mod examine;
mod facts;
pub mod gc;
mod image;
mod images;
mod key;
mod layers;
mod layout;
mod lease;
mod mark;
mod metrics;
mod names;
mod open;
mod recover;
mod remove_damaged;
mod roots;
mod space;
mod sweep;
mod usage;
mod version;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use access::{AccessRecord, AccessSubject};
pub use collect::{Collected, Request};
pub use disk::Steps;
pub use error::StoreError;
pub use examine::Examined;
pub use facts::Filesystem;
pub use image::ImageRecord;
pub use images::{Listing, StoredImage};
pub use key::{KEY_LENGTH, KeyError, MAC_LENGTH, NodeKey};
pub use layers::{LayerEntries, StagedLayer};
pub use lease::Lease;
pub use metrics::StoreMetrics;
pub use space::{Measure, Space};
pub use sweep::Swept;
pub use usage::{ImageUsage, Usage};

use crate::image::objects::Objects;
use crate::image::verity::VerityDigest;
use crate::integrity::Integrity;
use disk::Disk;
use layout::Layout;
use lease::StoreLock;

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// What its records are authenticated with.
    pub key: NodeKey,
    /// The id of this boot; the kernel's by default.
    pub boot_id: Option<String>,
    /// How long to wait for somebody else's lease or sweep before giving up as busy.
    pub patience: Duration,
    /// How the room on the filesystem is measured.
    pub measure: Measure,
    /// Called before each step that changes the disk.
    pub steps: Steps,
}

impl Options {
    /// What is right outside of tests.
    pub fn new(key: NodeKey) -> Self {
        Self {
            key,
            boot_id: None,
            patience: Duration::from_secs(30),
            measure: Measure::default(),
            steps: Steps::default(),
        }
    }
}

/// A node's store. Several processes may have one open at a time.
#[derive(Debug)]
pub struct Store {
    key: NodeKey,
    layout: Layout,
    disk: Disk,
    store_lock: StoreLock,
    objects: Objects,
    filesystem: Filesystem,
    patience: Duration,
    measure: Measure,
    metrics: StoreMetrics,
}

impl Store {
    /// The store's directory.
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// Where volume records are kept.
    pub fn volumes(&self) -> PathBuf {
        self.layout.volumes()
    }

    /// The filesystem under the store, as probed when it was opened.
    pub fn filesystem(&self) -> &Filesystem {
        &self.filesystem
    }

    /// What records of this node are authenticated with.
    pub fn key(&self) -> &NodeKey {
        &self.key
    }

    /// How far the bytes read from here are checked.
    pub fn integrity(&self) -> Integrity {
        self.filesystem.integrity()
    }

    /// Keeps everything in the store while the lease lives; waits for a sweep in progress.
    ///
    /// # Errors
    /// [`StoreError::Busy`] after [`Options::patience`], and those of opening the lock file.
    pub async fn lease(&self) -> Result<Lease, StoreError> {
        self.store_lock.shared(self.patience).await
    }

    /// [`Store::lease`] for callers that may block.
    ///
    /// # Errors
    /// The same.
    pub fn lease_blocking(&self) -> Result<Lease, StoreError> {
        self.store_lock.shared_blocking(self.patience)
    }

    /// The objects, to write to under `lease` until it is committed. The first call of a lease waits
    /// for the disk: the marker of its writes must be there before they are.
    ///
    /// # Errors
    /// Those of writing the marker.
    pub fn objects(&self, lease: &Lease) -> Result<Objects, StoreError> {
        lease.mark(|| dirty::Marker::make(&self.disk, &self.layout))?;
        Ok(self.objects.clone())
    }

    /// The directory of the objects, for the overlay's data layer.
    pub fn objects_directory(&self) -> &Path {
        self.objects.directory()
    }

    /// Where an object is, or would be.
    pub fn object_path(&self, digest: &VerityDigest) -> PathBuf {
        self.objects.path(digest)
    }
}
