//! The parts of a store: each owns its directories, its sort of record, and what the codes of those are made for.
//!
//! A part knows the disk and the node's key, and no other part. What needs several parts (a commit, a sweep, a usage
//! report) is an operation above them, which is given the parts that it needs.

pub(super) mod access;
pub(super) mod evidence;
pub(super) mod first_digests;
pub(super) mod images;
pub(super) mod layers;
pub(super) mod names;
pub(super) mod objects;
pub(super) mod partials;
pub(super) mod pins;
pub(super) mod prefetched;
pub(super) mod volumes;

use access::Access;
use evidence::EvidenceStore;
use first_digests::FirstDigests;
use images::Images;
use layers::Layers;
use names::Names;
use objects::StoredObjects;
use partials::Partials;
use pins::Pins;
use prefetched::Prefetched;
use volumes::Volumes;

use std::time::Duration;

use super::NodeKey;
use super::damaged::DamagedObjects;
use super::disk::{self, Disk};
use super::holds::Holds;
use super::markers::Markers;
use super::space::Spare;
use crate::image::objects::Objects;

/// The directories of a store, besides its root. `objects/xx` and `staging/<boot id>` are made below them.
pub(super) const DIRECTORIES: [&str; 19] = [
    disk::TEMPORARY,
    Markers::DIRECTORY,
    Holds::DIRECTORY,
    StoredObjects::DIRECTORY,
    Layers::DIRECTORY,
    Layers::STAGING,
    Layers::BLOBS,
    Partials::DIRECTORY,
    Layers::CONTENTS,
    Access::BLOBS,
    Images::DIRECTORY,
    Access::IMAGES,
    EvidenceStore::DIRECTORY,
    Names::DIRECTORY,
    FirstDigests::DIRECTORY,
    Pins::DIRECTORY,
    Prefetched::DIRECTORY,
    Volumes::DIRECTORY,
    DamagedObjects::DIRECTORY,
];

/// All parts of one store, seen from one boot.
#[derive(Debug)]
pub(super) struct Parts {
    disk: Disk,
    pub(super) holds: Holds,
    pub(super) objects: StoredObjects,
    pub(super) layers: Layers,
    pub(super) partials: Partials,
    pub(super) images: Images,
    pub(super) names: Names,
    pub(super) access: Access,
    pub(super) evidence: EvidenceStore,
    pub(super) first_digests: FirstDigests,
    pub(super) pins: Pins,
    pub(super) prefetched: Prefetched,
    pub(super) damaged: DamagedObjects,
    pub(super) volumes: Volumes,
}

impl Parts {
    /// `spare` and `keep` are for partial blobs: the room that there is, and how long they are kept.
    pub(super) fn new(
        disk: &Disk,
        key: &NodeKey,
        boot_id: &str,
        objects: Objects,
        (spare, keep): (Spare, Duration),
    ) -> Self {
        let damaged = DamagedObjects::new(disk);
        Self {
            disk: disk.clone(),
            holds: Holds::new(disk),
            objects: StoredObjects::new(disk, objects, Markers::new(disk, boot_id), damaged.clone()),
            layers: Layers::new(disk, key, boot_id),
            partials: Partials::new(disk, boot_id, spare, keep),
            images: Images::new(disk, key),
            names: Names::new(disk, key),
            access: Access::new(disk, key),
            evidence: EvidenceStore::new(disk),
            first_digests: FirstDigests::new(disk, key),
            pins: Pins::new(disk),
            prefetched: Prefetched::new(disk),
            damaged,
            volumes: Volumes::new(disk, boot_id),
        }
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }
}
