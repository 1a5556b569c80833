//! How a layer is compressed: what its descriptor says, what its first bytes say, and the decoder.

use std::fmt;
use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

use super::error::LayerFault;

/// The compressions that OCI image-spec 1.1 (layer.md) and Docker's schema 2 know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// None: the blob is the tar stream.
    Plain,
    /// gzip (RFC 1952), one member or several.
    Gzip,
    /// Zstandard (RFC 8878), frames and skippable frames in any number.
    Zstd,
}

/// Largest window that a zstd frame may ask for, as a power of two: 32 MiB, which is what Go's
/// encoder takes at its best level and `zstd -20` does. Each layer being decoded may hold that much
/// memory, so the 128 MiB of `zstd --ultra -22` would let one image take the whole node plugin down.
const WINDOW_LOG_MAX: u32 = 25;

/// Bytes that [`Compression::found`] looks at.
pub(super) const MAGIC_LENGTH: usize = 262;

impl Compression {
    /// What a layer descriptor's media type says.
    ///
    /// # Errors
    /// [`LayerFault::MediaType`] if it is no layer's media type.
    pub fn from_media_type(media_type: &str) -> Result<Self, LayerFault> {
        match media_type {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar" => Ok(Self::Plain),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Ok(Self::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd" => Ok(Self::Zstd),
            other => Err(LayerFault::MediaType(other.chars().take(160).collect())),
        }
    }

    /// Settles on what the blob is from what its media type says and its first bytes are. Where
    /// they differ the bytes are right, as for every container runtime (old exporters label gzip
    /// as plain tar and the reverse): what comes out is held against the DiffID in any case.
    ///
    /// # Errors
    /// [`LayerFault::Compression`] if the type promises a compression and the bytes are neither
    /// that nor another that we know nor a tar archive.
    pub(super) fn found(self, start: &[u8]) -> Result<Self, LayerFault> {
        let skippable = |start: &[u8]| {
            start.first().is_some_and(|byte| byte & 0xf0 == 0x50) && start.get(1..4) == Some(b"\x2a\x4d\x18")
        };
        // A plain archive may begin with any name, but then it has its own magic at byte 257.
        let is_tar = start.get(257..262) == Some(b"ustar");
        if is_tar {
            Ok(Self::Plain)
        } else if start.starts_with(b"\x1f\x8b") {
            Ok(Self::Gzip)
        } else if start.starts_with(b"\x28\xb5\x2f\xfd") || skippable(start) {
            Ok(Self::Zstd)
        } else if self == Self::Plain {
            Ok(Self::Plain)
        } else {
            Err(LayerFault::Compression(self))
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}

/// A decoder over a source that can be taken back.
pub(super) enum Decoder<R: BufRead> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<R>>),
    Zstd(zstd::Decoder<'static, R>),
}

impl<R: BufRead> Decoder<R> {
    pub(super) fn new(compression: Compression, source: R) -> io::Result<Self> {
        Ok(match compression {
            Compression::Plain => Self::Plain(source),
            Compression::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(source))),
            Compression::Zstd => {
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
    fn media_types_and_magic() {
        for (media_type, compression) in [
            ("application/vnd.oci.image.layer.v1.tar", Compression::Plain),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Compression::Gzip),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Compression::Gzip),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Compression::Zstd),
        ] {
            assert_eq!(Compression::from_media_type(media_type).unwrap(), compression);
        }
        for other in ["", "application/octet-stream", "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"]
        {
            let error = Compression::from_media_type(other).unwrap_err();
            assert_eq!(error.kind(), crate::kind::Kind::Unsupported);
            assert!(error.to_string().contains(other));
        }
        let mut tar = vec![0; 262];
        tar[257..].copy_from_slice(b"ustar");
        for declared in [Compression::Plain, Compression::Gzip, Compression::Zstd] {
            assert_eq!(declared.found(b"\x1f\x8b\x08").unwrap(), Compression::Gzip);
            assert_eq!(declared.found(b"\x28\xb5\x2f\xfd").unwrap(), Compression::Zstd);
            assert_eq!(declared.found(b"\x5a\x2a\x4d\x18").unwrap(), Compression::Zstd);
            assert_eq!(declared.found(&tar).unwrap(), Compression::Plain);
            assert_eq!(declared.found(&[0; 262]).is_ok(), declared == Compression::Plain);
        }
    }
}
