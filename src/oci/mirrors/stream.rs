//! A blob across places: where one fails, the next one goes on at the byte that was reached.
//!
//! Every place that has the blob has the same bytes, because its digest names it. Bytes of two places that do not fit
//! have the wrong digest as a whole, which the consumer finds; then it asks again, and gets them from other places.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::view::View;
use crate::oci::manifest::Descriptor;
use crate::oci::{BlobStream, Source as _, SourceError};

/// A place that breaks off after so many new bytes is asked again before the next one.
const PROGRESS: u64 = 1 << 20;

struct Relay {
    view: View,
    blob: Descriptor,
    /// The places that are still to be asked.
    left: VecDeque<usize>,
    open: Option<Open>,
    /// Bytes that were passed on.
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

/// Opens the blob at the first place that has it.
///
/// # Errors
/// No place has it.
pub(super) async fn open(view: View, blob: Descriptor) -> Result<BlobStream, SourceError> {
    let left = view.order(|able| able.pull, Some(&blob.digest)).into();
    view.places.memory.begin(blob.digest);
    let mut relay = Relay { view, blob, left, open: None, offset: 0, failure: None };
    relay.connect().await?;
    let chunks = stream::try_unfold(relay, |mut relay| async move {
        Ok(relay.next().await?.map(|chunk| (chunk, relay)))
    });
    Ok(chunks.boxed())
}

impl Relay {
    /// Opens the next place that has the blob, at the byte that was reached.
    async fn connect(&mut self) -> Result<(), SourceError> {
        while let Some(place) = self.left.pop_front() {
            let source = &self.view.places.all[place].source;
            let opened = match self.offset {
                0 => source.blob(&self.blob).await,
                offset => source.blob_from(&self.blob, offset).await,
            };
            match opened {
                Ok(bytes) => {
                    self.view.places.all[place].host.note(None);
                    self.view.places.memory.serves(self.blob.digest, place);
                    self.open = Some(Open { place, bytes, from: self.offset });
                    return Ok(());
                }
                Err(error) => self.failure = Some(self.view.failed(place, error, self.failure.take())),
            }
        }
        Err(self.failure.take().map_or_else(|| self.view.absent(), |(_, error)| error))
    }

    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            let Some(open) = &mut self.open else {
                self.connect().await?;
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
}
