//! Writes the bytes of a blob: a layer's archive, compressed, or a file as it is.

use std::collections::BTreeMap;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::compress::{Compression, LayerWriter};
use super::contents::ContentHasher;
use super::error::PushError;
use super::header::{self, BLOCK};
use super::item::{FileSource, Item, ItemKind};
use super::read::read;
use crate::image::chunked::Described;
use crate::image::entry::EntryKind;
use crate::oci::digest::{Digest, Hasher};

/// What was found while a blob was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The digest of the archive; `None` of a file.
    pub diff_id: Option<Digest>,
    /// Annotations of the layer's descriptor.
    pub annotations: BTreeMap<String, String>,
    /// What the files' contents are in an image, in their order, if that was asked.
    pub contents: Vec<EntryKind>,
}

/// Writes a layer with these items, and tells `seen` of the bytes of files as they are read.
///
/// # Errors
/// A file cannot be read or has changed; the output fails.
pub(super) fn write_layer(
    items: &[&Item],
    compression: Compression,
    for_seal: bool,
    seen: &dyn Fn(u64),
    out: impl Write,
) -> Result<Facts, PushError> {
    let is_text = |item: &&Item| {
        std::str::from_utf8(&item.path).is_ok() && std::str::from_utf8(header::link(item)).is_ok()
    };
    // The table of contents is JSON.
    let compression = match compression {
        Compression::Chunked if !items.iter().all(is_text) => Compression::Zstd,
        other => other,
    };
    let mut hasher = Hasher::default();
    let mut writer = LayerWriter::new(compression, out).map_err(of_output)?;
    let mut contents = Vec::new();
    for item in items {
        let header = header::header(item);
        hasher.update(&header);
        writer.raw(&header).map_err(of_output)?;
        writer.entry(|| described(item)).map_err(of_output)?;
        let ItemKind::File(file) = &item.kind else { continue };
        let mut content = ContentHasher::new(file.stamp.size, for_seal);
        read(file, &item.shown(), |bytes| {
            seen(bytes.len() as u64);
            hasher.update(bytes);
            content.update(bytes);
            writer.content(bytes).map_err(of_output)
        })?;
        contents.extend(content.finish());
        let padding = padding(file.stamp.size);
        hasher.update(padding);
        writer.raw(padding).map_err(of_output)?;
    }
    hasher.update(&ZEROS);
    writer.raw(&ZEROS).map_err(of_output)?;
    let annotations = writer.finish().map_err(of_output)?;
    Ok(Facts { diff_id: Some(hasher.finish()), annotations, contents })
}

/// Writes a file as it is, in the same way.
///
/// # Errors
/// It cannot be read or has changed; the output fails.
pub(super) fn write_file(
    file: &FileSource,
    shown: &str,
    for_seal: bool,
    seen: &dyn Fn(u64),
    mut out: impl Write,
) -> Result<Facts, PushError> {
    let mut content = ContentHasher::new(file.stamp.size, for_seal);
    read(file, shown, |bytes| {
        seen(bytes.len() as u64);
        content.update(bytes);
        out.write_all(bytes).map_err(of_output)
    })?;
    Ok(Facts { contents: content.finish().into_iter().collect(), ..Facts::default() })
}

/// The end of an archive: two blocks.
const ZEROS: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

fn padding(size: u64) -> &'static [u8] {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    &ZEROS[..(BLOCK - over) % BLOCK]
}

/// The output is libzstd or zlib, or the channel to an upload.
pub(super) fn of_output(error: io::Error) -> PushError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => PushError::Cut,
        _ => PushError::Compress(error),
    }
}

/// What the table of contents says of an item.
fn described(item: &Item) -> Described {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let time = item.meta.mtime;
    let nanos = i32::try_from(time.nanos).unwrap_or_default();
    let xattrs = item.meta.xattrs.iter().map(|(name, value)| (text(name), STANDARD.encode(value)));
    Described {
        sort: match item.kind {
            ItemKind::Directory => "dir",
            ItemKind::File(_) => "reg",
            ItemKind::Symlink(_) => "symlink",
            ItemKind::Hardlink(_) => "hardlink",
        },
        name: text(&header::name(item)),
        link: text(header::link(item)),
        mode: item.meta.mode,
        uid: item.meta.uid,
        gid: item.meta.gid,
        size: item.size(),
        modified: jiff::Timestamp::new(time.secs, nanos).unwrap_or_default().to_string(),
        xattrs: xattrs.collect(),
    }
}
