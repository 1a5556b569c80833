//! What all layers of a node share while they are put together: memory for their tables and for ranges that wait for those
//! before them, of which a node has little beside what builds may take, and connections.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::fair::{Gate, Pass};
use crate::image::chunked::Positions;
use crate::oci::Source;
use crate::pull::turns::Tenant;

const UNIT: u64 = 1 << 10;
/// What the ranges of all layers take, beside the first request of each. One tenant has at most three quarters.
const RANGES_MAX: u64 = 32 << 20;

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

/// Memory for ranges that have come before their turn.
#[derive(Debug, Clone)]
pub(in crate::pull) struct RangeMemory(Gate<Tenant>);

/// Memory that is lent for a range; `None`: it is the layer's own.
pub(super) type Room = Option<Pass<Tenant>>;

impl Default for RangeMemory {
    fn default() -> Self {
        let all = RANGES_MAX / UNIT;
        Self(Gate::new(all, all - all / 4))
    }
}

/// What is lent to a layer for its ranges.
pub(super) struct Lent<'a> {
    /// Whose layer it is.
    pub tenant: Tenant,
    /// The connections of all layers beyond the first of each; `None` where there are none.
    pub connections: Option<&'a Gate<Tenant>>,
    pub memory: &'a RangeMemory,
}

impl Lent<'_> {
    /// Memory for so many bytes, if it is free now. It is not waited for: a layer that has some may wait for its pipeline.
    pub(super) fn memory(&self, bytes: u64) -> Option<Pass<Tenant>> {
        self.memory.0.try_enter(self.tenant.clone(), u64::from(units(bytes)))
    }

    /// Waits for the right to one more connection. There is none to a server that refused one lately.
    pub(super) async fn connection(&self, source: &dyn Source) -> Pass<Tenant> {
        match self.connections {
            Some(connections) if source.takes_extra_ranges() => {
                connections.enter(self.tenant.clone(), 1).await
            }
            _ => std::future::pending().await,
        }
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
