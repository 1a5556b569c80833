//! Writing zstd:chunked layers, as containers/storage writes and reads them (docs/containers-storage-zstd-chunked.md,
//! version 1).
//!
//! ```text
//! frames of headers, and of each piece of each file │ skippable: TOC │ skippable: tar-split │ skippable: footer
//! ```
//! Files are cut by their content ([`Cutter`]), so that what moves within a file is found again. In memory are one piece of
//! a file, and the two tables as they are compressed: some 100 bytes for each entry and each piece.
//!
//! The same archive gives the same bytes, as long as libzstd is the same.

mod cut;
mod tables;

use std::collections::BTreeMap;
use std::io::{self, Write};

use cut::Cutter;
use tables::{Row, SplitLine, Table};

use super::annotations;
use crate::oci::digest::{Digest, Hasher};

/// Headers of so many bytes become a frame even if no content follows them.
const RAW_FRAME: usize = 128 << 10;
/// The magic of a frame that decoders skip (RFC 8878, section 3.1.2).
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// The end of the footer.
const MAGIC: &[u8; 8] = b"GNUlInUx";
/// The checksum of content in a tar-split (Go's `crc64.ISO`).
static CHECKSUM: crc::Crc<u64, crc::Table<16>> = crc::Crc::<u64, crc::Table<16>>::new(&crc::CRC_64_GO_ISO);

/// What the table says of an entry of the archive, besides what is computed here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Described {
    /// `reg`, `dir`, `symlink` or `hardlink`.
    pub sort: &'static str,
    /// The name, as in the archive. It must be UTF-8, since the table is JSON.
    pub name: String,
    /// The target of a link.
    pub link: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of its content.
    pub size: u64,
    /// The modification time by RFC 3339.
    pub modified: String,
    /// Extended attributes; the values in base64.
    pub xattrs: BTreeMap<String, String>,
}

/// Writes one layer. The calls follow the archive: [`raw`](Self::raw) for everything that is no content, after each
/// header [`entry`](Self::entry), and then the content, if it has any.
pub struct ChunkedWriter<W: Write> {
    out: W,
    offset: u64,
    level: i32,
    compressor: zstd::bulk::Compressor<'static>,
    /// Since the last frame, and since the last line of the tar-split.
    raw: Vec<u8>,
    raw_line: Vec<u8>,
    toc: Table,
    split: Table,
    lines: u64,
    rows: u64,
    file: Option<OpenFile>,
}

/// A file whose content is being written.
struct OpenFile {
    described: Described,
    start: u64,
    left: u64,
    hasher: Hasher,
    checksum: crc::Digest<'static, u64, crc::Table<16>>,
    cutter: Cutter,
    piece: Vec<u8>,
    pieces: Vec<Piece>,
}

/// A piece of a file, in a frame of its own.
struct Piece {
    frame: u64,
    at: u64,
    size: u64,
    digest: Digest,
    zeros: bool,
}

impl<W: Write> std::fmt::Debug for ChunkedWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChunkedWriter(at {}, {} rows)", self.offset, self.rows)
    }
}

impl<W: Write> ChunkedWriter<W> {
    /// Begins a layer, at this level of compression.
    ///
    /// # Errors
    /// libzstd has no memory.
    pub fn new(out: W, level: i32) -> io::Result<Self> {
        let mut toc = Table::new(level)?;
        toc.write(br#"{"version":1,"entries":["#)?;
        Ok(Self {
            out,
            offset: 0,
            level,
            compressor: zstd::bulk::Compressor::new(level)?,
            raw: Vec::new(),
            raw_line: Vec::new(),
            toc,
            split: Table::new(level)?,
            lines: 0,
            rows: 0,
            file: None,
        })
    }

    /// Writes headers, padding and the end of the archive.
    ///
    /// # Errors
    /// The output fails.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.raw.extend_from_slice(bytes);
        self.raw_line.extend_from_slice(bytes);
        if self.raw.len() >= RAW_FRAME { self.end_raw() } else { Ok(()) }
    }

    /// Says what the header was of that was written last. As many bytes of content must follow as it has.
    ///
    /// # Errors
    /// The output fails.
    pub fn entry(&mut self, described: Described) -> io::Result<()> {
        let raw = std::mem::take(&mut self.raw_line);
        self.line(&SplitLine::raw(&raw))?;
        if described.size == 0 {
            self.line(&SplitLine::file(&described.name, 0, None))?;
            return self.row(&Row::of(&described));
        }
        self.end_raw()?;
        let size = described.size;
        self.file = Some(OpenFile {
            described,
            start: self.offset,
            left: size,
            hasher: Hasher::default(),
            checksum: CHECKSUM.digest(),
            cutter: Cutter::default(),
            piece: Vec::new(),
            pieces: Vec::new(),
        });
        Ok(())
    }

