//! The number of objects and their size, as metrics.

use crate::metrics::{Description, Family, Gauge};

const OBJECTS: Description =
    Description::new("store_objects", "Objects in the store: distinct file contents and images");
const BYTES: Description = Description::new("store_bytes", "Disk space of those objects, allocated blocks");
/// Bytes of the blocks in which filesystems allocate files.
const BLOCK: u64 = 4096;

/// The gauges of one store's objects.
#[derive(Debug, Clone)]
pub(in crate::image) struct ObjectMetrics {
    count: Gauge,
    bytes: Gauge,
}

impl Default for ObjectMetrics {
    fn default() -> Self {
        Self { count: Gauge::new(OBJECTS), bytes: Gauge::new(BYTES) }
    }
}

impl ObjectMetrics {
    /// Counts a new object of `size` bytes.
    pub(in crate::image) fn written(&self, size: u64) {
        self.count.add(1);
        self.bytes.add(i64::try_from(size.next_multiple_of(BLOCK)).unwrap_or(i64::MAX));
    }

    /// Counts removed objects and their bytes.
    pub(in crate::image) fn removed(&self, objects: u64, bytes: u64) {
        self.count.add(-i64::try_from(objects).unwrap_or(i64::MAX));
        self.bytes.add(-i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Sets both to what was found in the store.
    pub(in crate::image) fn set(&self, count: u64, bytes: u64) {
        self.count.set(count);
        self.bytes.set(bytes);
    }

    pub(in crate::image) fn families(&self) -> [&dyn Family; 2] {
        [&self.count, &self.bytes]
    }
}
