//! A part of a blob: one closed range, asked for again from the byte reached when a connection breaks.
//!
//! Closed, because some registries refuse `bytes=N-`; single, because many answer a list of ranges with an error or with
//! the whole blob. What is joined wrongly has the wrong digest, which the consumer checks.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use reqwest::{Response, StatusCode, Url, header};

use super::blob;
use super::client::RegistryClient;
use super::location::Locations;
use super::pace::Window;
use super::request::Request;
use super::timed::timed;
use crate::kind::Kind;
use crate::oci::digest::Digest;
use crate::oci::{BlobStream, Ranged, SourceError};

/// The maximum number of connections for one part.
const CONNECTIONS_MAX: u32 = 100;
/// How many connections may share a blob's minimum rate.
const SHARES: u64 = 4;

/// The blob that a part is wanted of.
pub(super) struct Wanted {
    pub(super) blob: Digest,
    /// Of the whole blob.
    pub(super) size: u64,
    pub(super) locations: Arc<Locations>,
    /// Whether it comes beside another part of the blob.
    pub(super) is_extra: bool,
}

struct PartOfBlob {
    client: Arc<RegistryClient>,
    /// Its offset is the byte reached.
    request: Request,
    wanted: Wanted,
    start: u64,
    end: u64,
    /// The connection in use.
    open: Option<Open>,
    connections: u32,
    window: Window,
    /// Failures since the last new byte.
    failures: u32,
}

/// An answer that is being read.
struct Open {
    response: Response,
    /// How many of its next bytes were received before.
    known: u64,
    /// Where it ends, as it says: some servers send less at a time than is asked for.
    until: u64,
}

/// What a server answered to a range.
enum Answer {
    Part(Open),
    Whole(Response),
    Refused(SourceError),
}

/// Opens the part that `request` says. Refusals of the blob itself are this call's errors.
pub(super) async fn open(
    client: Arc<RegistryClient>,
    request: Request,
    wanted: Wanted,
) -> Result<Ranged, SourceError> {
    let (start, end) = (request.offset, request.end.unwrap_or(wanted.size));
    let window = Window::new(client.pace().for_size(wanted.size / SHARES));
    let mut part =
        PartOfBlob { client, request, wanted, start, end, open: None, connections: 0, window, failures: 0 };
    loop {
        match part.ask().await {
            Ok(Answer::Part(open)) => {
                part.open = Some(open);
                return Ok(Ranged::Part(part.into_stream()));
            }
            Ok(Answer::Whole(response)) => {
                let PartOfBlob { client, request, wanted, .. } = part;
                return blob::adopt(client, request, wanted.size, response).map(Ranged::Whole);
            }
            Ok(Answer::Refused(error)) => {
                part.client.ranges().refused(part.client.host());
                return Ok(Ranged::Refused(error));
            }
            Err(error) if part.wanted.is_extra => return Err(part.unwanted(error)),
            Err(error) => {
                part.failures += 1;
                part.client.pause_or_fail(part.failures, error).await?;
                part.count_repeat();
            }
        }
    }
}

impl PartOfBlob {
    fn into_stream(self) -> BlobStream {
        let chunks =
            stream::try_unfold(
                self,
                |mut part| async move { Ok(part.next().await?.map(|chunk| (chunk, part))) },
            );
        chunks.boxed()
    }

    /// The next new bytes, or `None` after the last.
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        while self.request.offset < self.end {
            match self.step().await {
                // Only bytes that were received before.
                Ok(chunk) if chunk.is_empty() => {}
                Ok(chunk) => {
                    self.failures = 0;
                    self.request.offset += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                // New bytes reset `failures`, so slow windows have a count of their own: see `pace`.
                Err(SourceError::Slow { .. }) if !self.window.is_over() => {
                    self.open = None;
                    self.count_repeat();
                }
                Err(error @ SourceError::Slow { .. }) => return Err(error),
                Err(error) => {
                    self.open = None;
                    self.failures += 1;
                    self.client.pause_or_fail(self.failures, error).await?;
                    self.count_repeat();
                }
            }
        }
        Ok(None)
    }

    /// Reads one chunk, connecting first where there is no connection. It may hold no new byte.
    async fn step(&mut self) -> Result<Bytes, SourceError> {
        if self.open.is_none() {
            self.open = match self.ask().await? {
                Answer::Part(open) => Some(open),
                Answer::Whole(_) => return Err(self.protocol("the whole blob instead of a part".to_owned())),
                Answer::Refused(error) => return Err(error),
            };
        }
        let Some(Open { response, known, until }) = &mut self.open else { return Ok(Bytes::new()) };
        let (chunk, waited) = timed(response.chunk()).await;
        let bytes = chunk.as_ref().ok().and_then(Option::as_ref).map_or(0, Bytes::len);
        let paced = self.window.count(bytes as u64, waited);
        match chunk {
            Ok(Some(mut chunk)) => {
                let skip = usize::try_from(*known).unwrap_or(usize::MAX).min(chunk.len());
                let mut chunk = chunk.split_off(skip);
                *known -= skip as u64;
                let left = self.end - self.request.offset;
                // A server may send more than the range: all to the end of the blob.
                chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                match paced {
                    Err(rate) if chunk.len() as u64 != left => Err(self.slow(rate)),
                    _ => Ok(chunk),
                }
            }
            Ok(None) if self.request.offset == *until => {
                self.open = None;
                Ok(Bytes::new())
            }
            Ok(None) => Err(SourceError::Unreachable {
                subject: self.request.subject.clone(),
                host: self.client.host().to_owned(),
                detail: "the connection ended early".to_owned(),
            }),
            Err(error) if error.is_timeout() => Err(self.client.stalled(&self.request.subject)),
            Err(error) => Err(self.client.broken(error, &self.request.subject)),
        }
    }

