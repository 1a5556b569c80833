//! Builds at the same time, within a budget of memory, in fair order ([ADR 0020](../../docs/adr/0020-turns.md)).
//!
//! A build holds a whole tree. How much memory that takes is estimated from what the layers' records say of themselves.
//! One that takes more than everything is refused: it would take the process with it, and again at each attempt. A build
//! that nobody waits for any more stops, and its memory is free when it has.

use std::sync::Arc;

use super::busy::Occupied;
use super::recipe::StoredPart;
use super::turns::Tenant;
use super::{PullError, background, blocking};
use crate::fair::Gate;
use crate::image::store::{LayerSize, Store};
use crate::image::tree::Stop;
use crate::oci::limits::{Cap, ImageLimits};

/// Builds at the same time, however small. More would only share the processor.
const BUILDS_MAX: u64 = 4;

/// Bytes of memory for each inode while an image is built, besides its names and contents (`tests/image_memory.rs`
/// measures them): of an ordinary file, and with attributes.
const INODE_BYTES: u64 = 400;

/// The same where images are read, as to combine them: the composefs crate makes a tree of its own of each.
const COMBINED_BYTES: u64 = 1_000;

const MEBIBYTE: u64 = 1 << 20;

/// What an image is built of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BuiltOf {
    /// Layers and other parts.
    Parts,
    /// Images of the same parts.
    Images,
}

/// The builders of a node.
#[derive(Debug)]
pub(super) struct Builders {
    store: Arc<Store>,
    gate: Gate<Tenant>,
    /// MiB for all builds.
    memory: u64,
    limits: ImageLimits,
}

impl Builders {
    /// Builds that take at most `memory` MiB together. One tenant gets all but a quarter.
    pub(super) fn new(store: Arc<Store>, memory: u64, limits: ImageLimits) -> Self {
        let memory = memory.max(BUILDS_MAX);
        Self { store, gate: Gate::new(memory, memory - memory / BUILDS_MAX), memory, limits }
    }

    /// How many MiB are in use.
    pub(super) fn busy(&self) -> Occupied {
        self.gate.occupancy().into()
    }

    /// Builds when there is memory for it. Dropped, the future stops the build, which holds its memory until it has.
    /// `image` is for messages.
    ///
    /// # Errors
    /// [`PullError::Limit`] if the build takes more memory than there is for all, and those of `build`.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        tenant: Tenant,
        (parts, built_of): (Vec<StoredPart>, BuiltOf),
        image: &str,
        build: impl FnOnce(&Stop) -> Result<T, PullError> + Send + 'static,
    ) -> Result<T, PullError> {
        let store = Arc::clone(&self.store);
        let sizes = blocking(image, move || {
            // A part that is lost or no good takes no memory: the build says so, and its caller knows what to do.
            let size = |part: &StoredPart| store.layers().size(&part.layer).ok();
            parts.iter().filter_map(size).collect::<Vec<_>>()
        });
        let needed = memory_for(&sizes.await?, built_of, &self.limits);
        self.run_within(tenant, needed, image, build).await
    }

    /// The same for work on a tree that takes `needed` MiB.
    ///
    /// # Errors
    /// As [`Builders::run`].
    pub(super) async fn run_within<T: Send + 'static>(
        &self,
        tenant: Tenant,
        needed: u64,
        image: &str,
        build: impl FnOnce(&Stop) -> Result<T, PullError> + Send + 'static,
    ) -> Result<T, PullError> {
        if needed > self.memory {
            let exceeded = Cap::BuildMemory.exceeded(needed, self.memory);
            return Err(PullError::Limit { image: image.to_owned(), exceeded });
        }
        let pass = self.gate.enter(tenant, needed.max(self.memory / BUILDS_MAX)).await;
        let stop = StopOnDrop(Stop::default());
        let flag = stop.0.clone();
        let work = move || {
            let _pass = pass;
            build(&flag)
        };
        background(image, work).outcome().await?
    }
}

struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// MiB that reading back a composefs image of so many bytes may take: no inode takes fewer than 150 of them.
pub(super) fn memory_to_read(image_bytes: u64, limits: &ImageLimits) -> u64 {
    let inodes = (image_bytes / 150).min(limits.inodes as u64);
    inodes.saturating_mul(COMBINED_BYTES).saturating_add(image_bytes.saturating_mul(2)).div_ceil(MEBIBYTE)
}

/// MiB that building an image of these layers may take.
fn memory_for(layers: &[LayerSize], built_of: BuiltOf, limits: &ImageLimits) -> u64 {
    let sum = |of: fn(&LayerSize) -> u64| layers.iter().map(of).fold(0, u64::saturating_add);
    let inodes = sum(|layer| layer.entries).min(limits.inodes as u64);
    let bytes = sum(|layer| layer.bytes).min(limits.metadata_bytes as u64);
    // Names and contents are in the tree; of images also in their bytes, and in the tree that is read from them.
    let (inode, copies) = match built_of {
        BuiltOf::Parts => (INODE_BYTES, 1),
        BuiltOf::Images => (COMBINED_BYTES, 2),
    };
    inodes.saturating_mul(inode).saturating_add(bytes.saturating_mul(copies)).div_ceil(MEBIBYTE)
}

#[cfg(test)]
mod tests;
