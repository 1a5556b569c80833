//! Turns failures of HTTP and TLS into errors that a person can act on.

use std::error::Error;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Response, StatusCode, header};
use serde::Deserialize;

use crate::oci::SourceError;
use crate::text::one_line;

/// The number of bytes of an error's body that are read; the server may be hostile.
const ERROR_BODY_MAX: usize = 8 << 10;

/// The number of characters of a registry's message that are repeated.
const DETAIL_MAX: usize = 300;

/// The longest `Retry-After` that is honoured.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

#[derive(Deserialize)]
struct Envelope {
    errors: Vec<EnvelopeError>,
}

#[derive(Deserialize)]
struct EnvelopeError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The failure that a response other than success means.
pub(super) async fn of_response(
    response: Response,
    host: &str,
    subject: &str,
    credentials_sent: bool,
) -> SourceError {
    let status = response.status();
    let retry_after = retry_after(&response);
    let body = read_prefix(response).await;
    let (subject, host) = (subject.to_owned(), host.to_owned());
    let detail = stated_error(&body);
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            SourceError::Denied { subject, host, credentials_sent, detail }
        }
        StatusCode::NOT_FOUND => SourceError::NotFound { subject },
        StatusCode::TOO_MANY_REQUESTS => SourceError::RateLimited { subject, host, retry_after, detail },
        // These are worth a retry; other errors of a server repeat themselves.
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::INTERNAL_SERVER_ERROR
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
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

/// The value of `Retry-After`, at most [`RETRY_AFTER_MAX`]. Only seconds are understood; registries do not send dates.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs).map(|wait| wait.min(RETRY_AFTER_MAX))
}

/// The message of a registry's error document (distribution-spec 1.1, "Error Codes").
fn stated_error(body: &[u8]) -> String {
    let Ok(envelope) = serde_json::from_slice::<Envelope>(body) else { return String::new() };
    let first = envelope.errors.into_iter().next();
    first.map(|error| printable(format!("{} {}", error.code, error.message).trim())).unwrap_or_default()
}

/// Text from a server, fit for a log line.
pub(super) fn printable(text: &str) -> String {
    let short: String = text.chars().take(DETAIL_MAX).collect();
    one_line(&short)
}

/// As much of an error's body as is read. A body that breaks off still helps the message.
async fn read_prefix(mut response: Response) -> Bytes {
    let mut bytes = BytesMut::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = ERROR_BODY_MAX - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if bytes.len() == ERROR_BODY_MAX {
            break;
        }
    }
    bytes.freeze()
}

/// Reads a body. One beyond `max` bytes is cut there, and then does not parse.
pub(super) async fn read_bounded(mut response: Response, max: usize) -> reqwest::Result<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
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
    host: &str,
    subject: &str,
    read_timeout: Duration,
) -> SourceError {
    let error = error.without_url();
    let detail = chain(&error);
    let (subject, host) = (subject.to_owned(), host.to_owned());
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
