//! A blob across places: where one fails, the next one goes on at the byte that was reached.
//!
//! Every place that has the blob has the same bytes, because its digest names it. Bytes of two places that do not fit
//! have the wrong digest as a whole, which the consumer finds; then it asks again, and gets them from other places.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::view::View;
use crate::oci::manifest::Descriptor;
use crate::oci::{BlobStream, Ranged, Source as _, SourceError};

/// A place that breaks off after so many new bytes is asked again before the next one.
const PROGRESS: u64 = 1 << 20;

struct Relay {
    view: View,
    blob: Descriptor,
    /// The first byte that is not wanted, if that is not the end of the blob.
    end: Option<u64>,
    /// The places that are still to be asked.
    left: VecDeque<usize>,
    open: Option<Open>,
    /// Bytes that were passed on, and those before them.
    offset: u64,
    /// What to report if no place is left, and whether the registry itself said it.
    failure: Option<(bool, SourceError)>,
}

struct Open {
    place: usize,
    bytes: BlobStream,
    /// Where it began.
    from: u64,
}

/// Opens the blob from the byte `offset` on, at the first place that has it.
///
/// # Errors
/// No place has it.
pub(super) async fn open(view: View, blob: Descriptor, offset: u64) -> Result<BlobStream, SourceError> {
    view.places.memory.begin(blob.digest);
    let mut relay = Relay::new(view, blob, offset..u64::MAX);
    relay.end = None;
    match relay.connect().await? {
        Ranged::Refused(error) => Err(error),
        Ranged::Part(bytes) | Ranged::Whole(bytes) => Ok(relay.into_stream(bytes)),
    }
}

/// Opens a part of the blob, at the first place that serves parts.
///
/// # Errors
/// No place has the blob.
pub(super) async fn open_range(
    view: View,
    blob: Descriptor,
    range: Range<u64>,
) -> Result<Ranged, SourceError> {
    let mut relay = Relay::new(view, blob, range);
    Ok(match relay.connect().await? {
        Ranged::Part(bytes) => Ranged::Part(relay.into_stream(bytes)),
        other => other,
    })
}

impl Relay {
    fn new(view: View, blob: Descriptor, range: Range<u64>) -> Self {
        let left = view.order(|able| able.pull, Some(&blob.digest)).into();
        let (offset, end) = (range.start, Some(range.end));
        Self { view, blob, end, left, open: None, offset, failure: None }
    }

    /// `bytes` are those of the place that [`Relay::connect`] noted.
    fn into_stream(mut self, bytes: BlobStream) -> BlobStream {
        if let Some(open) = &mut self.open {
            open.bytes = bytes;
        }
        let chunks = stream::try_unfold(self, |mut relay| async move {
            Ok(relay.next().await?.map(|chunk| (chunk, relay)))
        });
        chunks.boxed()
    }

    /// Asks the places that are left for the bytes from the one that was reached. The last refusal of a part is the
    /// outcome where no place serves parts.
    async fn connect(&mut self) -> Result<Ranged, SourceError> {
        let mut refused = None;
        while let Some(at) = self.left.pop_front() {
            let place = &self.view.places.all[at];
            let (source, blob) = (&place.source, &self.blob);
            let answer = match (self.end, self.offset) {
                (Some(end), offset) => source.blob_range(blob, offset..end).await,
                (None, 0) => source.blob(blob).await.map(Ranged::Part),
                (None, offset) => source.blob_from(blob, offset).await.map(Ranged::Part),
            };
            match answer {
                Ok(Ranged::Refused(error)) => refused = Some(error),
                Ok(found) => {
                    place.host.note(None);
                    self.view.places.memory.serves(self.blob.digest, at);
                    let bytes = stream::empty().boxed();
                    self.open = Some(Open { place: at, bytes, from: self.offset });
                    return Ok(found);
                }
                Err(error) => self.failure = Some(self.view.failed(at, error, self.failure.take())),
            }
        }
        match (refused, self.failure.take()) {
            (Some(error), _) => Ok(Ranged::Refused(error)),
            (None, failure) => Err(failure.map_or_else(|| self.view.absent(), |(_, error)| error)),
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            let Some(open) = &mut self.open else {
                self.go_on().await?;
                continue;
            };
            match open.bytes.try_next().await {
                Ok(chunk) => {
                    self.offset += chunk.as_ref().map_or(0, Bytes::len) as u64;
                    return Ok(chunk);
                }
                Err(error) => {
                    let (place, came) = (open.place, self.offset - open.from);
                    self.open = None;
                    // One that is slow would be as slow again.
                    if came >= PROGRESS && !matches!(error, SourceError::Slow { .. }) {
                        self.left.push_front(place);
                    }
                    self.failure = Some(self.view.failed(place, error, self.failure.take()));
                }
            }
        }
    }

    /// Goes on at the next place.
    async fn go_on(&mut self) -> Result<(), SourceError> {
        let bytes = match self.connect().await? {
            Ranged::Part(bytes) => bytes,
            Ranged::Refused(error) => return Err(error),
            // More than the rest of a part. Where it is worth it, the consumer takes the whole blob.
            Ranged::Whole(_) => {
                let (subject, host) = (format!("blob {}", self.blob.digest), self.view.places.image.clone());
                let detail = "the whole blob instead of a part".to_owned();
                return Err(SourceError::Protocol { subject, host, detail });
            }
        };
        if let Some(open) = &mut self.open {
            open.bytes = bytes;
        }
        Ok(())
    }
}
