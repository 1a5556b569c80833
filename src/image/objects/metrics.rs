//! How many objects there are, as metrics.

use crate::metrics::{Description, Family, Gauge};

const OBJECTS: Description =
    Description::new("store_objects", "Objects in the store: distinct file contents and images");
const BYTES: Description = Description::new("store_bytes", "Disk space of those objects, allocated blocks");
/// Blocks that filesystems allocate files in.
const BLOCK: u64 = 4096;

/// How many objects there are.
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
    /// One more, of `size` bytes.
    pub(in crate::image) fn written(&self, size: u64) {
        self.count.add(1);
        self.bytes.add(i64::try_from(size.next_multiple_of(BLOCK)).unwrap_or(i64::MAX));
    }

    /// So many fewer, and so many bytes.
    pub(in crate::image) fn removed(&self, objects: u64, bytes: u64) {
        self.count.add(-i64::try_from(objects).unwrap_or(i64::MAX));
        self.bytes.add(-i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// What there was found to be.
    pub(in crate::image) fn set(&self, count: u64, bytes: u64) {
        self.count.set(count);
        self.bytes.set(bytes);
    }

    pub(in crate::image) fn families(&self) -> [&dyn Family; 2] {
        [&self.count, &self.bytes]
    }
}
