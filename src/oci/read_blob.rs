//! Documents that are read whole: configs.

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;

use super::{Source, SourceError};
use crate::oci::digest::Digest;
use crate::oci::manifest::Descriptor;

/// Reads a blob of at most `max` bytes and checks its digest.
pub async fn read_blob(
    source: &dyn Source,
    descriptor: &Descriptor,
    max: usize,
) -> Result<Bytes, SourceError> {
    let subject = || format!("blob {}", descriptor.digest);
    if descriptor.size > max as u64 {
        return Err(SourceError::TooLarge { subject: subject(), limit: max as u64 });
    }
    let mut stream = source.blob(descriptor).await?;
    let mut bytes = BytesMut::new();
    // The stream ends at the descriptor's size, so this is bounded.
    while let Some(chunk) = stream.try_next().await? {
        bytes.extend_from_slice(&chunk);
    }
    let actual = Digest::of(&bytes);
    if actual == descriptor.digest {
        return Ok(bytes.freeze());
    }
    Err(SourceError::WrongDigest { subject: subject(), expected: descriptor.digest, actual })
}
