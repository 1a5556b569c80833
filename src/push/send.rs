//! Sends a blob, unless the registry has it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::archive::of_output;
use super::describe::Plan;
use super::error::PushError;
use super::pieces::Pieces;
use super::progress::{BlobProgress, BlobState};
use crate::kind::Kind;
use crate::oci::SourceError;
use crate::oci::destination::{Begun, BlobUpload, NewBlob, Repository};
use crate::oci::digest::Digest;

/// How often a blob is begun anew after an upload that cannot go on. Each has attempts of its own for every piece.
const ATTEMPTS: u32 = 3;

/// Makes sure that the repository has a blob, and says how it came there. `from` is another repository of the registry.
///
/// # Errors
/// The registry refuses, or a file has changed.
pub(super) async fn send(
    to: &dyn Repository,
    plan: &Plan,
    blob: &NewBlob,
    from: Option<&str>,
    progress: &Arc<BlobProgress>,
) -> Result<BlobState, PushError> {
    if to.has_blob(blob).await? {
        return Ok(BlobState::Present);
    }
    let mut failed = 0;
    loop {
        let Begun::Open(upload) = to.begin(blob, from).await? else { return Ok(BlobState::Mounted) };
        progress.enter(BlobState::Sending, Some(blob.size));
        let error = match attempt(upload, plan, blob, progress).await {
            Ok(()) => return Ok(BlobState::Sent),
            Err(PushError::Source(error)) => error,
            Err(other) => return Err(other),
        };
        // The answer may have been lost, and not the blob.
        if error.kind() != Kind::Denied && to.has_blob(blob).await? {
            return Ok(BlobState::Sent);
        }
        failed += 1;
        // Registries forget uploads when they restart.
        let is_passing = error.kind() == Kind::Transient || matches!(error, SourceError::NotFound { .. });
        if failed >= ATTEMPTS || !is_passing {
            return Err(error.into());
        }
        tracing::info!(target: "composefs_csi::progress", %error, "{}: beginning anew", plan.name);
    }
}

/// Sends a small blob that is in memory.
pub(super) async fn put(to: &dyn Repository, bytes: &[u8]) -> Result<(), PushError> {
    let blob = NewBlob { digest: Digest::of(bytes), size: bytes.len() as u64 };
    if to.has_blob(&blob).await? {
        return Ok(());
    }
    if let Begun::Open(mut upload) = to.begin(&blob, None).await? {
        upload.append(Bytes::copy_from_slice(bytes)).await?;
        upload.finish().await?;
    }
    Ok(())
}

/// One upload from its beginning to its end.
async fn attempt(
    mut upload: Box<dyn BlobUpload>,
    plan: &Plan,
    blob: &NewBlob,
    progress: &BlobProgress,
) -> Result<(), PushError> {
    let (sender, mut receiver) = mpsc::channel(1);
    let writing = plan.clone();
    let written = tokio::task::spawn_blocking(move || {
        let mut out = Pieces::new(sender);
        writing.write(false, &|_| (), &mut out)?;
        out.finish().map_err(of_output)
    });
    let mut failure = None;
    while let Some(piece) = receiver.recv().await {
        let length = piece.len() as u64;
        if let Err(error) = upload.append(piece).await {
            failure = Some(error);
            break;
        }
        progress.add(length);
    }
    // The thread ends with its next piece.
    drop(receiver);
    let found = written.await.map_err(|error| PushError::Thread(error.to_string()))?;
    if let Some(error) = failure {
        return Err(error.into());
    }
    let (found, expected) = (found?, blob.digest);
    if found != expected {
        return Err(PushError::Differs { name: plan.name.clone(), expected, found });
    }
    Ok(upload.finish().await?)
}
