//! Turns failures of HTTP and TLS into errors that a person can act on.

use std::error::Error;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::{Response, StatusCode, Url, header};
use serde::Deserialize;

use super::body::{Body, BodyError};
use super::{page, retry_after};
use crate::oci::{RedirectedError, SourceError};
use crate::text::one_line;

/// The number of bytes of an error's body that are read; the server may be hostile.
const ERROR_BODY_MAX: usize = 8 << 10;

/// The number of characters of a registry's message that are repeated.
const DETAIL_MAX: usize = 300;

#[derive(Deserialize)]
struct Envelope {
    errors: Option<Vec<EnvelopeError>>,
}

#[derive(Deserialize)]
struct EnvelopeError {
    code: Option<String>,
    message: Option<String>,
}

/// The server that was asked: its name for users, and the URL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) host: &'a str,
    pub(super) url: &'a Url,
}

impl Asked<'_> {
    /// The host that answered in the place of the one that was asked.
    fn redirected_to(&self, answered: &Url) -> Option<String> {
        let of = |url: &Url| (url.host_str().map(str::to_owned), url.port_or_known_default());
        if of(answered) == of(self.url) {
            return None;
        }
        let host = answered.host_str().unwrap_or_default();
        Some(printable(&answered.port().map_or(host.to_owned(), |port| format!("{host}:{port}"))))
    }

    /// The host for messages, with the one that it redirected to.
    pub(super) fn named(&self, answered: Option<&Url>) -> String {
        match answered.and_then(|answered| self.redirected_to(answered)) {
            Some(target) => format!("{target} (to which {} redirects)", self.host),
            None => self.host.to_owned(),
        }
    }
}

/// The failure that a response other than success means.
pub(super) async fn of_response(
    response: Response,
    asked: Asked<'_>,
    subject: &str,
    credentials_sent: bool,
) -> SourceError {
    let status = response.status();
    let retry_after = retry_after(&response);
    let redirected = asked.redirected_to(response.url());
    let body = read_prefix(response).await;
    let (subject, host) = (subject.to_owned(), asked.host.to_owned());
    let detail = stated_error(&body);
    if let Some(target) = redirected {
        let status = status.as_u16();
        let error = RedirectedError { subject, host, target, status, retry_after, detail };
        return SourceError::Redirected(Box::new(error));
    }
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            SourceError::Denied { subject, host, credentials_sent, detail }
        }
        StatusCode::NOT_FOUND => SourceError::NotFound { subject },
        StatusCode::TOO_MANY_REQUESTS => SourceError::RateLimited { subject, host, retry_after, detail },
        status if SourceError::is_passing(status.as_u16()) => {
            let status = status.as_u16();
            SourceError::Unavailable { subject, host, status, retry_after, detail }
        }
        StatusCode::BAD_REQUEST if names_tls(&body) => SourceError::WantsTls { host },
        other => {
            let colon = if detail.is_empty() { "" } else { ": " };
            let detail = format!("HTTP {}{colon}{detail}", other.as_u16());
            SourceError::Protocol { subject, host, detail }
        }
    }
}

/// Whether a body is what servers in Go and nginx answer to plain HTTP on a TLS port.
fn names_tls(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body).to_ascii_lowercase();
    ["http request to an https server", "plain http request was sent to https port"]
        .iter()
        .any(|phrase| text.contains(phrase))
}

fn retry_after(response: &Response) -> Option<Duration> {
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    retry_after::wait(text(header::RETRY_AFTER)?, text(header::DATE), SystemTime::now())
}

/// What a server says about its refusal: in a registry's error document (distribution-spec 1.1, "Error Codes"), in a
/// storage's XML, or that it is a page for people.
fn stated_error(body: &[u8]) -> String {
    let Ok(envelope) = serde_json::from_slice::<Envelope>(body) else {
        let stated = page::storage_error(&String::from_utf8_lossy(body));
        return stated.or_else(|| page::described(body)).unwrap_or_default();
    };
    let first = envelope.errors.into_iter().flatten().next();
    let words =
        first.map(|error| [error.code, error.message].into_iter().flatten().collect::<Vec<_>>().join(" "));
    printable(words.unwrap_or_default().trim())
}

/// Text from a server, fit for a log line.
pub(super) fn printable(text: &str) -> String {
    let short: String = text.chars().take(DETAIL_MAX).collect();
    one_line(&short)
}

/// As much of an error's body as is read. A body that breaks off still helps the message.
async fn read_prefix(response: Response) -> Bytes {
    let mut bytes = BytesMut::new();
    let Ok(mut body) = Body::of(response) else { return Bytes::new() };
    while let Ok(Some(chunk)) = body.chunk().await {
        let room = ERROR_BODY_MAX - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if bytes.len() == ERROR_BODY_MAX {
            break;
        }
    }
    bytes.freeze()
}

/// Reads a body. One beyond `max` bytes is cut there, and then does not parse.
pub(super) async fn read_bounded(response: Response, max: usize) -> Result<Bytes, BodyError> {
    let mut bytes = BytesMut::new();
    let mut body = Body::of(response)?;
    while let Some(chunk) = body.chunk().await? {
        let room = max - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if bytes.len() == max {
            break;
        }
    }
    Ok(bytes.freeze())
}

/// The failure that an error of the HTTP client means. Its URL is left out, because storage back
/// ends put signatures into theirs.
pub(super) fn of_transport(
    error: reqwest::Error,
    asked: Asked<'_>,
    subject: &str,
    read_timeout: Duration,
) -> SourceError {
    let host = asked.named(error.url());
    let error = error.without_url();
    let detail = chain(&error);
    let subject = subject.to_owned();
    let lower = detail.to_ascii_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| lower.contains(phrase));
    // OpenSSL's reasons are available as text only. A timeout while connecting is an unreachable host and no stall.
    if error.is_redirect() {
        SourceError::Protocol { subject, host, detail }
    } else if says(&["wrong version number", "packet length too long", "http request)"]) {
        SourceError::PlainHttp { host }
    } else if says(&["certificate verify failed", "certificate has expired", "hostname mismatch"]) {
        SourceError::Certificate { host, detail }
    } else if error.is_timeout() && !error.is_connect() {
        SourceError::Stalled { subject, host, after: read_timeout }
    } else {
        SourceError::Unreachable { subject, host, detail }
    }
}

/// An error with all its causes. The HTTP client's own message names only the step.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some layers repeat their cause in their own message.
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    printable(&text)
}
