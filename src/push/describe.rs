//! A blob to be: where its bytes come from, and what they are once they were read.

use std::io::{self, Write};
use std::sync::Arc;

use super::archive::{self, Facts};
use super::compress::Compression;
use super::error::PushError;
use super::item::{Item, ItemKind};
use crate::oci::destination::NewBlob;
use crate::oci::digest::Hasher;

/// Where a blob's bytes come from. They can be had again.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    items: Arc<Vec<Item>>,
    /// Their numbers.
    chosen: Arc<[usize]>,
    form: Form,
    for_seal: bool,
    /// For messages and progress.
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// An archive of the items.
    Layer(Compression),
    /// The one item, a file.
    File,
}

/// A blob whose bytes are known.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    pub new: NewBlob,
    pub facts: Facts,
}

impl Plan {
    pub(super) fn new(
        items: &Arc<Vec<Item>>,
        chosen: Vec<usize>,
        form: Form,
        for_seal: bool,
        name: String,
    ) -> Self {
        Self { items: Arc::clone(items), chosen: chosen.into(), form, for_seal, name }
    }

    /// The items that are in it.
    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        self.chosen.iter().filter_map(|number| self.items.get(*number))
    }

    /// Bytes of the files in it.
    pub(super) fn bytes(&self) -> u64 {
        self.items().map(Item::size).sum()
    }

    /// Writes the bytes. Blocks.
    ///
    /// # Errors
    /// A file cannot be read or has changed; the output fails.
    pub(super) fn write(
        &self,
        for_seal: bool,
        seen: &dyn Fn(u64),
        out: impl Write,
    ) -> Result<Facts, PushError> {
        match (self.form, self.items().next()) {
            (Form::File, Some(Item { kind: ItemKind::File(file), .. })) => {
                archive::write_file(file, &self.name, for_seal, seen, out)
            }
            (Form::Layer(compression), _) => {
                let items: Vec<&Item> = self.items().collect();
                archive::write_layer(&items, compression, for_seal, seen, out)
            }
            (Form::File, _) => Ok(Facts::default()),
        }
    }

    /// Reads everything to know what the blob is. Blocks.
    ///
    /// # Errors
    /// As [`Plan::write`].
    pub(super) fn describe(&self, seen: &dyn Fn(u64)) -> Result<Blob, PushError> {
        let mut out = Hashed { hasher: Hasher::default(), size: 0 };
        let facts = self.write(self.for_seal, seen, &mut out)?;
        Ok(Blob { new: NewBlob { digest: out.hasher.finish(), size: out.size }, facts })
    }
}

/// Counts and hashes what is written.
struct Hashed {
    hasher: Hasher,
    size: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
