//! Reading the files of a layout that may be damaged or hostile.

use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncReadExt as _;

use crate::oci::limits::Cap;
use crate::oci::{BlobStream, SourceError};

/// Bytes per item of a stream: large enough that the hand-over to the blocking pool is cheap.
const CHUNK: usize = 512 << 10;

/// The length in bytes of a regular file.
pub(super) async fn length(path: &Path) -> Result<u64, SourceError> {
    open(path).await.map(|(_, length)| length)
}

/// Reads a manifest, an index or another small document of at most `max` bytes.
pub(super) async fn read_whole(path: &Path, max: usize) -> Result<Bytes, SourceError> {
    let (file, length) = open(path).await?;
    let too_large = |found: u64| SourceError::Limit {
        subject: path.display().to_string(),
        exceeded: Cap::ManifestBytes.exceeded(found, max),
    };
    if length > max as u64 {
        return Err(too_large(length));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that grew from one that fits.
    let mut limited = file.take(max as u64 + 1);
    limited.read_to_end(&mut bytes).await.map_err(|source| failed(path, source))?;
    if bytes.len() > max { Err(too_large(bytes.len() as u64)) } else { Ok(bytes.into()) }
}

/// Streams a file that must have exactly `size` bytes.
pub(super) async fn stream(path: PathBuf, subject: String, size: u64) -> Result<BlobStream, SourceError> {
    let (file, length) = open(&path).await?;
    if length != size {
        return Err(SourceError::WrongSize { subject, expected: size, actual: length });
    }
    let state = (file, 0_u64);
    let chunks = stream::try_unfold(state, move |(mut file, done)| {
        let (path, subject) = (path.clone(), subject.clone());
        async move {
            if done == size {
                return Ok(None);
            }
            let want = usize::try_from(size - done).unwrap_or(CHUNK).min(CHUNK);
            let mut chunk = BytesMut::with_capacity(want);
            let mut limited = (&mut file).take(want as u64);
            let got = limited.read_buf(&mut chunk).await.map_err(|e| failed(&path, e))?;
            if got == 0 {
                return Err(SourceError::WrongSize { subject, expected: size, actual: done });
            }
            Ok(Some((chunk.freeze(), (file, done + got as u64))))
        }
    });
    Ok(chunks.boxed())
}

async fn open(path: &Path) -> Result<(File, u64), SourceError> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path).await.map_err(|source| failed(path, source))?;
    let metadata = file.metadata().await.map_err(|source| failed(path, source))?;
    if !metadata.is_file() {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidData, "not a regular file");
        return Err(failed(path, source));
    }
    Ok((file, metadata.len()))
}

fn failed(path: &Path, source: std::io::Error) -> SourceError {
    SourceError::File { path: path.to_owned(), source }
}
