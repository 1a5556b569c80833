//! What an operator wants to know of a node plugin on a bad day, in one answer: whether it is ready, what it is pulling
//! and for whom, what is busy, and how much room there is. Gathered anew for each question; nothing is kept for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::csi::readiness::Readiness;
use crate::image::store::gc::Policy;
use crate::image::store::{Space, Store};
use crate::integrity::Integrity;
use crate::node::corruption::CorruptImages;
use crate::node::volume::Volumes;
use crate::pull::{Busy, PullUnderWay, Puller};

/// How long the store's filesystem may take to say how full it is. One that hangs must not hide all the rest.
const PATIENCE: Duration = Duration::from_secs(2);

/// The state of a node plugin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The release that runs.
    pub version: String,
    /// The node's name.
    pub node: String,
    /// How long it has served volumes, in seconds.
    pub seconds: u64,
    /// Why it is not ready, if it is not.
    pub not_ready: Option<String>,
    /// The integrity level of every mount.
    pub integrity: Integrity,
    /// Why the kernel does not check every read, if it does not.
    pub no_read: Option<String>,
    /// Targets on which volumes are mounted.
    pub volumes: usize,
    /// Images with content that the kernel refuses to read.
    pub damaged_images: usize,
    /// The store's filesystem; absent if it does not answer.
    pub room: Option<Room>,
    /// What is lent in turns.
    pub busy: Busy,
    /// The pulls under way, the oldest first.
    pub pulls: Vec<PullUnderWay>,
}

/// The room on the store's filesystem.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Room {
    /// The store's directory.
    pub directory: String,
    /// Bytes of the filesystem, without what is reserved for root.
    pub total_bytes: u64,
    /// Bytes in use, by the store and by others.
    pub used_bytes: u64,
    /// Inodes of the filesystem; 0 if it makes them as it goes.
    pub total_inodes: u64,
    /// Inodes in use.
    pub used_inodes: u64,
    /// How full it is, of bytes or of inodes, in percent.
    pub percent: u64,
    /// The percentage at which unneeded images begin to go.
    pub gc_high: Option<u8>,
    /// The percentage at which that ends.
    pub gc_low: Option<u8>,
    /// The percentage that pulls leave free.
    pub min_free: u8,
}

/// Where the status comes from.
#[derive(Debug)]
pub(super) struct StatusSource {
    pub node: String,
    pub since: Instant,
    pub ready: Readiness,
    pub volumes: Volumes,
    pub corrupt_images: CorruptImages,
    pub store: Arc<Store>,
    pub puller: Arc<Puller>,
    pub policy: Policy,
    pub min_free: u8,
    /// Held while the filesystem is asked: where a disk hangs, one thread hangs with it, and not one for each question.
    pub asking: Arc<Mutex<()>>,
}

impl StatusSource {
    /// The state of now.
    pub(super) async fn status(&self) -> NodeStatus {
        let levels = self.volumes.levels();
        NodeStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node.clone(),
            seconds: self.since.elapsed().as_secs(),
            not_ready: self.ready.problem().await,
            integrity: levels.here,
            no_read: levels.no_read.clone(),
            volumes: self.volumes.published(),
            damaged_images: self.corrupt_images.len(),
            room: self.room().await,
            busy: self.puller.busy(),
            pulls: self.puller.under_way(),
        }
    }

    async fn room(&self) -> Option<Room> {
        let (store, turn) = (Arc::clone(&self.store), Arc::clone(&self.asking));
        let turn = tokio::time::timeout(PATIENCE, turn.lock_owned()).await.ok()?;
        let asked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            store.space()
        });
        let Space { total, used } = tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()?.ok()?;
        let (gc_high, gc_low) = match self.policy {
            Policy::Watermarks { high, low, .. } => (Some(high), Some(low)),
            Policy::Unneeded { .. } => (None, None),
        };
        Some(Room {
            directory: self.store.root().display().to_string(),
            total_bytes: total.bytes,
            used_bytes: used.bytes,
            total_inodes: total.inodes,
            used_inodes: used.inodes,
            percent: Space { total, used }.percent(),
            gc_high,
            gc_low,
            min_free: self.min_free,
        })
    }
}
