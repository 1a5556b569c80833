//! Where the ranges of a layer come from, and how one is received.

use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::memory::Lent;
use super::request::Request;
use super::words::Stop;
use crate::image::chunked::{Part, Run};
use crate::oci::manifest::Descriptor;
use crate::oci::{Ranged, Source, SourceError};
use crate::pull::error::{About as _, PullError};
use crate::pull::metrics::{PartialOutcome, PullMetrics};
use crate::pull::turns::{GaveWay, Turn};

/// Where the ranges of a layer come from, by whose leave, and who counts them.
pub(super) struct Ranges<'a> {
    pub image: &'a str,
    pub source: &'a dyn Source,
    pub blob: &'a Descriptor,
    pub lent: Lent<'a>,
    pub metrics: &'a PullMetrics,
}

impl Ranges<'_> {
    /// Reads one range, of bounded length, by the layer's own connection.
    ///
    /// # Errors
    /// [`Stop::Whole`] where the server does not serve ranges: with its answer if that is the whole layer.
    pub(super) async fn read(&self, run: Run, turn: &mut Turn<'_>) -> Result<Bytes, Stop> {
        let request = Request::new(run);
        turn.during(self.receive(&request, false)).await.map_err(|gave_way| self.gave_way(gave_way))??;
        let part = request.take();
        self.took(&part, turn).await?;
        Ok(part.bytes)
    }

    /// Receives what is missing of a range, by the layer's own connection or an extra one.
    ///
    /// # Errors
    /// As [`Ranges::read`].
    pub(super) async fn receive(&self, request: &Request, is_extra: bool) -> Result<(), Stop> {
        let missing = request.missing();
        let answer = match is_extra {
            true => self.source.extra_range(self.blob, missing).await,
            false => self.source.blob_range(self.blob, missing).await,
        };
        let mut stream = match answer.about(self.image)? {
            Ranged::Part(stream) => stream,
            Ranged::Whole(stream) => {
                let why = "the registry ignores ranges".to_owned();
                return Err(Stop::Whole { outcome: PartialOutcome::Ranges, why, stream: Some(stream) });
            }
            Ranged::Refused(error) => return Err(Stop::whole(PartialOutcome::Ranges, error)),
        };
        loop {
            let chunk = match stream.try_next().await {
                // It began to, and then did not keep to ranges.
                Err(error @ SourceError::Protocol { .. }) => {
                    return Err(Stop::whole(PartialOutcome::Ranges, error));
                }
                chunk => chunk.about(self.image)?,
            };
            let is_over = chunk.is_none();
            let fits = chunk.is_none_or(|chunk| request.receive(&chunk));
            if !fits || (is_over && !request.missing().is_empty()) {
                let why = "a range had another length than was asked for";
                return Err(Stop::whole(PartialOutcome::Ranges, why));
            }
            if is_over {
                return Ok(());
            }
        }
    }

    /// Counts a range that has come. A layer that stands aside waits here.
    ///
    /// # Errors
    /// The layer had to make room for others.
    pub(super) async fn took(&self, part: &Part, turn: &mut Turn<'_>) -> Result<(), PullError> {
        let bytes = part.bytes.len();
        self.metrics.fetched.add(bytes as u64);
        turn.took(bytes).await.map_err(|gave_way| self.gave_way(gave_way))
    }

    /// The pull's error where the layer had to make room for others.
    pub(super) fn gave_way(&self, GaveWay { rate }: GaveWay) -> PullError {
        PullError::GaveWay { image: self.image.to_owned(), blob: self.blob.digest, rate }
    }
}
