//! One connection: receives one piece of a blob and writes it to the partial blob.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use super::super::extra::Extra;
use crate::image::store::Partial;
use crate::oci::manifest::Descriptor;
use crate::oci::{BlobStream, Ranged, Source, SourceError};

/// Bytes that are gathered before they are written: a write is a hop to another thread.
const GATHER: usize = 512 << 10;
/// How long they are gathered, so that progress shows on a slow line as well.
const GATHER_TIME: Duration = Duration::from_millis(250);

/// A piece under way.
pub(super) struct Worker<'a> {
    source: &'a dyn Source,
    blob: &'a Descriptor,
    partial: Arc<Partial>,
    pub(super) piece: usize,
    /// The bytes of the blob that are still missing.
    missing: Range<u64>,
    stream: Option<BlobStream>,
    /// Whether it is a connection beyond the first.
    is_extra: bool,
    /// The right to that. A step has it while it runs.
    extra: Option<Extra>,
}

/// What came of one step.
pub(super) enum Step {
    /// The registry serves the range.
    Began,
    /// So many bytes were written.
    Wrote(u64),
    /// All of the piece is here.
    Done,
    /// The registry sends the whole blob.
    Whole(BlobStream),
    /// It does not serve the range.
    Refused(SourceError),
    Failed(SourceError),
    /// The bytes could not be written.
    NotKept(String),
    /// Others want the connection.
    GaveWay,
}

impl<'a> Worker<'a> {
    /// A connection for `missing` bytes at the end of a piece; `extra` is the right to it if it is not the first.
    pub(super) fn new(
        (source, blob): (&'a dyn Source, &'a Descriptor),
        partial: &Arc<Partial>,
        (piece, missing): (usize, Range<u64>),
        extra: Option<Extra>,
    ) -> Self {
        let (partial, is_extra) = (Arc::clone(partial), extra.is_some());
        Self { source, blob, partial, piece, missing, stream: None, is_extra, extra }
    }

    pub(super) fn is_extra(&self) -> bool {
        self.is_extra
    }

    /// Takes one step. `left` is how many bytes of the blob were missing when it began.
    pub(super) async fn step(mut self, left: u64) -> (Self, Step) {
        let extra = self.extra.take();
        let step = tokio::select! {
            biased;
            step = self.take_step(left) => step,
            () = must_give_way(extra.as_ref()) => Step::GaveWay,
        };
        self.extra = extra;
        (self, step)
    }

    async fn take_step(&mut self, left: u64) -> Step {
        let Some(stream) = &mut self.stream else {
            let missing = self.missing.clone();
            let asked = match self.is_extra {
                true => self.source.extra_range(self.blob, missing).await,
                false => self.source.blob_range(self.blob, missing).await,
            };
            return match asked {
                Ok(Ranged::Part(stream)) => {
                    self.stream = Some(stream);
                    Step::Began
                }
                Ok(Ranged::Whole(stream)) => Step::Whole(stream),
                Ok(Ranged::Refused(error)) => Step::Refused(error),
                Err(error) => Step::Failed(error),
            };
        };
        let (gathered, failed) = gather(stream).await;
        let count: u64 = gathered.iter().map(|bytes| bytes.len() as u64).sum();
        if count > 0 {
            let (partial, piece) = (Arc::clone(&self.partial), self.piece);
            let have = self.missing.start - partial.geometry().bytes_of(piece).start;
            let left = left.saturating_sub(count);
            let keep = move || partial.keep(piece, have, &gathered, left);
            match tokio::task::spawn_blocking(keep).await {
                Ok(Ok(())) => self.missing.start += count,
                Ok(Err(error)) => return Step::NotKept(error.to_string()),
                Err(error) => return Step::NotKept(error.to_string()),
            }
            // An error comes again with the next step, or another attempt at the rest.
            return Step::Wrote(count);
        }
        match failed {
            Some(error) => Step::Failed(error),
            None if self.missing.is_empty() => Step::Done,
            // A stream that ends early says so itself.
            None => Step::Failed(self.ended_early()),
        }
    }

    fn ended_early(&self) -> SourceError {
        let (subject, expected) = (format!("blob {}", self.blob.digest), self.blob.size);
        SourceError::WrongSize { subject, expected, actual: self.missing.start }
    }
}

/// Waits until an extra connection is needed elsewhere. What it has brought is kept, and its piece is fetched by another.
async fn must_give_way(extra: Option<&Extra>) {
    match extra {
        Some(extra) => extra.must_give_way().await,
        None => std::future::pending().await,
    }
}

/// Reads until there is much, or some time is over, or the stream has ended. At least one chunk is waited for.
async fn gather(stream: &mut BlobStream) -> (Vec<Bytes>, Option<SourceError>) {
    let (mut gathered, mut size) = (Vec::new(), 0);
    let mut next = Some(stream.next().await);
    let end = Instant::now() + GATHER_TIME;
    loop {
        match next {
            Some(Some(Ok(chunk))) => {
                size += chunk.len();
                gathered.push(chunk);
            }
            Some(Some(Err(error))) => return (gathered, Some(error)),
            Some(None) | None => return (gathered, None),
        }
        if size >= GATHER {
            return (gathered, None);
        }
        // The stream keeps its state: nothing is lost where the time is over.
        next = timeout_at(end, stream.next()).await.ok();
    }
}
