//! The archive as a stream: headers, their extensions, and content with its holes.

use std::io::BufRead;

use super::BLOCK;
use super::error::{Subject, TarError};
use super::header::{Header, sparse_extension};
use super::interpret::{Extension, Interpreted, TarEntry, TarKind, interpret};
use super::limits::Limits;
use super::number::PaxWrong;
use super::pax::Pax;
use super::sparse::{self, MapReader, Segment};
use crate::oci::limits::{Cap, Exceeded};

/// A tar archive being read.
pub struct Archive<R> {
    source: R,
    limits: Limits,
    /// Bytes consumed.
    offset: u64,
    headers: u64,
    /// Bytes of file content, holes included, that may still come.
    budget: u64,
    global: Pax,
    subject: Subject,
    content: Content,
    /// Bytes of the last piece, consumed when the next one is asked for.
    lent: usize,
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
    /// Stored bytes, and the padding after them.
    stored: u64,
    padding: u64,
    /// Where in the file we are, and its size.
    position: u64,
    size: u64,
    /// What of the map is left, in reverse.
    segments: Vec<Segment>,
}

impl<R> std::fmt::Debug for Archive<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Archive(at byte {}, {})", self.offset, self.subject)
    }
}

impl<R: BufRead> Archive<R> {
    /// Starts to read an archive.
    pub fn new(source: R, limits: Limits) -> Self {
        Self {
            source,
            limits,
            offset: 0,
            headers: 0,
            budget: limits.bytes,
            global: Pax::default(),
            subject: Subject::Header(0),
            content: Content::default(),
            lent: 0,
        }
    }

    /// The source, positioned behind what was read of the archive.
    pub fn into_source(self) -> R {
        self.source
    }

    /// The next entry, or `None` at the end of the archive. What was not read of the last entry's content is
    /// skipped.
    ///
    /// # Errors
    /// [`TarError::Read`] if the source fails, else what is wrong with the archive.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>, TarError> {
        loop {
            self.skip_content()?;
            self.subject = Subject::Header(self.offset);
            let at = self.offset;
            let mut extension = Extension { pax: self.global.clone(), ..Extension::default() };
            let mut extended = false;
            let header = loop {
                let Some(header) = self.header(extended)? else { return Ok(None) };
                if !self.extend(&header, &mut extension)? {
                    break header;
                }
                // A global header stands for itself, before what is said of one entry alone; the
                // others need an entry to follow.
                if header.type_flag() != b'g' {
                    extended = true;
                } else if !extended {
                    extension.pax = self.global.clone();
                }
            };
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
        self.settle();
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
        let available = self.source.fill_buf().map_err(TarError::Read)?;
        if available.is_empty() {
            return Err(TarError::Truncated(self.subject.clone()));
        }
        let length = available.len().min(usize::try_from(wanted).unwrap_or(usize::MAX));
        content.position += length as u64;
        content.stored = content.stored.saturating_sub(length as u64);
        if content.position == until {
            content.segments.pop();
        }
        self.lent = length;
        self.offset += length as u64;
        Ok(Some(Piece::Data(available.get(..length).unwrap_or_default())))
    }

    /// Consumes what was lent.
    fn settle(&mut self) {
        self.source.consume(std::mem::take(&mut self.lent));
    }

    /// Reads a header block; `None` at the end of the archive.
    fn header(&mut self, extended: bool) -> Result<Option<Header>, TarError> {
        let ended = |subject: &Subject| match extended {
            true => Err(TarError::Truncated(subject.clone())),
            false => Ok(None),
        };
        let Some(block) = self.block()? else { return ended(&self.subject) };
        if block == [0; BLOCK] {
            return match self.block()? {
                Some(next) if next != [0; BLOCK] => {
                    Err(self.malformed("it follows a lone block of zeros, the beginning of an archive's end"))
                }
                _ => ended(&self.subject),
            };
        }
        self.headers += 1;
        if self.headers > self.limits.headers {
            return Err(self.limit(Cap::Entries.exceeded(self.headers, self.limits.headers)));
        }
        Header::parse(block).map(Some).map_err(|what| self.malformed(what))
    }

