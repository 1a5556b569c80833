//! The ranges of a layer: many requests at a time, their bytes in order.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use futures_util::stream::FuturesOrdered;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::sync::mpsc;

use super::words::Stop;
use crate::image::chunked::{Part, Run};
use crate::oci::manifest::Descriptor;
use crate::oci::{Ranged, Source, SourceError};
use crate::pull::error::{About as _, PullError};
use crate::pull::metrics::{PartialOutcome, PullMetrics};
use crate::pull::turns::{GaveWay, Turn};

/// Bytes of a request. They are held in memory until their turn comes.
pub(super) const REQUEST_MAX: u64 = 1 << 20;
/// Bytes of a layer that are requested or held at a time, where that is more than one request.
const WINDOW: u64 = 4 << 20;

/// Where the ranges of a layer come from, and who counts them.
pub(super) struct Ranges<'a> {
    pub image: &'a str,
    pub source: &'a dyn Source,
    pub blob: &'a Descriptor,
    pub metrics: &'a PullMetrics,
}

impl Ranges<'_> {
    /// Reads one range, of bounded length.
    ///
    /// # Errors
    /// [`Stop::Whole`] where the server does not serve ranges: with its answer if that is the whole layer.
    pub(super) async fn read(&self, run: Run, turn: &mut Turn<'_>) -> Result<Bytes, Stop> {
        let part = turn.during(self.fetch(run)).await.map_err(|gave_way| self.gave_way(gave_way))??;
        self.took(&part, turn).await?;
        Ok(part.bytes)
    }

    /// Sends the ranges on in their order, up to `connections` requests at a time. Ends early where nobody wants them.
    ///
    /// # Errors
    /// As [`Ranges::read`].
    pub(super) async fn feed(
        &self,
        runs: Vec<Run>,
        connections: usize,
        sender: mpsc::Sender<Part>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Stop> {
        let (mut runs, mut requests, mut ready) =
            (runs.into_iter().peekable(), FuturesOrdered::new(), VecDeque::new());
        let mut held = 0;
        let length = |run: &Run| run.end - run.start;
        loop {
            while requests.len() < connections.max(1)
                && let Some(run) = runs.next_if(|run| held == 0 || held + length(run) <= WINDOW)
            {
                held += length(&run);
                requests.push_back(self.fetch(run));
            }
            if ready.is_empty() {
                let next = turn.during(requests.next()).await.map_err(|gave_way| self.gave_way(gave_way))?;
                // Nothing is requested, nothing is held: that was all.
                let Some(part) = next else { return Ok(()) };
                let part = part?;
                self.took(&part, turn).await?;
                ready.push_back(part);
            } else {
                tokio::select! {
                    biased;
                    place = sender.reserve() => {
                        let (Ok(place), Some(part)) = (place, ready.pop_front()) else { return Ok(()) };
                        held -= part.bytes.len() as u64;
                        place.send(part);
                    }
                    Some(part) = requests.next() => {
                        let part = part?;
                        self.took(&part, turn).await?;
                        ready.push_back(part);
                    }
                }
            }
        }
    }

    async fn fetch(&self, run: Run) -> Result<Part, Stop> {
        let (start, length) = (run.start, run.end - run.start);
        let answer = self.source.blob_range(self.blob, run).await.about(self.image)?;
        let mut stream = match answer {
            Ranged::Part(stream) => stream,
            Ranged::Whole(stream) => {
                let why = "the registry ignores ranges".to_owned();
                return Err(Stop::Whole { outcome: PartialOutcome::Ranges, why, stream: Some(stream) });
            }
            Ranged::Refused(error) => return Err(Stop::whole(PartialOutcome::Ranges, error)),
        };
        let mut bytes = BytesMut::new();
        loop {
            let chunk = match stream.try_next().await {
                // It began to, and then did not keep to ranges.
                Err(error @ SourceError::Protocol { .. }) => {
                    return Err(Stop::whole(PartialOutcome::Ranges, error));
                }
                chunk => chunk.about(self.image)?,
            };
            match chunk {
                Some(chunk) => bytes.extend_from_slice(&chunk),
                None => break,
            }
        }
        match bytes.len() as u64 == length {
            true => Ok(Part { start, bytes: bytes.freeze() }),
            false => {
                Err(Stop::whole(PartialOutcome::Ranges, "a range had another length than was asked for"))
            }
        }
    }

    async fn took(&self, part: &Part, turn: &mut Turn<'_>) -> Result<(), PullError> {
        let bytes = part.bytes.len();
        self.metrics.fetched.add(bytes as u64);
        turn.took(bytes).await.map_err(|gave_way| self.gave_way(gave_way))
    }

    fn gave_way(&self, GaveWay { rate }: GaveWay) -> PullError {
        PullError::GaveWay { image: self.image.to_owned(), blob: self.blob.digest, rate }
    }
}
