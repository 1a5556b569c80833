//! Memory for the tables of layers, of which a node has little beside what builds may take.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::image::chunked::Positions;

const UNIT: u64 = 1 << 10;

/// What all layers of a node may take for their tables: as much as the largest of them.
#[derive(Debug, Clone)]
pub(in crate::pull) struct TableMemory(Arc<Semaphore>);

/// Memory that is taken. Dropped, it is free.
pub(in crate::pull) type Taken = OwnedSemaphorePermit;

impl Default for TableMemory {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(units(Positions::MEMORY_MAX) as usize)))
    }
}

impl TableMemory {
    /// Takes what a plan for the layer needs, if it is free now. Its turn is not waited for: the layers that have it may
    /// come from slow registries.
    pub(in crate::pull) fn try_take(&self, positions: &Positions) -> Option<Taken> {
        Arc::clone(&self.0).try_acquire_many_owned(units(positions.memory())).ok()
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::chunked::Section;
    use crate::oci::digest::Digest;

    #[test]
    fn the_largest_tables_fit_alone() {
        let memory = TableMemory::default();
        let section = |length, unpacked| Section { start: 0, length, unpacked };
        let of = |unpacked| Positions {
            toc: section(16 << 20, unpacked),
            toc_digest: Digest::of(b""),
            tar_split: section(16 << 20, 1 << 30),
        };
        let all = memory.try_take(&of(48 << 20));
        assert!(all.is_some() && memory.try_take(&of(1)).is_none());
        drop(all);
        let some = [memory.try_take(&of(10 << 20)), memory.try_take(&of(10 << 20))];
        assert!(some.iter().all(Option::is_some) && memory.try_take(&of(20 << 20)).is_none());
    }
}