    /// Requests what is missing of the part.
    async fn ask(&mut self) -> Result<Answer, SourceError> {
        self.connections += 1;
        if self.connections > CONNECTIONS_MAX {
            return Err(self.protocol(format!("it took more than {CONNECTIONS_MAX} connections")));
        }
        self.client.wait_for_hold(&self.request.subject).await?;
        let response = match self.at_location().await {
            Some(response) => response,
            None => match self.client.send(&self.request).await {
                Ok(response) => response,
                // 416, 400, 501 and what else servers answer to ranges that they do not serve.
                Err(error @ (SourceError::Protocol { .. } | SourceError::Redirected(_)))
                    if error.kind() == Kind::Unsupported =>
                {
                    return Ok(Answer::Refused(error));
                }
                Err(error) => return Err(error),
            },
        };
        if response.status() == StatusCode::OK {
            return Ok(Answer::Whole(response));
        }
        let Some(stated) = Stated::of(&response) else {
            let detail = "partial content that does not say which part".to_owned();
            return Ok(Answer::Refused(self.protocol(detail)));
        };
        let (offset, end) = (self.request.offset, self.end);
        // Bytes in between would be missing.
        if stated.first > offset || stated.last < offset || stated.last < stated.first {
            let detail = format!("bytes {}-{} instead of {offset}-{}", stated.first, stated.last, end - 1);
            return Ok(Answer::Refused(self.protocol(detail)));
        }
        if let Some(actual) = stated.size.filter(|size| *size != self.wanted.size) {
            let subject = self.request.subject.clone();
            return Err(SourceError::WrongSize { subject, expected: self.wanted.size, actual });
        }
        if self.client.is_elsewhere(response.url()) {
            self.wanted.locations.keep(&self.wanted.blob, response.url());
        }
        let (known, until) = (offset - stated.first, stated.last + 1);
        Ok(Answer::Part(Open { response, known, until }))
    }

    /// The answer at the place where the blob was found; `None` if there is none, or it is not what was asked for. The
    /// registry is asked then.
    async fn at_location(&self) -> Option<Response> {
        let (blob, locations) = (&self.wanted.blob, &self.wanted.locations);
        let url: Url = locations.get(blob)?;
        let request = self.client.http().get(url).header(header::RANGE, self.request.range()?);
        let sent = self.client.in_time(&self.request.subject, async { Ok(request.send().await) }).await;
        match sent {
            Ok(Ok(response)) if response.status() == StatusCode::PARTIAL_CONTENT => Some(response),
            // Such as the 400, 401 or 403 of a URL whose time is over. Whatever it is, the registry knows better.
            _ => {
                locations.forget(blob);
                None
            }
        }
    }

    /// Notes that a connection beside another one is not wanted.
    fn unwanted(&self, error: SourceError) -> SourceError {
        if let SourceError::RateLimited { host, retry_after, .. }
        | SourceError::Unavailable { host, retry_after, .. } = &error
        {
            self.client.ranges().limited(self.client.host());
            // Without a time it was a word about this connection; with one about the user.
            if let Some(wait) = retry_after {
                self.client.hold.extend(host, *wait);
            }
        }
        error
    }

    /// Counts a request that is sent again: for the rest of the part, or for all of it.
    fn count_repeat(&self) {
        self.client.count_repeat(self.request.offset - self.start);
    }

    fn slow(&self, rate: u64) -> SourceError {
        let (subject, host) = (self.request.subject.clone(), self.client.host().to_owned());
        let pace = self.client.pace().for_size(self.wanted.size / SHARES);
        SourceError::Slow { subject, host, rate, minimum: pace.minimum, over: pace.window }
    }

    fn protocol(&self, detail: String) -> SourceError {
        let (subject, host) = (self.request.subject.clone(), self.client.host().to_owned());
        SourceError::Protocol { subject, host, detail }
    }
}

/// `Content-Range: bytes FIRST-LAST/SIZE` (RFC 9110, section 14.4).
#[derive(Debug, PartialEq, Eq)]
struct Stated {
    first: u64,
    last: u64,
    /// `None` for `*`.
    size: Option<u64>,
}

impl Stated {
    fn of(response: &Response) -> Option<Self> {
        // A part of an encoded blob is no part of the blob.
        let encoding = response.headers().get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| encoding != "identity") {
            return None;
        }
        Self::parse(response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?)
    }

    fn parse(value: &str) -> Option<Self> {
        let (range, size) = value.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let size = match size.trim() {
            "*" => None,
            size => Some(size.parse().ok()?),
        };
        Some(Self { first: first.trim().parse().ok()?, last: last.trim().parse().ok()?, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_says_which_part_it_is() {
        let stated = |first, last, size| Some(Stated { first, last, size });
        assert_eq!(Stated::parse("bytes 0-9/100"), stated(0, 9, Some(100)));
        assert_eq!(Stated::parse(" bytes  5-9/* "), stated(5, 9, None));
        for other in ["bytes */100", "items 0-9/100", "bytes 0-9", "bytes 9/100", "bytes a-b/c", ""] {
            assert_eq!(Stated::parse(other), None, "{other}");
        }
    }
}
