//! Streams a blob across connections that stall, break or end early.
//!
//! A blob is named by its digest, so every server that has it has the same bytes. A stream can
//! therefore resume at the byte it reached on any connection, without `If-Range`. Wrongly joined
//! bytes have the wrong digest, which the consumer checks.
//!
//! Ranges are an optimisation. A server that refuses the one for the rest, or answers it with something else, is asked
//! for all bytes, and those that were received before are dropped
//! ([ADR 0028](../../../docs/adr/0028-what-a-digest-proves-may-come-any-way.md)).

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use reqwest::{Response, StatusCode, header};

use super::body::{Body, stated_type};
use super::client::RegistryClient;
use super::pace::{Pace, Window};
use super::page::A_PAGE;
use super::request::Request;
use crate::kind::Kind;
use crate::oci::{BlobStream, SourceError};

/// The maximum number of connections for one blob, however many bytes each of them brought.
const CONNECTIONS_MAX: u32 = 100;

struct Download {
    client: Arc<RegistryClient>,
    /// Its offset is the byte reached.
    request: Request,
    size: u64,
    /// Whether the rest is asked for alone.
    takes_ranges: bool,
    /// The connection in use, and how many of its next bytes were received before.
    open: Option<(Body, u64)>,
    connections: u32,
    pace: Pace,
    window: Window,
    /// Failures since the last new byte.
    failures: u32,
}

/// Opens a blob of `size` bytes at the request's offset. The first connection is made here, so that a refusal is this
/// call's error.
pub(super) async fn open(
    client: Arc<RegistryClient>,
    request: Request,
    size: u64,
) -> Result<BlobStream, SourceError> {
    let mut download = Download::new(client, request, size);
    if size > 0 && download.request.offset >= size {
        return Ok(download.into_stream());
    }
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
    Ok(download.into_stream())
}

/// Goes on with a response that holds the whole blob although a part of it was asked for.
pub(super) fn adopt(
    client: Arc<RegistryClient>,
    request: Request,
    size: u64,
    response: Response,
) -> Result<BlobStream, SourceError> {
    let mut download = Download::new(client, Request { offset: 0, end: None, ..request }, size);
    download.connections = 1;
    download.accept(response)?;
    Ok(download.into_stream())
}

impl Download {
    fn new(client: Arc<RegistryClient>, request: Request, size: u64) -> Self {
        let pace = client.pace().for_size(size);
        let window = Window::new(pace);
        let (takes_ranges, open) = (true, None);
        Self { client, request, size, takes_ranges, open, connections: 0, pace, window, failures: 0 }
    }

    fn into_stream(self) -> BlobStream {
        let chunks = stream::try_unfold(self, |mut download| async move {
            Ok(download.next().await?.map(|chunk| (chunk, download)))
        });
        chunks.boxed()
    }

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
        let Some((body, known)) = &mut self.open else { return Ok(None) };
        let left = self.size - self.request.offset;
        let waiting = Instant::now();
        let chunk = body.chunk().await;
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
            Err(error) => Err(self.client.unreadable(error, &self.request.subject)),
        }
    }

    /// Requests the bytes from the offset reached, alone or among all.
    async fn connect(&mut self) -> Result<(), SourceError> {
        self.connections += 1;
        if self.connections > CONNECTIONS_MAX {
            return Err(self.protocol(format!("it took more than {CONNECTIONS_MAX} connections")));
        }
        self.client.wait_for_hold(&self.request.subject).await?;
        if self.request.offset > 0 && self.takes_ranges {
            // Some registries refuse a range without an end.
            let end = Some(self.size);
            let why = match self.client.send(&Request { end, ..self.request.clone() }).await {
                Ok(response) => match self.begins(&response) {
                    Ok(starts) => return self.begin(response, starts),
                    Err(why) => why,
                },
                // It may pass. The last attempt is one without a range, which may be what fails.
                Err(error) if error.kind() == Kind::Transient && !self.is_last_attempt(&error) => {
                    return Err(error);
                }
                Err(error) => error.to_string(),
            };
            tracing::debug!(
                registry = self.client.host(),
                subject = self.request.subject,
                why,
                "starting over"
            );
            self.takes_ranges = false;
        }
        let response = self.client.send(&Request { offset: 0, end: None, ..self.request.clone() }).await?;
        self.accept(response)
    }

    /// Reads on from an answer to a request for all bytes.
    fn accept(&mut self, response: Response) -> Result<(), SourceError> {
        match response.status() {
            // Some caches answer so to whoever asks for all.
            StatusCode::PARTIAL_CONTENT if range_start(&response).unwrap_or(0) != 0 => {
                Err(self.protocol("partial content that was not requested".to_owned()))
            }
            _ => self.begin(response, 0),
        }
    }

    fn is_last_attempt(&self, error: &SourceError) -> bool {
        !matches!(error, SourceError::RateLimited { .. })
            && self.failures + 1 >= self.client.retry_policy().attempts
    }

    /// The first byte of an answer to a request for the rest.
    ///
    /// # Errors
    /// It does not lead to the rest; the error says why.
    fn begins(&self, response: &Response) -> Result<u64, String> {
        let is_coded = response.headers().contains_key(header::CONTENT_ENCODING);
        if response.status() == StatusCode::OK {
            // The range was ignored. Some answer so with the rest alone.
            let is_all = response.content_length().is_none_or(|length| length == self.size);
            return if is_all || is_coded { Ok(0) } else { Err("content of another length".to_owned()) };
        }
        if is_coded {
            return Err("a part of other bytes than the blob's".to_owned());
        }
        let starts = range_start(response).ok_or("partial content that does not say which part")?;
        // Bytes in between would be missing.
        if starts > self.request.offset {
            return Err(format!("content from byte {starts} instead of {}", self.request.offset));
        }
        let end = response.content_length().map(|length| starts.saturating_add(length));
        if let Some(end) = end.filter(|end| *end <= self.request.offset || *end > self.size) {
            return Err(format!("content up to byte {end} instead of {}", self.size));
        }
        Ok(starts)
    }

    /// Reads on from a response whose content begins at byte `starts`.
    fn begin(&mut self, response: Response, starts: u64) -> Result<(), SourceError> {
        let announced = response.content_length().map(|length| starts.saturating_add(length));
        let is_part = response.status() == StatusCode::PARTIAL_CONTENT;
        let body = match announced {
            Some(end) if end == self.size => Body::raw(response),
            // A part ends where it likes; the next request goes on from there.
            Some(end) if is_part && end < self.size => Body::raw(response),
            Some(end) if !response.headers().contains_key(header::CONTENT_ENCODING) => {
                let is_page = stated_type(&response).is_some_and(|stated| stated == "text/html");
                let page =
                    || self.client.protocol(&self.request.subject, A_PAGE.to_owned(), Some(response.url()));
                return Err(if is_page { page() } else { self.wrong_size(end) });
            }
            _ => Body::of(response).map_err(|error| self.client.unreadable(error, &self.request.subject))?,
        };
        // A range would be one of the coded bytes.
        self.takes_ranges &= !body.is_coded();
        self.open = Some((body, self.request.offset - starts));
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
        self.client.protocol(&self.request.subject, detail, None)
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
