//! The archive: headers with their extensions, and content with its holes.

use std::io::BufRead;
use std::ops::Range;

use super::error::{TarError, TarSubject};
use super::extension::Extension;
use super::header::{BLOCK, Header};
use super::interpret::{Interpreted, TarEntry, TarKind, interpret};
use super::limits::TarLimits;
use super::sparse::{self, Segment};
use super::sparse_map;
use super::stream::Stream;
use crate::oci::limits::Cap;

/// A tar archive being read.
pub struct Archive<R> {
    stream: Stream<R>,
    limits: TarLimits,
    /// Headers read, of any type.
    headers: u64,
    /// Bytes of file content that may still come.
    budget: u64,
    /// The same with holes.
    budget_with_holes: u64,
    content: Content,
}

/// A piece of a file's content.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes.
    Data(&'a [u8]),
    /// This many zeros.
    Zeros(u64),
}

/// What is left of the current entry.
#[derive(Debug, Default)]
struct Content {
    /// Bytes in the stream.
    stored: u64,
    /// Bytes of padding behind them.
    padding: u64,
    /// Position in the file, and its size. Both count holes.
    position: u64,
    size: u64,
    /// The rest of the sparse map, last segment first.
    segments: Vec<Segment>,
}

impl<R> std::fmt::Debug for Archive<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Archive(at byte {}, {})", self.stream.offset(), self.stream.subject())
    }
}

impl<R: BufRead> Archive<R> {
    /// Starts to read an archive.
    pub fn new(source: R, limits: TarLimits) -> Self {
        Self {
            stream: Stream::new(source),
            limits,
            headers: 0,
            budget: limits.bytes,
            budget_with_holes: limits.bytes_with_holes,
            content: Content::default(),
        }
    }

    /// The source, positioned behind what was read of the archive.
    pub(in crate::image) fn into_source(self) -> R {
        self.stream.into_source()
    }

