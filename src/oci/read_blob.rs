//! Reads small blobs, such as configs, into memory.

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;

use super::{BlobStream, Source, SourceError};
use crate::oci::digest::Digest;
use crate::oci::manifest::Descriptor;

/// Reads a blob of at most `max` bytes and checks its digest. One that comes damaged is fetched once more.
///
/// # Errors
/// It is larger, it cannot be read, or its digest is wrong.
pub async fn read_blob(
    source: &dyn Source,
    descriptor: &Descriptor,
    max: usize,
) -> Result<Bytes, SourceError> {
    let subject = || format!("blob {}", descriptor.digest);
    if descriptor.size > max as u64 {
        return Err(SourceError::TooLarge { subject: subject(), limit: max as u64 });
    }
    match read_once(source, descriptor).await {
        Err(error) if error.is_damage() => {
            tracing::warn!(%error, "it is fetched once more");
            read_once(source, descriptor).await
        }
        outcome => outcome,
    }
}

async fn read_once(source: &dyn Source, descriptor: &Descriptor) -> Result<Bytes, SourceError> {
    let bytes = source.small_blob(descriptor).await?;
    let (expected, actual) = (descriptor.digest, Digest::of(&bytes));
    let subject = || format!("blob {expected}");
    if actual == expected {
        Ok(bytes)
    } else {
        Err(SourceError::WrongDigest { subject: subject(), expected, actual })
    }
}

/// All bytes of a stream. It ends at the descriptor's size, so the memory is bounded.
pub(super) async fn whole(mut stream: BlobStream) -> Result<Bytes, SourceError> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = stream.try_next().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}