    /// Reads a block, or `None` if the stream ends where it would begin.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let available = self.source.fill_buf().map_err(TarError::Read)?;
            let length = available.len().min(BLOCK - filled);
            if length == 0 {
                return if filled == 0 { Ok(None) } else { Err(TarError::Truncated(self.subject.clone())) };
            }
            block[filled..filled + length].copy_from_slice(&available[..length]);
            self.source.consume(length);
            self.offset += length as u64;
            filled += length;
        }
        Ok(Some(block))
    }

    /// If `header` says something of the entry to come, takes that in and returns true.
    fn extend(&mut self, header: &Header, extension: &mut Extension) -> Result<bool, TarError> {
        match header.type_flag() {
            b'x' | b'X' => {
                let body = self.body(header)?;
                let read = extension.pax.read(&body, &self.limits);
                read.map_err(|wrong| self.pax_wrong(wrong))?;
            }
            b'g' => {
                let body = self.body(header)?;
                let mut global = std::mem::take(&mut self.global);
                global.read(&body, &self.limits).map_err(|wrong| self.pax_wrong(wrong))?;
                if global.is_of_one_entry() {
                    return Err(self.malformed("a global header gives all entries the same name or size"));
                }
                self.global = global;
            }
            b'L' => extension.long_name = Some(self.long_name(header)?),
            b'K' => extension.long_link = Some(self.long_name(header)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn long_name(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let mut name = self.body(header)?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    /// The content of an extended header, which is bounded.
    fn body(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let size = header.size().map_err(|what| self.malformed(what))?;
        let size = usize::try_from(size).map_err(|_| self.malformed("its size is negative"))?;
        if size > self.limits.header {
            return Err(self.limit(Cap::HeaderBytes.exceeded(size, self.limits.header)));
        }
        let mut body = Vec::new();
        for _ in 0..size.div_ceil(BLOCK) {
            let block = self.block()?.ok_or_else(|| TarError::Truncated(self.subject.clone()))?;
            body.extend_from_slice(&block);
        }
        body.truncate(size);
        Ok(body)
    }

    /// Interprets an entry's own header and gets ready for its content.
    fn begin(
        &mut self,
        header: &Header,
        extension: Extension,
        at: u64,
    ) -> Result<Option<TarEntry>, TarError> {
        let pax_sparse = extension.pax.sparse.clone();
        let Interpreted { entry, subject, stored } = interpret(header, extension, &self.limits, at)?;
        self.subject = subject;
        self.content =
            Content { stored, padding: stored.next_multiple_of(BLOCK as u64) - stored, ..Content::default() };
        let Some(mut entry) = entry else {
            // A sparse file that nobody wants may still have more of its map before the content.
            if header.type_flag() == b'S' {
                self.old_gnu_map(header)?;
            }
            return Ok(None);
        };
        if header.type_flag() == b'S' {
            let (segments, size) = self.old_gnu_map(header)?;
            self.lay_out(&mut entry, segments, size)?;
        } else if entry.kind == TarKind::File(stored) {
            let segments = if pax_sparse.map_in_content {
                sparse::pairs(&self.map_in_content()?)
            } else if let Some(map) = &pax_sparse.map {
                sparse::pairs(map)
            } else {
                Ok(vec![Segment { offset: 0, length: stored }])
            };
            let segments = segments.map_err(|what| self.malformed(what))?;
            let size = match pax_sparse.is_sparse() {
                true => pax_sparse.size.ok_or_else(|| self.malformed("it is sparse but has no real size"))?,
                false => stored,
            };
            self.lay_out(&mut entry, segments, size)?;
        }
        Ok(Some(entry))
    }

    fn lay_out(&mut self, entry: &mut TarEntry, segments: Vec<Segment>, size: u64) -> Result<(), TarError> {
        let mut segments =
            sparse::check(segments, size, self.content.stored).map_err(|what| self.malformed(what))?;
        segments.reverse();
        self.budget = match self.budget.checked_sub(size) {
            Some(left) => left,
            None => {
                let found = (self.limits.bytes - self.budget).saturating_add(size);
                return Err(self.limit(self.limits.bytes_cap.exceeded(found, self.limits.bytes)));
            }
        };
        // A whiteout's or directory's content, if any, is skipped, not read.
        if let TarKind::File(file) = &mut entry.kind {
            *file = size;
            self.content.size = size;
            self.content.segments = segments;
        }
        Ok(())
    }

    /// The map of an old-GNU sparse file: in the header and in the blocks that follow it.
    fn old_gnu_map(&mut self, header: &Header) -> Result<(Vec<Segment>, u64), TarError> {
        let (mut table, size) = header.sparse().map_err(|what| self.malformed(what))?;
        while table.more {
            let block = self.block()?.ok_or_else(|| TarError::Truncated(self.subject.clone()))?;
            let next = sparse_extension(&block).map_err(|what| self.malformed(what))?;
            table.segments.extend(next.segments);
            if table.segments.len() > self.limits.segments {
                return Err(self.limit(Cap::Segments.exceeded(table.segments.len(), self.limits.segments)));
            }
            table.more = next.more;
        }
        let segment = |(offset, length): (i64, i64)| {
            Some(Segment { offset: u64::try_from(offset).ok()?, length: u64::try_from(length).ok()? })
        };
        let segments: Option<Vec<_>> = table.segments.into_iter().map(segment).collect();
        match (segments, u64::try_from(size)) {
            (Some(segments), Ok(size)) => Ok((segments, size)),
            _ => Err(self.malformed("its sparse map has negative numbers")),
        }
    }

    /// The map of a sparse file of format 1.0, in the first blocks of its content.
    fn map_in_content(&mut self) -> Result<Vec<u64>, TarError> {
        let mut reader = MapReader::default();
        loop {
            let Some(left) = self.content.stored.checked_sub(BLOCK as u64) else {
                return Err(self.malformed("its sparse map is longer than its content"));
            };
            self.content.stored = left;
            let block = self.block()?.ok_or_else(|| TarError::Truncated(self.subject.clone()))?;
            let map = reader.block(&block, &self.limits).map_err(|wrong| self.pax_wrong(wrong))?;
            if let Some(map) = map {
                return Ok(map);
            }
        }
    }

    /// Skips what is left of the current entry. An archive may end where the padding of its last entry would
    /// begin, or within it: `umoci insert` writes neither that nor the blocks of zeros, and Go's reader, with
    /// which every other runtime reads layers, takes that for the end.
    fn skip_content(&mut self) -> Result<(), TarError> {
        self.settle();
        let padding = self.content.padding;
        let mut left = self.content.stored + padding;
        self.content = Content::default();
        while left > 0 {
            let available = self.source.fill_buf().map_err(TarError::Read)?.len();
            if available == 0 && left <= padding {
                break;
            }
            if available == 0 {
                return Err(TarError::Truncated(self.subject.clone()));
            }
            let length = available.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.source.consume(length);
            self.offset += length as u64;
            left -= length as u64;
        }
        Ok(())
    }

    fn malformed(&self, what: &'static str) -> TarError {
        TarError::Malformed(self.subject.clone(), what)
    }

    fn limit(&self, exceeded: Exceeded) -> TarError {
        TarError::Limit(self.subject.clone(), exceeded)
    }

    fn pax_wrong(&self, wrong: PaxWrong) -> TarError {
        match wrong {
            PaxWrong::Malformed(what) => self.malformed(what),
            PaxWrong::Limit(exceeded) => self.limit(exceeded),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Builder;
    use super::*;

    #[test]
    fn the_last_padding_may_be_missing() {
        let whole = Builder::default().file(b"a", b"first").file(b"b", b"hello").0;
        let content_ends = whole.len() - BLOCK + b"hello".len();
        let entries = |bytes: &[u8]| {
            let mut archive = Archive::new(bytes, Limits::default());
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
