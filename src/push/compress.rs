//! How layers are compressed. The same archive gives the same bytes in the same release of this program: threads would not
//! change that, but versions of the libraries do.

use std::collections::BTreeMap;
use std::io::{self, Write};

use flate2::write::GzEncoder;

use crate::image::chunked::{ChunkedWriter, Described};

/// How layers of an image are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// zstd in frames of which each can be fetched alone, with a table of contents. Who does not know it reads plain zstd.
    Chunked,
    /// zstd.
    Zstd,
    /// gzip, which everybody reads.
    Gzip,
}

/// As podman and buildah compress by default.
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: u32 = 6;

impl Compression {
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Chunked | Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        }
    }
}

/// A layer that is being compressed.
pub(super) enum LayerWriter<W: Write> {
    Chunked(Box<ChunkedWriter<W>>),
    Zstd(zstd::Encoder<'static, W>),
    Gzip(GzEncoder<W>),
}

impl<W: Write> LayerWriter<W> {
    pub(super) fn new(compression: Compression, out: W) -> io::Result<Self> {
        Ok(match compression {
            Compression::Chunked => Self::Chunked(Box::new(ChunkedWriter::new(out, ZSTD_LEVEL)?)),
            Compression::Zstd => Self::Zstd(zstd::Encoder::new(out, ZSTD_LEVEL)?),
            // No name and no time go into its header.
            Compression::Gzip => Self::Gzip(GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL))),
        })
    }

    /// Writes what is no content.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Chunked(writer) => writer.raw(bytes),
            Self::Zstd(writer) => writer.write_all(bytes),
            Self::Gzip(writer) => writer.write_all(bytes),
        }
    }

    /// Says what the header was of.
    pub(super) fn entry(&mut self, described: impl FnOnce() -> Described) -> io::Result<()> {
        match self {
            Self::Chunked(writer) => writer.entry(described()),
            Self::Zstd(_) | Self::Gzip(_) => Ok(()),
        }
    }

    pub(super) fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Chunked(writer) => writer.content(bytes),
            Self::Zstd(writer) => writer.write_all(bytes),
            Self::Gzip(writer) => writer.write_all(bytes),
        }
    }

    /// Ends the layer: the annotations of its descriptor.
    pub(super) fn finish(self) -> io::Result<BTreeMap<String, String>> {
        match self {
            Self::Chunked(writer) => writer.finish().map(|(_, annotations)| annotations),
            Self::Zstd(writer) => writer.finish().map(|_| BTreeMap::new()),
            Self::Gzip(writer) => writer.finish().map(|_| BTreeMap::new()),
        }
    }
}
