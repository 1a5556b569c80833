//! Streams a blob across connections that stall, break or end early.
//!
//! A blob is named by its digest, so every server that has it has the same bytes. A stream can
//! therefore resume at the byte it reached on any connection, without `If-Range`. Wrongly joined
//! bytes have the wrong digest, which the consumer checks.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use reqwest::{Response, StatusCode, header};

use super::client::RegistryClient;
use super::pace::{Pace, Window};
use super::request::Request;
use crate::oci::{BlobStream, SourceError};

/// The maximum number of connections for one blob, however many bytes each of them brought.
const CONNECTIONS_MAX: u32 = 100;

struct Download {
    client: Arc<RegistryClient>,
    request: Request,
    size: u64,
    /// The connection in use, and how many of its next bytes were received before.
    open: Option<(Response, u64)>,
    connections: u32,
    pace: Pace,
    window: Window,
    /// Failures since the last new byte.
    failures: u32,
}

/// Opens a blob of `size` bytes. The first connection is made here, so that a refusal is this call's error.
pub(super) async fn open(
    client: Arc<RegistryClient>,
    request: Request,
    size: u64,
) -> Result<BlobStream, SourceError> {
    let pace = client.pace().for_size(size);
    let window = Window::new(pace);
    let mut download =
        Download { client, request, size, open: None, connections: 0, pace, window, failures: 0 };
    let client = Arc::clone(&download.client);
    loop {
        match download.connect().await {
            Ok(()) => break,
            Err(error) => {
                download.failures += 1;
                client.pause_or_fail(download.failures, error).await?;
                client.count_repeat(0);
            }
        }
    }
    let chunks = stream::try_unfold(download, |mut download| async move {
        Ok(download.next().await?.map(|chunk| (chunk, download)))
    });
    Ok(chunks.boxed())
}

impl Download {
    /// The next new bytes, or `None` after the last.
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            match self.step().await {
                // Only bytes that were received before.
                Ok(Some(chunk)) if chunk.is_empty() => {}
                Ok(Some(chunk)) => {
                    self.failures = 0;
                    self.request.offset += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                Ok(None) => return Ok(None),
                // New bytes reset `failures`, so slow windows have a count of their own: see `pace`.
                Err(SourceError::Slow { .. }) if !self.window.is_over() => {
                    self.open = None;
                    self.client.count_repeat(self.request.offset);
                }
                Err(error @ SourceError::Slow { .. }) => return Err(error),
                Err(error) => {
                    self.open = None;
                    self.failures += 1;
                    self.client.pause_or_fail(self.failures, error).await?;
                    self.client.count_repeat(self.request.offset);
                }
            }
        }
    }

    /// Reads one chunk, connecting first where there is no connection. It may hold no new byte.
    async fn step(&mut self) -> Result<Option<Bytes>, SourceError> {
        if self.open.is_none() {
            if self.request.offset == self.size {
                return Ok(None);
            }
            self.connect().await?;
        }
        let Some((response, known)) = &mut self.open else { return Ok(None) };
        let left = self.size - self.request.offset;
        let waiting = Instant::now();
        let chunk = response.chunk().await;
        let bytes = chunk.as_ref().ok().and_then(Option::as_ref).map_or(0, Bytes::len);
        let paced = self.window.count(bytes as u64, waiting.elapsed());
        match chunk {
            Ok(Some(mut chunk)) => {
                let skip = usize::try_from(*known).unwrap_or(usize::MAX).min(chunk.len());
                let chunk = chunk.split_off(skip);
                *known -= skip as u64;
                if chunk.len() as u64 > left {
                    return Err(self.wrong_size(self.request.offset + chunk.len() as u64));
                }
                match paced {
                    // A blob that is complete with this chunk is not given up for its pace.
                    Err(rate) if chunk.len() as u64 != left => Err(self.slow(rate)),
                    _ => Ok(Some(chunk)),
                }
            }
            Ok(None) if left == 0 => Ok(None),
            // After the last byte a broken connection does not matter.
            Err(_) if left == 0 => Ok(None),
            Ok(None) => Err(self.cut("the connection ended early".to_owned())),
            Err(error) if error.is_timeout() => Err(self.client.stalled(&self.request.subject)),
            Err(error) => Err(self.client.broken(error, &self.request.subject)),
        }
    }

    /// Requests the bytes from the offset reached.
    async fn connect(&mut self) -> Result<(), SourceError> {
        self.connections += 1;
        if self.connections > CONNECTIONS_MAX {
            return Err(self.protocol(format!("it took more than {CONNECTIONS_MAX} connections")));
        }
        self.client.wait_for_hold(&self.request.subject).await?;
        let response = self.client.send(&self.request).await?;
        let offset = self.request.offset;
        let starts = match (response.status(), offset) {
            // The server ignored the range, or none was requested.
            (StatusCode::OK, _) => 0,
            (_, 0) => return Err(self.protocol("partial content that was not requested".into())),
            (_, _) => range_start(&response)
                .ok_or_else(|| self.protocol("partial content that does not say which part".to_owned()))?,
        };
        // Bytes in between would be missing.
        if starts > offset {
            return Err(self.protocol(format!("content from byte {starts} instead of {offset}")));
        }
        let announced = response.content_length().map(|length| starts.saturating_add(length));
        if let Some(end) = announced.filter(|end| *end != self.size) {
            return Err(self.wrong_size(end));
        }
        self.open = Some((response, offset - starts));
        Ok(())
    }

    fn slow(&self, rate: u64) -> SourceError {
        let (subject, host) = (self.request.subject.clone(), self.client.host().to_owned());
        let Pace { minimum, window: over, .. } = self.pace;
        SourceError::Slow { subject, host, rate, minimum, over }
    }

    fn wrong_size(&self, actual: u64) -> SourceError {
        SourceError::WrongSize { subject: self.request.subject.clone(), expected: self.size, actual }
    }

    fn protocol(&self, detail: String) -> SourceError {
        let (subject, host) = (self.request.subject.clone(), self.client.host().to_owned());
        SourceError::Protocol { subject, host, detail }
    }

    fn cut(&self, detail: String) -> SourceError {
        let (subject, host) = (self.request.subject.clone(), self.client.host().to_owned());
        SourceError::Unreachable { subject, host, detail }
    }
}

/// The first byte of `Content-Range: bytes FIRST-LAST/SIZE`.
fn range_start(response: &Response) -> Option<u64> {
    let value = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (first, _) = value.trim().strip_prefix("bytes")?.trim_start().split_once('-')?;
    first.parse().ok()
}
