//! The number of objects and their size, as metrics. They are measured now and then, and do not follow each object: see
//! [`coarse`].

use crate::metrics::{Description, Family, Gauge, coarse};

const OBJECTS: Description = Description::new(
    "store_objects",
    "Objects in the store, distinct file contents and images, rounded up to thousands and measured hourly",
);
const BYTES: Description = Description::new(
    "store_bytes",
    "Disk space of those objects, allocated blocks, rounded up to 64 MiB and measured hourly",
);

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
    /// Sets both to what was found in the store.
    pub(in crate::image) fn set(&self, count: u64, bytes: u64) {
        self.count.set(count.next_multiple_of(coarse::OBJECTS));
        self.bytes.set(bytes.next_multiple_of(coarse::BYTES));
    }

    pub(in crate::image) fn families(&self) -> [&dyn Family; 2] {
        [&self.count, &self.bytes]
    }
}
