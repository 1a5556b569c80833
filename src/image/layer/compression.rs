//! How a layer is compressed: what its media type says, what its first bytes say, and the decoder.

use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

use super::error::LayerFault;
use crate::oci::manifest::LayerCompression;

/// Largest window that a zstd frame may ask for, as a power of two: 32 MiB, which is what Go's
/// encoder takes at its best level and `zstd -20` does. Each layer being decoded may hold that much
/// memory, so the 128 MiB of `zstd --ultra -22` would let one image take the whole node plugin down.
const WINDOW_LOG_MAX: u32 = 25;

/// Bytes that [`settle`] looks at.
pub(super) const MAGIC_LENGTH: usize = 262;

/// Settles on what the blob is from what its media type says and its first bytes are. Where
/// they differ the bytes are right, as for every container runtime (old exporters label gzip
/// as plain tar and the reverse): what comes out is held against the DiffID in any case.
///
/// # Errors
/// [`LayerFault::Compression`] if the type promises a compression and the bytes are neither
/// that nor another that we know nor a tar archive.
pub(super) fn settle(declared: LayerCompression, start: &[u8]) -> Result<LayerCompression, LayerFault> {
    let skippable = |start: &[u8]| {
        start.first().is_some_and(|byte| byte & 0xf0 == 0x50) && start.get(1..4) == Some(b"\x2a\x4d\x18")
    };
    // A plain archive may begin with any name, but then it has its own magic at byte 257.
    let is_tar = start.get(257..262) == Some(b"ustar");
    if is_tar {
        Ok(LayerCompression::None)
    } else if start.starts_with(b"\x1f\x8b") {
        Ok(LayerCompression::Gzip)
    } else if start.starts_with(b"\x28\xb5\x2f\xfd") || skippable(start) {
        Ok(LayerCompression::Zstd)
    } else if declared == LayerCompression::None {
        Ok(LayerCompression::None)
    } else {
        Err(LayerFault::Compression(declared))
    }
}

/// A decoder over a source that can be taken back.
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
            assert_eq!(settle(declared, b"\x1f\x8b\x08").unwrap(), Gzip);
            assert_eq!(settle(declared, b"\x28\xb5\x2f\xfd").unwrap(), Zstd);
            assert_eq!(settle(declared, b"\x5a\x2a\x4d\x18").unwrap(), Zstd);
            assert_eq!(settle(declared, &tar).unwrap(), None);
            assert_eq!(settle(declared, &[0; 262]).is_ok(), declared == None);
        }
    }
}
