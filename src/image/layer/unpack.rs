//! From a tar stream to objects and a layer record: the work of a layer's last thread.

use std::io::{BufRead, Write};

use super::error::LayerFault;
use super::record::RecordWriter;
use crate::image::entry::{EntryKind, INLINE_MAX, LayerEntry};
use crate::image::objects::{ObjectError, Objects, Put};
use crate::image::tar::{Archive, Piece, TarEntry, TarKind, TarSubject};
use crate::image::verity::VerityDigest;
use crate::oci::choice::Choice;
use crate::oci::limits::Budget;

/// Files up to this many bytes are gathered in memory and hashed first, so that content that the store has
/// already is never written. Larger ones, and those with holes, are written while they are hashed.
pub(super) const GATHER_MAX: u64 = 1 << 20;

/// Counts of what a layer contains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contents {
    /// Entries of the record.
    pub entries: u64,
    /// Bytes of regular files, holes included.
    pub bytes: u64,
    /// Objects that the store did not have.
    pub new_objects: u64,
    /// Bytes of these objects.
    pub new_bytes: u64,
    /// Bytes of the other objects, which the store had.
    pub shared_bytes: u64,
    /// Bytes of files that the choice leaves out, which were not stored.
    pub left_out_bytes: u64,
}

/// Stores a layer's content, as far as `choice` takes it, and records its entries, to the end of the archive.
pub(super) fn unpack<R: BufRead, W: Write>(
    archive: &mut Archive<R>,
    objects: &Objects,
    record: &mut RecordWriter<W>,
    (image, choice): (&Budget, &Choice),
) -> Result<Contents, LayerFault> {
    let mut contents = Contents::default();
    let mut gathered = Vec::new();
    while let Some(TarEntry { path, meta, kind }) = archive.next_entry()? {
        let kind = match kind {
            TarKind::Other(kind) => kind,
            TarKind::File(size) => {
                contents.bytes += size;
                let blame = |error| LayerFault::Object { entry: TarSubject::Entry(path.clone()), error };
                if size > INLINE_MAX as u64 && !choice.takes(&path) {
                    contents.left_out_bytes += size;
                    skip(archive)?;
                    EntryKind::LeftOut(size)
                } else if size <= INLINE_MAX as u64 {
                    EntryKind::Inline(with_content(archive, size, &mut gathered, |content| content.into())?)
                } else {
                    let (digest, put) = if size <= GATHER_MAX && !archive.has_holes() {
                        with_content(archive, size, &mut gathered, |content| objects.put(content))?
                            .map_err(blame)?
                    } else {
                        stream(archive, objects, blame)?
                    };
                    match put {
                        Put::Written => {
                            contents.new_objects += 1;
                            contents.new_bytes += size;
                        }
                        Put::Present => contents.shared_bytes += size,
                    }
                    EntryKind::Object(digest, size)
                }
            }
        };
        let before = record.bytes_in_full();
        record.push(&LayerEntry { path, meta, kind })?;
        image.take_entry(record.bytes_in_full() - before).map_err(LayerFault::Entries)?;
    }
    contents.entries = record.count();
    Ok(contents)
}

/// Calls `use_it` with the whole content of the current file, without a copy if it lies in one buffer.
fn with_content<R: BufRead, T>(
    archive: &mut Archive<R>,
    size: u64,
    gathered: &mut Vec<u8>,
    use_it: impl FnOnce(&[u8]) -> T,
) -> Result<T, LayerFault> {
    gathered.clear();
    while let Some(piece) = archive.data()? {
        match piece {
            Piece::Data(bytes) if bytes.len() as u64 == size => return Ok(use_it(bytes)),
            Piece::Data(bytes) => gathered.extend_from_slice(bytes),
            // An inline file is short, and longer ones have no holes here.
            Piece::Zeros(count) => gathered.resize(gathered.len() + count as usize, 0),
        }
    }
    Ok(use_it(gathered))
}

/// Reads over the content of the current file.
fn skip<R: BufRead>(archive: &mut Archive<R>) -> Result<(), LayerFault> {
    while archive.data()?.is_some() {}
    Ok(())
}

/// Writes the content of the current file to the store while it is read.
fn stream<R: BufRead>(
    archive: &mut Archive<R>,
    objects: &Objects,
    blame: impl Fn(ObjectError) -> LayerFault,
) -> Result<(VerityDigest, Put), LayerFault> {
    let mut writer = objects.writer().map_err(&blame)?;
    while let Some(piece) = archive.data()? {
        match piece {
            Piece::Data(bytes) => writer.write(bytes).map_err(&blame)?,
            Piece::Zeros(count) => writer.zeros(count),
        }
    }
    writer.finish().map_err(&blame)
}