    /// The next entry, or `None` at the end of the archive. Skips what was not read of the last entry's
    /// content.
    ///
    /// # Errors
    /// [`TarError::Read`] if the source fails, else what is wrong with the archive.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>, TarError> {
        loop {
            self.skip_content()?;
            let at = self.stream.offset();
            self.stream.set_subject(TarSubject::Header(at));
            let mut extension = Extension::default();
            let mut extended = false;
            let header = loop {
                let Some(header) = self.header(extended)? else { return Ok(None) };
                if header.type_flag() == b'g' {
                    // It counts for nothing, and what was said of an entry before it is forgotten.
                    self.skip_header(&header)?;
                    (extension, extended) = (Extension::default(), false);
                } else if extension.read(&header, &mut self.stream, &self.limits)? {
                    // The archive must not end between what is said of an entry and the entry.
                    extended = true;
                } else {
                    break header;
                }
            };
            // An entry that is no part of an image: go on with the next one.
            if let Some(entry) = self.begin(&header, extension, at)? {
                return Ok(Some(entry));
            }
        }
    }

    /// The next piece of the current file's content, or `None` at its end.
    ///
    /// # Errors
    /// [`TarError::Truncated`] if the stream ends before the file does, and [`TarError::Read`].
    pub fn data(&mut self) -> Result<Option<Piece<'_>>, TarError> {
        self.stream.consume_lent();
        let content = &mut self.content;
        if content.position == content.size {
            return Ok(None);
        }
        let (data, until) = match content.segments.last() {
            Some(segment) if segment.offset <= content.position => (true, segment.offset + segment.length),
            Some(segment) => (false, segment.offset),
            None => (false, content.size),
        };
        let wanted = until - content.position;
        if !data {
            content.position = until;
            return Ok(Some(Piece::Zeros(wanted)));
        }
        let bytes = self.stream.lend(wanted)?;
        content.position += bytes.len() as u64;
        content.stored = content.stored.saturating_sub(bytes.len() as u64);
        if content.position == until {
            content.segments.pop();
        }
        Ok(Some(Piece::Data(bytes)))
    }

    /// Reads a header block; `None` at the end of the archive. `extended` says that an extension came
    /// before, so that the archive must not end here.
    fn header(&mut self, extended: bool) -> Result<Option<Header>, TarError> {
        let ended = |stream: &Stream<R>| if extended { Err(stream.truncated()) } else { Ok(None) };
        let Some(block) = self.stream.block()? else { return ended(&self.stream) };
        if block == [0; BLOCK] {
            // The standard wants two blocks of zeros. A single one at the stream's end is accepted, too.
            return match self.stream.block()? {
                Some(next) if next != [0; BLOCK] => {
                    let what = "it follows a lone block of zeros, the beginning of an archive's end";
                    Err(self.stream.malformed(what))
                }
                _ => ended(&self.stream),
            };
        }
        self.headers += 1;
        if self.headers > self.limits.headers {
            return Err(self.stream.limit(Cap::Entries.exceeded(self.headers, self.limits.headers)));
        }
        Header::parse(block).map(Some).map_err(|what| self.stream.malformed(what))
    }

    /// Skips the body of an extended header.
    fn skip_header(&mut self, header: &Header) -> Result<(), TarError> {
        let size = header.size().map_err(|what| self.stream.malformed(what))?;
        let size = u64::try_from(size).map_err(|_| self.stream.malformed("its size is negative"))?;
        // Its padding must be there, as that of the headers that are read.
        let padded = size.checked_add(padding(size)).ok_or_else(|| self.stream.truncated())?;
        self.stream.skip(padded, 0)
    }

    /// Interprets an entry's own header and prepares for its content. `None`: the entry is no part of an
    /// image.
    fn begin(
        &mut self,
        header: &Header,
        extension: Extension,
        at: u64,
    ) -> Result<Option<TarEntry>, TarError> {
        let pax_sparse = extension.pax.sparse.clone();
        let Interpreted { entry, subject, stored } = interpret(header, extension, &self.limits, at)?;
        self.stream.set_subject(subject);
        self.content = Content { stored, padding: padding(stored), ..Content::default() };
        let Some(mut entry) = entry else {
            // More blocks of the map may stand before the content that is to be skipped.
            if header.type_flag() == b'S' {
                sparse_map::old_gnu(header, &mut self.stream, &self.limits)?;
            }
            return Ok(None);
        };
        if header.type_flag() == b'S' {
            let (segments, size) = sparse_map::old_gnu(header, &mut self.stream, &self.limits)?;
            self.lay_out(&mut entry, segments, size)?;
        } else if entry.kind == TarKind::File(stored) {
            let segments = if pax_sparse.map_in_content {
                let (stored, stream) = (&mut self.content.stored, &mut self.stream);
                sparse::pairs(&sparse_map::in_content(stored, stream, &self.limits)?)
            } else if let Some(map) = &pax_sparse.map {
                sparse::pairs(map)
            } else {
                // An ordinary file is one segment.
                Ok(vec![Segment { offset: 0, length: stored }])
            };
            let segments = segments.map_err(|what| self.stream.malformed(what))?;
            let size = match pax_sparse.is_sparse() {
                true => (pax_sparse.size)
                    .ok_or_else(|| self.stream.malformed("it is sparse but has no real size"))?,
                false => stored,
            };
            self.lay_out(&mut entry, segments, size)?;
        }
        Ok(Some(entry))
    }

    /// Whether some of the current file is not in the stream, but zeros.
    pub(in crate::image) fn has_holes(&self) -> bool {
        self.content.stored < self.content.size
    }

    /// Where in the stream the content of the current file is, if nothing of it was read yet and it is there in one piece.
    pub(in crate::image) fn content_range(&self) -> Option<Range<u64>> {
        let Content { stored, position, size, .. } = self.content;
        let start = self.stream.offset();
        (position == 0 && size > 0 && stored == size).then_some(())?;
        Some(start..start.checked_add(size)?)
    }

    /// Checks a file's segments, counts its bytes against the budgets, and prepares to read it.
    fn lay_out(&mut self, entry: &mut TarEntry, segments: Vec<Segment>, size: u64) -> Result<(), TarError> {
        let mut segments =
            sparse::check(segments, size, self.content.stored).map_err(|what| self.stream.malformed(what))?;
        segments.reverse();
        let (cap, limit) = (self.limits.bytes_cap, self.limits.bytes);
        self.take(|own| &mut own.budget, self.content.stored, (cap, limit))?;
        // Holes take no bytes of the blob and none on the disk, so no ratio counts them. But whoever reads them does.
        let limit = self.limits.bytes_with_holes;
        self.take(|own| &mut own.budget_with_holes, size, (Cap::LayerBytes, limit))?;
        // The content of a whiteout or directory, if any, is skipped and not read.
        if let TarKind::File(file) = &mut entry.kind {
            *file = size;
            self.content.size = size;
            self.content.segments = segments;
        }
        Ok(())
    }

    /// Takes `amount` from one of the budgets.
    fn take(
        &mut self,
        budget: impl Fn(&mut Self) -> &mut u64,
        amount: u64,
        (cap, limit): (Cap, u64),
    ) -> Result<(), TarError> {
        let left = *budget(self);
        *budget(self) = left.checked_sub(amount).ok_or_else(|| {
            let found = (limit - left).saturating_add(amount);
            self.stream.limit(cap.exceeded(found, limit))
        })?;
        Ok(())
    }

    fn skip_content(&mut self) -> Result<(), TarError> {
        self.stream.consume_lent();
        let Content { stored, padding, .. } = std::mem::take(&mut self.content);
        self.stream.skip(stored, padding)
    }
}

/// Bytes of padding behind `size` bytes of content.
fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

#[cfg(test)]
mod tests {
    use super::super::testing::Builder;
    use super::*;

    #[test]
    fn content_is_where_it_says() {
        let long = vec![7; 3 * BLOCK + 1];
        let tar = Builder::default().file(b"a", b"first").file(b"none", b"").file(b"long", &long).0;
        let mut archive = Archive::new(&tar[..], TarLimits::default());
        let mut found = Vec::new();
        while archive.next_entry().unwrap().is_some() {
            let range = archive.content_range();
            found.push(range.map(|range| &tar[range.start as usize..range.end as usize]));
        }
        assert_eq!(found, [Some(&b"first"[..]), None, Some(&long[..])]);
    }

    #[test]
    fn the_last_padding_may_be_missing() {
        let whole = Builder::default().file(b"a", b"first").file(b"b", b"hello").0;
        let content_ends = whole.len() - BLOCK + b"hello".len();
        let entries = |bytes: &[u8]| {
            let mut archive = Archive::new(bytes, TarLimits::default());
            let mut count = 0;
            while archive.next_entry()?.is_some() {
                count += 1;
            }
            Ok::<_, TarError>(count)
        };
        for length in [content_ends, content_ends + 1, whole.len() - 1, whole.len()] {
            assert_eq!(entries(&whole[..length]).unwrap(), 2, "{length}");
        }
        assert!(matches!(entries(&whole[..content_ends - 1]), Err(TarError::Truncated(_))));
        let first_padding = 2 * BLOCK - 1;
        assert!(entries(&whole[..first_padding]).is_ok_and(|count| count == 1), "cut between entries");
    }
}
