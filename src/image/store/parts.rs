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
pub(super) mod pins;
pub(super) mod volumes;

use access::Access;
use evidence::EvidenceStore;
use first_digests::FirstDigests;
use images::Images;
use layers::Layers;
use names::Names;
use objects::StoredObjects;
use pins::Pins;
use volumes::Volumes;

use super::NodeKey;
use super::disk::{self, Disk};
use super::holds::Holds;
use super::markers::Markers;
use crate::image::objects::Objects;

/// The directories of a store, besides its root. `objects/xx` and `staging/<boot id>` are made below them.
pub(super) const DIRECTORIES: [&str; 16] = [
    disk::TEMPORARY,
    Markers::DIRECTORY,
    Holds::DIRECTORY,
    StoredObjects::DIRECTORY,
    Layers::DIRECTORY,
    Layers::STAGING,
    Layers::BLOBS,
    Layers::CONTENTS,
    Access::BLOBS,
    Images::DIRECTORY,
    Access::IMAGES,
    EvidenceStore::DIRECTORY,
    Names::DIRECTORY,
    FirstDigests::DIRECTORY,
    Pins::DIRECTORY,
    Volumes::DIRECTORY,
];

/// All parts of one store, seen from one boot.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) holds: Holds,
    pub(super) objects: StoredObjects,
    pub(super) layers: Layers,
    pub(super) images: Images,
    pub(super) names: Names,
    pub(super) access: Access,
    pub(super) evidence: EvidenceStore,
    pub(super) first_digests: FirstDigests,
    pub(super) pins: Pins,
    pub(super) volumes: Volumes,
}

impl Parts {
    pub(super) fn new(disk: &Disk, key: &NodeKey, boot_id: &str, objects: Objects) -> Self {
        Self {
            holds: Holds::new(disk),
            objects: StoredObjects::new(disk, objects, Markers::new(disk, boot_id)),
            layers: Layers::new(disk, key, boot_id),
            images: Images::new(disk, key),
            names: Names::new(disk, key),
            access: Access::new(disk, key),
            evidence: EvidenceStore::new(disk),
            first_digests: FirstDigests::new(disk, key),
            pins: Pins::new(disk),
            volumes: Volumes::new(disk, boot_id),
        }
    }
}
