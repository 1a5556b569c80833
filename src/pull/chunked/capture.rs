//! The table of contents of a layer that is fetched whole, caught as it passes by.

use std::sync::Arc;

use bytes::Bytes;

use super::memory::TableMemory;
use super::words::Tables;
use crate::image::chunked::{Positions, Toc};

/// Keeps the bytes of a layer that are its table of contents: at most as many as [`Positions`] admit.
pub(in crate::pull) struct Capture {
    positions: Option<Positions>,
    at: u64,
    packed: Vec<u8>,
}

impl Capture {
    /// Waits for the table, if its place is all that is known of it.
    pub(in crate::pull) fn of(tables: &Tables) -> Self {
        let positions = if let Tables::At(positions) = tables { Some(*positions) } else { None };
        Self { positions, at: 0, packed: Vec::new() }
    }

    /// Looks at the next bytes of the layer.
    pub(in crate::pull) fn see(&mut self, chunk: &Bytes) {
        let (start, end) = (self.at, self.at + chunk.len() as u64);
        self.at = end;
        let Some(positions) = &self.positions else { return };
        let table = positions.toc.range();
        if start < table.end && table.start < end {
            let within = |at: u64| usize::try_from(at.clamp(start, end) - start).unwrap_or(usize::MAX);
            self.packed
                .extend_from_slice(chunk.get(within(table.start)..within(table.end)).unwrap_or_default());
        }
    }

    /// The table of a layer that was seen to its end: the one that is known, or the one that passed by. One that is not
    /// sound is none, nor is one for which there is no memory.
    pub(in crate::pull) fn end(
        self,
        tables: Tables,
        memory: &TableMemory,
        entries_max: u64,
    ) -> Option<Arc<Toc>> {
        if let Tables::Read(toc) = tables {
            return Some(toc);
        }
        let positions = self.positions?;
        let _taken = memory.try_take(&positions)?;
        let toc = Toc::read(&self.packed, &positions, entries_max);
        toc.inspect_err(|doubt| tracing::info!(%doubt, "the files of a layer are not listed"))
            .ok()
            .map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::chunked::Section;
    use crate::oci::digest::Digest;

    #[test]
    fn the_table_is_caught_however_the_layer_is_cut() {
        let section = |start, length| Section { start, length, unpacked: 10 };
        let positions =
            Positions { toc: section(3, 4), toc_digest: Digest::of(b""), tar_split: section(7, 1) };
        let layer = b"abcTABLxyz";
        for size in 1..=layer.len() {
            let mut capture = Capture::of(&Tables::At(positions));
            layer.chunks(size).for_each(|chunk| capture.see(&Bytes::copy_from_slice(chunk)));
            assert_eq!(capture.packed, b"TABL", "{size}");
            assert!(
                capture.end(Tables::None, &TableMemory::default(), 10).is_none(),
                "it has not the digest"
            );
        }
        let mut nothing = Capture::of(&Tables::None);
        nothing.see(&Bytes::from_static(layer));
        assert!(nothing.packed.is_empty());
    }
}
