//! Where the contents of files are in a tar stream that is not compressed.

use std::io::BufRead;
use std::ops::Range;

use crate::image::tar::{Archive, TarError, TarLimits};

/// Calls `visit` for each entry of the archive, in the order of the layer's record: with the place of its content in the
/// stream, if it has any and it is there in one piece. Files with holes are not.
///
/// # Errors
/// What is read is no archive, or `source` fails.
pub fn content_ranges(
    source: impl BufRead,
    limits: TarLimits,
    mut visit: impl FnMut(Option<Range<u64>>),
) -> Result<(), TarError> {
    let mut archive = Archive::new(source, limits);
    while archive.next_entry()?.is_some() {
        visit(archive.content_range());
    }
    Ok(())
}
