//! The blobs of an artifact, compressed.

use std::io::{BufRead, Read, Write as _};

use super::error::LazyError;

/// The largest window of a blob, as a power of two: memory of its decompressor.
const WINDOW_LOG_MAX: u32 = 25;
/// The level of compression: it is done once, and nodes decompress any level equally fast.
const LEVEL: i32 = 12;

/// Compresses a blob. The same release of libzstd gives the same bytes.
///
/// # Errors
/// The compressor has no memory.
pub fn pack(bytes: &[u8]) -> Result<Vec<u8>, LazyError> {
    let packed = || {
        let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
        encoder.include_checksum(true)?;
        encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
        encoder.write_all(bytes)?;
        encoder.finish()
    };
    packed().map_err(LazyError::Compress)
}

/// Decompresses a blob, of which only the caller bounds what comes.
///
/// # Errors
/// There is no memory for it.
pub(super) fn decoder<R: BufRead>(packed: R) -> std::io::Result<zstd::Decoder<'static, R>> {
    let mut decoder = zstd::Decoder::with_buffer(packed)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    Ok(decoder)
}

/// Decompresses `packed` to exactly `size` bytes, which are not allocated before they have come. `part` is for messages.
///
/// # Errors
/// There are more bytes or fewer, or it is not zstd.
pub fn unpack(packed: impl BufRead, size: u64, part: &'static str) -> Result<Vec<u8>, LazyError> {
    let unreadable =
        |error: std::io::Error| LazyError::malformed(part, format!("cannot be decompressed: {error}"));
    let decoder = decoder(packed).map_err(unreadable)?;
    let mut bytes = Vec::new();
    decoder.take(size.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    match bytes.len() as u64 {
        found if found == size => Ok(bytes),
        found if found > size => {
            Err(LazyError::malformed(part, format!("has more than the {size} bytes that are stated")))
        }
        found => Err(LazyError::malformed(part, format!("has {found} of the {size} bytes that are stated"))),
    }
}
