//! The compression of a layer, by its media type and its first bytes; and the decoder.

use std::io::{self, BufRead, Read};

use super::error::LayerFault;
use super::gzip::GzipReader;
use super::members::ZstdFrames;
use crate::image::tar::is_header;
use crate::oci::manifest::LayerCompression;

/// Largest window that a zstd frame may ask for, as a power of two: 32 MiB. Go's encoder at its best level
/// and `zstd -20` use as much. Each layer being decoded may hold that much memory, so with the 128 MiB of
/// `zstd --ultra -22` one image could exhaust the node plugin's memory.
const WINDOW_LOG_MAX: u32 = 25;

/// Bytes that [`detect`] looks at: a tar header.
pub(super) const MAGIC_LENGTH: usize = 512;

/// First bytes of what images are not compressed with, for the message.
const FOREIGN: &[(&[u8], &str)] = &[
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"LZIP", "lzip"),
    (b"\x5d\0\0", "lzma"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x89LZO\0", "lzop"),
    (b"\xff\x06\0\0sNaPpY", "snappy"),
    (b"\x1f\x9d", "compress"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"LRZI", "lrzip"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"hsqs", "a squashfs"),
    (b"070701", "a cpio archive"),
    (b"<", "a web page or XML"),
];

/// The compression of a blob, from its media type and its first bytes. Where they differ the bytes count, as
/// for every container runtime: old exporters label gzip as plain tar and the reverse. The result is compared
/// with the DiffID in any case.
///
/// A blob without any bytes is an archive without entries, whatever it says.
///
/// # Errors
/// [`LayerFault::ForeignCompression`] if the bytes are of a compression that layers do not have.
/// [`LayerFault::Compression`] if the media type states a compression, and the bytes are neither of a known
/// compression nor a tar archive.
pub(super) fn detect(declared: LayerCompression, start: &[u8]) -> Result<LayerCompression, LayerFault> {
    // zstd also has frames without data, with 16 magic numbers. A blob may begin with one.
    let skippable = |start: &[u8]| {
        start.first().is_some_and(|byte| byte & 0xf0 == 0x50) && start.get(1..4) == Some(b"\x2a\x4d\x18")
    };
    // A plain archive may begin with any name, even with another format's magic number. Its own is at byte 257. A v7
    // archive has none, but a checksum.
    let is_tar = start.get(257..262) == Some(b"ustar") || is_header(start);
    let foreign = FOREIGN.iter().find(|(magic, _)| start.starts_with(magic));
    if is_tar || start.is_empty() {
        Ok(LayerCompression::None)
    } else if start.starts_with(b"\x1f\x8b") {
        Ok(LayerCompression::Gzip)
    } else if start.starts_with(b"\x28\xb5\x2f\xfd") || skippable(start) {
        Ok(LayerCompression::Zstd)
    } else if let Some((_, name)) = foreign {
        Err(LayerFault::ForeignCompression(name))
    } else if declared == LayerCompression::None {
        // The tar reader says what is wrong with it.
        Ok(LayerCompression::None)
    } else {
        Err(LayerFault::Compression(declared))
    }
}

/// A decoder that gives access to its source.
pub(super) enum Decoder<R: BufRead> {
    Plain(R),
    Gzip(Box<GzipReader<R>>),
    Zstd(ZstdFrames<R>),
}

impl<R: BufRead> Decoder<R> {
    pub(super) fn new(compression: LayerCompression, source: R) -> io::Result<Self> {
        Ok(match compression {
            LayerCompression::None => Self::Plain(source),
            LayerCompression::Gzip => Self::Gzip(Box::new(GzipReader::new(source))),
            LayerCompression::Zstd => Self::Zstd(ZstdFrames::new(source, WINDOW_LOG_MAX)?),
        })
    }

    pub(super) fn source(&mut self) -> &mut R {
        match self {
            Self::Plain(source) => source,
            Self::Gzip(decoder) => decoder.source(),
            Self::Zstd(decoder) => decoder.source(),
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(into),
            Self::Gzip(decoder) => decoder.read(into),
            Self::Zstd(decoder) => decoder.read(into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_decide() {
        use LayerCompression::{Gzip, None, Zstd};
        let mut tar = vec![0; 262];
        tar[257..].copy_from_slice(b"ustar");
        for declared in [None, Gzip, Zstd] {
            assert_eq!(detect(declared, b"\x1f\x8b\x08").unwrap(), Gzip);
            assert_eq!(detect(declared, b"\x28\xb5\x2f\xfd").unwrap(), Zstd);
            assert_eq!(detect(declared, b"\x5a\x2a\x4d\x18").unwrap(), Zstd);
            assert_eq!(detect(declared, &tar).unwrap(), None);
            assert_eq!(detect(declared, &[0; 262]).is_ok(), declared == None);
        }
    }

    #[test]
    fn formats_that_are_no_layers_are_named() {
        for (magic, name) in FOREIGN {
            for length in [0, 60, 600] {
                let blob = [magic, &vec![0xa5; length][..]].concat();
                for declared in [LayerCompression::None, LayerCompression::Gzip] {
                    let error = detect(declared, &blob).unwrap_err().to_string();
                    assert!(error.contains(name), "{name}: {error}");
                }
            }
        }
    }
}
