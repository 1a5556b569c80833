//! The compression of a layer, by its media type and its first bytes; and the decoder.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

use super::error::LayerFault;
use crate::oci::manifest::LayerCompression;

/// Largest window that a zstd frame may ask for, as a power of two: 32 MiB. Go's encoder at its best level
/// and `zstd -20` use as much. Each layer being decoded may hold that much memory, so with the 128 MiB of
/// `zstd --ultra -22` one image could exhaust the node plugin's memory.
const WINDOW_LOG_MAX: u32 = 25;

/// Bytes that [`detect`] looks at.
pub(super) const MAGIC_LENGTH: usize = 262;

/// The compression of a blob, from its media type and its first bytes. Where they differ the bytes count, as
/// for every container runtime: old exporters label gzip as plain tar and the reverse. The result is compared
/// with the DiffID in any case.
///
/// # Errors
/// [`LayerFault::Foreign`] if the bytes are of a format that layers cannot have, and [`LayerFault::Compression`] if the
/// media type states a compression, and the bytes are neither of a known compression nor a tar archive.
pub(super) fn detect(declared: LayerCompression, start: &[u8]) -> Result<LayerCompression, LayerFault> {
    // zstd also has frames without data, with 16 magic numbers. A blob may begin with one.
    let skippable = |start: &[u8]| {
        start.first().is_some_and(|byte| byte & 0xf0 == 0x50) && start.get(1..4) == Some(b"\x2a\x4d\x18")
    };
    // A plain archive may begin with any name, even with another format's magic number. Its own is at byte 257.
    let is_tar = start.get(257..262) == Some(b"ustar");
    if is_tar {
        Ok(LayerCompression::None)
    } else if start.starts_with(b"\x1f\x8b") {
        Ok(LayerCompression::Gzip)
    } else if start.starts_with(b"\x28\xb5\x2f\xfd") || skippable(start) {
        Ok(LayerCompression::Zstd)
    } else if let Some(format) = foreign(start) {
        Err(LayerFault::Foreign(format))
    } else if declared == LayerCompression::None {
        // A v7 archive has no magic number. If this is none, the tar reader says so.
        Ok(LayerCompression::None)
    } else {
        Err(LayerFault::Compression(declared))
    }
}

/// Formats that builders have been seen to push as layers, by their first bytes.
const FOREIGN: [(&[u8], &str); 17] = [
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"LZIP", "lzip"),
    (b"LRZI", "lrzip"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x89LZO\0", "lzop"),
    (b"\x5d\0\0", "lzma"),
    (b"\x1f\x9d", "compress (.Z)"),
    (b"\xff\x06\0\0sNaPpY", "snappy"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"PK\x03\x04", "zip"),
    (b"hsqs", "squashfs"),
    (b"070701", "cpio"),
    (b"!<arch>\n", "ar"),
    (b"<", "a web page or XML"),
    (b"{\"", "JSON"),
];

/// The format of bytes that can be no layer. A v7 archive may begin with a file of whatever name, but it has a checksum in
/// octal digits where others have anything.
fn foreign(start: &[u8]) -> Option<&'static str> {
    let checksum = start.get(148..156).unwrap_or_default();
    let is_octal = |byte: &u8| matches!(byte, b'0'..=b'7' | b' ' | b'\0');
    // Zeros alone are none: the header's own bytes count.
    if checksum.iter().any(|byte| *byte != 0) && checksum.iter().all(is_octal) {
        return None;
    }
    FOREIGN.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, name)| *name)
}

/// A decoder that gives access to its source.
pub(super) enum Decoder<R: BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(zstd::Decoder<'static, R>),
}

impl<R: BufRead> Decoder<R> {
    pub(super) fn new(compression: LayerCompression, source: R) -> io::Result<Self> {
        Ok(match compression {
            LayerCompression::None => Self::Plain(source),
            LayerCompression::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(source))),
            LayerCompression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(source)?;
                decoder.window_log_max(WINDOW_LOG_MAX)?;
                Self::Zstd(decoder)
            }
        })
    }

    pub(super) fn source(&mut self) -> &mut R {
        match self {
            Self::Plain(source) => source,
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
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
            // However short.
            assert_eq!(detect(declared, b"").is_ok(), declared == None);
        }
    }

    #[test]
    fn formats_that_are_no_layers_are_named() {
        for (magic, name) in FOREIGN {
            for length in [magic.len(), 60, 300] {
                let mut blob = [magic, &[0xa5; 300]].concat();
                blob.truncate(length.max(magic.len()));
                for declared in [LayerCompression::None, LayerCompression::Gzip] {
                    let error = detect(declared, &blob).unwrap_err().to_string();
                    assert!(error.contains(name), "{name}: {error}");
                }
            }
            // An archive of before POSIX whose first file is called so.
            let mut tar = [magic, &[0; 300]].concat();
            tar[148..156].copy_from_slice(b"010714\0 ");
            assert_eq!(detect(LayerCompression::None, &tar).unwrap(), LayerCompression::None, "{name}");
        }
    }
}
