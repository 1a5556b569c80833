//! A request to a registry, before it has an authorization.

use std::fmt;

use bytes::Bytes;
use reqwest::{Method, StatusCode, Url};

/// A request for content of a repository.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) repository: String,
    /// Below the repository, for example `manifests/latest`.
    pub(super) path: String,
    pub(super) accept: Option<String>,
    /// The first byte to fetch.
    pub(super) offset: u64,
    /// The byte after the last one to fetch; `None` for all to the end.
    pub(super) end: Option<u64>,
    /// The content to write; `None` for a read.
    pub(super) body: Option<Body>,
    /// What else is said of a request that sends a blob; `None` for others.
    pub(super) upload: Option<Upload>,
    /// Whether a refusal is reported without the registry's own words, as after a HEAD.
    pub(super) quiet: bool,
    /// The object of the request, for messages.
    pub(super) subject: String,
}

/// The content of a request that writes.
#[derive(Debug, Clone)]
pub(super) struct Body {
    pub(super) media_type: String,
    pub(super) bytes: Bytes,
}

/// A request of an upload (distribution-spec 1.1, "Pushing blobs").
#[derive(Clone)]
pub(super) struct Upload {
    /// Where the registry has sent its client; `None` for the path of the request.
    pub(super) at: Option<Url>,
    /// The value of the header `Content-Range`: the first and the last byte.
    pub(super) range: Option<String>,
    /// The codes of success.
    pub(super) answers: &'static [u16],
}

/// Where an upload goes on may say so by a signature, which is as good as a password.
impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("range", &self.range).finish_non_exhaustive()
    }
}

impl Request {
    /// The actions that a token for it must allow (distribution's token scopes).
    pub(super) fn actions(&self) -> &'static str {
        if self.body.is_some() || self.upload.is_some() { "pull,push" } else { "pull" }
    }

    /// The value of the header `Range`, if the request is for a part (RFC 9110, section 14.1.2).
    pub(super) fn range(&self) -> Option<String> {
        match (self.offset, self.end) {
            (first, Some(end)) => Some(format!("bytes={first}-{}", end.saturating_sub(1))),
            (0, None) => None,
            (first, None) => Some(format!("bytes={first}-")),
        }
    }

    pub(super) fn is_answered_by(&self, status: StatusCode) -> bool {
        if let Some(upload) = &self.upload {
            return upload.answers.contains(&status.as_u16());
        }
        match self.body {
            // distribution-spec 1.1, "Pushing Manifests".
            Some(_) => status == StatusCode::CREATED,
            None => matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT),
        }
    }
}