    /// Writes content of the entry that was described last.
    ///
    /// # Errors
    /// The output fails, or there is more content than the entry has.
    pub fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(mut file) = self.file.take() else {
            return Err(io::Error::other("content without an entry"));
        };
        file.left = file
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::other("more content than the entry has"))?;
        file.hasher.update(bytes);
        file.checksum.update(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (count, is_cut) = file.cutter.cut(rest, file.piece.len());
            file.piece.extend_from_slice(&rest[..count]);
            rest = &rest[count..];
            if is_cut {
                self.end_piece(&mut file)?;
            }
        }
        if file.left > 0 {
            self.file = Some(file);
            return Ok(());
        }
        self.end_piece(&mut file)?;
        self.end_file(file)
    }

    /// Ends the layer, and returns the annotations of its descriptor.
    ///
    /// # Errors
    /// The output fails, or a file is not whole.
    pub fn finish(mut self) -> io::Result<(W, BTreeMap<String, String>)> {
        if self.file.is_some() {
            return Err(io::Error::other("a file is not whole"));
        }
        let raw = std::mem::take(&mut self.raw_line);
        self.line(&SplitLine::raw(&raw))?;
        self.end_raw()?;
        let split = std::mem::replace(&mut self.split, Table::new(self.level)?);
        let (packed_split, split_bytes) = split.finish()?;
        let mut toc = std::mem::replace(&mut self.toc, Table::new(self.level)?);
        toc.write(format!(r#"],"tarSplitDigest":"{}"}}"#, Digest::of(&packed_split)).as_bytes())?;
        let (packed_toc, toc_bytes) = toc.finish()?;
        let toc_at = self.skippable(&packed_toc)?;
        let split_at = self.skippable(&packed_split)?;
        let (toc_length, split_length) = (packed_toc.len() as u64, packed_split.len() as u64);
        let numbers = [toc_at, toc_length, toc_bytes, 1, split_at, split_length, split_bytes];
        let mut footer: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        footer.extend_from_slice(MAGIC);
        self.skippable(&footer)?;
        let annotations = [
            (annotations::TOC_DIGEST, Digest::of(&packed_toc).to_string()),
            (annotations::TOC_POSITION, format!("{toc_at}:{toc_length}:{toc_bytes}:1")),
            (annotations::TAR_SPLIT_POSITION, format!("{split_at}:{split_length}:{split_bytes}")),
        ];
        Ok((self.out, annotations.map(|(name, value)| (name.to_owned(), value)).into()))
    }

    fn end_piece(&mut self, file: &mut OpenFile) -> io::Result<()> {
        if file.piece.is_empty() {
            return Ok(());
        }
        let at = file.pieces.last().map_or(0, |last| last.at + last.size);
        let zeros = file.piece.iter().all(|byte| *byte == 0);
        let (size, digest) = (file.piece.len() as u64, Digest::of(&file.piece));
        file.pieces.push(Piece { frame: self.offset, at, size, digest, zeros });
        self.frame(&file.piece)?;
        file.piece.clear();
        Ok(())
    }

    fn end_file(&mut self, file: OpenFile) -> io::Result<()> {
        let OpenFile { described, start, hasher, checksum, pieces, .. } = file;
        let checksum = checksum.finalize().to_be_bytes();
        self.line(&SplitLine::file(&described.name, described.size, Some(checksum)))?;
        let mut row = Row::of(&described);
        row.place(&hasher.finish(), start, self.offset);
        // A file in one piece is its own piece.
        let cut = pieces.len() > 1 || pieces.iter().any(|piece| piece.zeros);
        let mut first = Some(row);
        for piece in pieces.iter().filter(|_| cut) {
            let mut row = first.take().unwrap_or_else(|| Row::piece(&described.name, piece.frame));
            row.cut(piece.at, piece.size, &piece.digest, piece.zeros);
            self.row(&row)?;
        }
        first.map_or(Ok(()), |row| self.row(&row))
    }

    fn end_raw(&mut self) -> io::Result<()> {
        let raw = std::mem::take(&mut self.raw);
        if raw.is_empty() { Ok(()) } else { self.frame(&raw) }
    }

    fn frame(&mut self, bytes: &[u8]) -> io::Result<()> {
        let packed = self.compressor.compress(bytes)?;
        self.write(&packed)
    }

    /// Writes a frame that decoders skip. Returns where its content is.
    fn skippable(&mut self, content: &[u8]) -> io::Result<u64> {
        let length = u32::try_from(content.len()).map_err(|_| io::Error::other("a table is too large"))?;
        self.write(&SKIPPABLE)?;
        self.write(&length.to_le_bytes())?;
        let at = self.offset;
        self.write(content)?;
        Ok(at)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.offset += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn row(&mut self, row: &Row<'_>) -> io::Result<()> {
        if self.rows > 0 {
            self.toc.write(b",")?;
        }
        self.rows += 1;
        self.toc.json(row)
    }

    fn line(&mut self, line: &SplitLine<'_>) -> io::Result<()> {
        self.split.json(&line.at(self.lines))?;
        self.lines += 1;
        self.split.write(b"\n")
    }
}

#[cfg(test)]
mod tests;
