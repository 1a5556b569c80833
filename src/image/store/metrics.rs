//! The store measured: what it holds, and what garbage collection takes out of it.
//!
//! [`Store::measure`] looks at every object, so it is called rarely; and only then do the gauges of objects and images
//! change, so that they tell nobody what one pull brought (see [`coarse`]).

use super::{Collected, Store, StoreError};
use crate::image::objects::ObjectMetrics;
use std::sync::Arc;

use crate::metrics::coarse::{self, HeldBack};
use crate::metrics::{Counter, Description, Durations, Family, Gauge, Instruments, Outcome, Timing};

const IMAGES: Description = Description::new("store_images", "Images in the store, counted hourly");
const FILESYSTEM: Description = Description::new(
    "store_filesystem_bytes",
    "Size of the store's filesystem, without what is reserved for root",
);
const FILESYSTEM_USED: Description = Description::new(
    "store_filesystem_used_bytes",
    "Bytes of it that are used, by the store and by others, rounded up to a thousandth of it",
);
const WITHOUT_VERITY: Description = Description::new(
    "store_objects_without_verity",
    "Objects on which fs-verity is still to be enabled, after the filesystem got it",
);
const GC_DURATION: Description = Description::new(
    "gc_duration_seconds",
    "Rounds of garbage collection by how they ended; most find nothing to do",
);
const GC_IMAGES: Description =
    Description::new("gc_removed_images_total", "Images that garbage collection removed");
const GC_OBJECTS: Description = Description::new(
    "gc_removed_objects_total",
    "Objects that garbage collection removed, in thousands, hourly",
);
const GC_BYTES: Description = Description::new(
    "gc_removed_bytes_total",
    "Disk space of the objects that garbage collection removed, in steps of 64 MiB, hourly",
);
const GC_NO_ROOM: Description = Description::new(
    "gc_no_room",
    "1 while the filesystem is above the high mark and garbage collection can make no more room, else 0",
);
const SCRUB_BYTES: Description =
    Description::new("scrub_bytes_total", "Bytes of objects that scrubbing has read, in steps of 64 MiB");
const SCRUB_ENDED: Description = Description::new(
    "scrub_last_round_timestamp_seconds",
    "When scrubbing last ended a round over all objects, seconds since 1970; 0 if it never has",
);
const DAMAGED: Description = Description::new(
    "store_damaged_objects",
    "Objects that were found damaged and are not whole again; the images that have them are in quarantine",
);
const BUCKETS: [f64; 8] = [0.005, 0.05, 0.25, 1.0, 5.0, 20.0, 60.0, 300.0];

/// The metrics of a store. Clones count into the same.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    pub(super) objects: ObjectMetrics,
    images: Gauge,
    filesystem: Gauge,
    filesystem_used: Gauge,
    pub(super) without_verity: Gauge,
    gc: Durations<Outcome>,
    gc_images: Counter,
    gc_objects: Counter,
    gc_bytes: Counter,
    gc_no_room: Gauge,
    scrub_bytes: Counter,
    scrub_ended: Gauge,
    pub(super) damaged: Gauge,
    /// Objects, and their bytes, that are not shown yet.
    held_back: Arc<(HeldBack, HeldBack, HeldBack)>,
}

impl StoreMetrics {
    pub(super) fn new(objects: ObjectMetrics) -> Self {
        Self {
            objects,
            images: Gauge::new(IMAGES),
            filesystem: Gauge::new(FILESYSTEM),
            filesystem_used: Gauge::new(FILESYSTEM_USED),
            without_verity: Gauge::new(WITHOUT_VERITY),
            gc: Durations::new(GC_DURATION, &BUCKETS),
            gc_images: Counter::new(GC_IMAGES),
            gc_objects: Counter::new(GC_OBJECTS),
            gc_bytes: Counter::new(GC_BYTES),
            gc_no_room: Gauge::new(GC_NO_ROOM),
            scrub_bytes: Counter::new(SCRUB_BYTES),
            scrub_ended: Gauge::new(SCRUB_ENDED),
            damaged: Gauge::new(DAMAGED),
            held_back: Arc::new((
                HeldBack::new(coarse::OBJECTS),
                HeldBack::new(coarse::BYTES),
                HeldBack::new(coarse::BYTES),
            )),
        }
    }

    pub(super) fn collection(&self) -> Timing {
        Timing::start(&self.gc)
    }

    /// Whether the last round by watermarks has left the filesystem above the mark.
    pub(super) fn no_room(&self, is_so: bool) {
        self.gc_no_room.set(u64::from(is_so));
    }

    pub(super) fn scrub_read(&self, bytes: u64) {
        self.scrub_bytes.add(self.held_back.2.add(bytes));
    }

    /// A round of scrubbing ended so many seconds after 1970.
    pub(super) fn scrubbed(&self, ended: u64) {
        self.scrub_ended.set(ended);
    }

    pub(super) fn collected(&self, done: &Collected) {
        self.gc_images.add(done.images.len() as u64);
        self.gc_objects.add(self.held_back.0.add(done.swept.objects));
        self.gc_bytes.add(self.held_back.1.add(done.swept.bytes));
    }
}

impl Instruments for StoreMetrics {
    fn families(&self) -> Vec<&dyn Family> {
        let [objects, bytes] = self.objects.families();
        vec![
            objects,
            bytes,
            &self.images,
            &self.filesystem,
            &self.filesystem_used,
            &self.without_verity,
            &self.gc,
            &self.gc_images,
            &self.gc_objects,
            &self.gc_bytes,
            &self.gc_no_room,
            &self.scrub_bytes,
            &self.scrub_ended,
            &self.damaged,
        ]
    }
}

impl Store {
    /// What is measured of this store.
    pub fn metrics(&self) -> &StoreMetrics {
        &self.metrics
    }

    /// Looks at every object and sets the gauges to what is there. Blocking, one statx(2) per object; what
    /// comes or goes meanwhile may be missed until the next time.
    ///
    /// # Errors
    /// Those of reading directories.
    pub fn measure(&self) -> Result<(), StoreError> {
        let (count, bytes) = self.parts.objects.total()?;
        self.metrics.objects.set(count, bytes);
        self.metrics.scrubbed(self.scrub_cursor()?.last_ended.unwrap_or(0));
        self.count_damage()?;
        self.metrics.images.set(self.parts.images.manifests()?.len() as u64);
        self.measure_room()
    }

    /// Sets the gauges of the room on the filesystem. Blocking, one system call.
    ///
    /// # Errors
    /// Those of statvfs(3).
    pub fn measure_room(&self) -> Result<(), StoreError> {
        let space = self.space()?;
        self.metrics.filesystem.set(space.total.bytes);
        self.metrics.filesystem_used.set(coarse::part(space.used.bytes, space.total.bytes));
        Ok(())
    }
}
