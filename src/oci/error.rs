//! Errors of reading and writing images at their source.
//!
//! Messages of registries are untrusted: they are shortened and stripped of control characters before
//! they get here. URLs are left out, because those of storage back ends carry signatures.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::kind::Kind;
use crate::oci::credentials::CredentialError;
use crate::oci::digest::Digest;
use crate::oci::limits::Exceeded;
use crate::oci::manifest::ManifestError;

/// What the server answered to which a registry redirected.
#[derive(Debug, thiserror::Error)]
#[error(
    "{host} redirected the request for {subject} to {target}, which answered HTTP {status}{}; look at the storage of {host}, and at clock and proxy of this node: such redirects are signed for a short time",
    in_parentheses(detail)
)]
pub struct RedirectedError {
    /// The requested reference or blob.
    pub subject: String,
    /// The registry.
    pub host: String,
    /// The host that answered, with its port.
    pub target: String,
    /// The HTTP status.
    pub status: u16,
    /// The wait that it asks for.
    pub retry_after: Option<Duration>,
    /// The server's own message; may be empty.
    pub detail: String,
}

/// Why a source returned no bytes.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The repository, tag, digest or blob does not exist.
    #[error("{subject} was not found; check the name, and that the credentials may read it")]
    NotFound {
        /// The requested reference or blob.
        subject: String,
    },
    /// The registry denies access.
    #[error("{host} denied access to {subject}{}; {}", in_parentheses(detail), denied_remedy(host, *credentials_sent))]
    Denied {
        /// The requested reference or blob.
        subject: String,
        /// The registry, or the token service that it named.
        host: String,
        /// Whether a credential was used.
        credentials_sent: bool,
        /// The registry's own message; may be empty.
        detail: String,
    },
    /// The settings of this node forbid it.
    #[error("{subject} is blocked by {stated}; take an image that is not, or remove blocked = true there")]
    Blocked {
        /// The image's name.
        subject: String,
        /// The file and the line that say so.
        stated: String,
    },
    /// The registry cannot be asked whether the caller may read.
    #[error(
        "whether {image} may be read is proven by its registry, and no mirror is asked before: {source}; if its mirrors          may say so, start with --mirror-proof=mirror"
    )]
    Unproven {
        /// The image's name.
        image: String,
        /// Why the registry cannot be asked.
        source: Box<SourceError>,
    },
    /// Too many requests.
    #[error("{host} limits the rate of requests for {subject}{}; {}", in_parentheses(detail), rate_remedy(*retry_after))]
    RateLimited {
        /// The requested reference or blob.
        subject: String,
        /// The registry.
        host: String,
        /// The wait that it asks for.
        retry_after: Option<Duration>,
        /// The registry's own message; may be empty.
        detail: String,
    },
    /// A server error.
    #[error(
        "{host} answered HTTP {status} for {subject}{}; it is tried again, look at the registry if this lasts",
        in_parentheses(detail)
    )]
    Unavailable {
        /// The requested reference or blob.
        subject: String,
        /// The registry.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The wait that it asks for.
        retry_after: Option<Duration>,
        /// The registry's own message; may be empty.
        detail: String,
    },
    /// A failure of the server to which the registry redirected, such as its storage.
    #[error(transparent)]
    Redirected(Box<RedirectedError>),
    /// No connection, or one that broke.
    #[error(
        "connection to {host} for {subject} failed: {detail}; check name, network and proxy of this node"
    )]
    Unreachable {
        /// The requested reference or blob.
        subject: String,
        /// The registry.
        host: String,
        /// The errors from the transport.
        detail: String,
    },
    /// A connection without any data for the time limit.
    #[error("{host} sent nothing for {} s while {subject} was fetched; check network and registry", after.as_secs_f32())]
    Stalled {
        /// The requested reference or blob.
        subject: String,
        /// The registry.
        host: String,
        /// The time limit.
        after: Duration,
    },
    /// A small document that takes too long.
    #[error(
        "{host} had not sent all of {subject} after {:.0} s{}; check network and registry",
        after.as_secs_f32(), if *crowded { " while other requests waited" } else { "" }
    )]
    Overdue {
        /// The requested reference or document.
        subject: String,
        /// The registry.
        host: String,
        /// The time that it had.
        after: Duration,
        /// Whether it had only this time because others waited.
        crowded: bool,
    },
    /// The registry's certificate is not trusted.
    #[error(
        "the certificate of {host} is not trusted: {detail}; if its authority is your own, add it to the registry CA files of this node's settings"
    )]
    Certificate {
        /// The registry.
        host: String,
        /// What the TLS library found.
        detail: String,
    },
    /// The server answers TLS with plain HTTP.
    #[error(
        "{host} does not speak TLS; if it is meant to be reached by plain HTTP, add {host} to the insecure registries of this node's settings"
    )]
    PlainHttp {
        /// The registry.
        host: String,
    },
    /// The server answers plain HTTP with a demand for TLS.
    #[error("{host} wants TLS but this node's settings list it as an insecure registry; remove it there")]
    WantsTls {
        /// The registry.
        host: String,
    },
    /// A token service that must not receive a secret.
    #[error(
        "{host} sent us to {target}, which is not https; credentials go there only if {host} itself is an insecure registry; correct the registry's configuration"
    )]
    InsecureRealm {
        /// The registry.
        host: String,
        /// Scheme and host of the realm.
        target: String,
    },
    /// An answer outside the distribution specification.
    #[error(
        "{host} gave an answer for {subject} that is not one of a registry: {detail}; check that {host} is a registry and no proxy answers for it"
    )]
    Protocol {
        /// The requested reference or blob.
        subject: String,
        /// The registry.
        host: String,
        /// What is wrong.
        detail: String,
    },
    /// A document larger than its limit.
    #[error(
        "{subject} is larger than the limit of {limit} bytes; it is not an image that this driver accepts"
    )]
    TooLarge {
        /// The document.
        subject: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// A document beyond a cap on images.
    #[error("{subject}: {exceeded}")]
    Limit {
        /// The document.
        subject: String,
        /// Which cap.
        exceeded: Exceeded,
    },
    /// A connection that is slower than the minimum transfer rate.
    #[error(
        "{host} sent only {rate} bytes a second over {} s while {subject} was fetched, and its size needs at least {minimum}; check network and registry, or change --min-transfer-rate or --max-layer-time",
        over.as_secs()
    )]
    Slow {
        /// The requested blob.
        subject: String,
        /// The registry.
        host: String,
        /// Bytes per second received.
        rate: u64,
        /// The minimum in bytes per second.
        minimum: u64,
        /// The time over which they were counted.
        over: Duration,
    },
    /// Bytes with another digest than the requested one.
    #[error(
        "{subject} has digest {actual}, expected {expected}; the registry or a proxy serves wrong bytes, or the layout is damaged"
    )]
    WrongDigest {
        /// The document.
        subject: String,
        /// The requested digest.
        expected: Digest,
        /// The digest of the bytes received.
        actual: Digest,
    },
    /// A blob of another length than its descriptor says.
    #[error(
        "{subject} has {actual} bytes, its descriptor says {expected}; the image was pushed wrongly or its bytes are damaged"
    )]
    WrongSize {
        /// The blob.
        subject: String,
        /// The descriptor's size in bytes.
        expected: u64,
        /// The actual length in bytes; a lower bound if the rest was not read.
        actual: u64,
    },
    /// A directory that is not an OCI layout.
    #[error("{} is not an OCI image layout: {detail}; write one with: skopeo copy SOURCE oci:DIR:TAG", directory.display())]
    NotALayout {
        /// The directory.
        directory: PathBuf,
        /// What is missing or wrong.
        detail: String,
    },
    /// A layout in which the reference names more than one image.
    #[error("{subject} names more than one image; write one of: {}", choices.join(", "))]
    SeveralImages {
        /// The reference.
        subject: String,
        /// References that name one image each.
        choices: Vec<String>,
    },
    /// An index of a layout that cannot be read.
    #[error("{subject}: {source}")]
    Manifest {
        /// The document.
        subject: String,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Settings that make no HTTP client.
    #[error("{detail}; correct the registry settings of this node")]
    Settings {
        /// The setting and what is wrong with it.
        detail: String,
    },
    /// Credentials that cannot be used.
    #[error(transparent)]
    Credential(#[from] CredentialError),
}

fn in_parentheses(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

fn denied_remedy(host: &str, credentials_sent: bool) -> String {
    if credentials_sent {
        format!(
            "the credentials for {host} were refused or may not read it: renew them in the secret or in the node's docker config, and check that the image exists"
        )
    } else {
        format!(
            "no credentials were sent: give a secret of type kubernetes.io/dockerconfigjson, or a docker config, with an entry for {host}, and check that the image exists"
        )
    }
}

fn rate_remedy(retry_after: Option<Duration>) -> String {
    let when = retry_after.map(|d| format!("it is asked again in {} s at the earliest; ", whole_seconds(d)));
    format!("{}use credentials with a higher limit, or a mirror", when.unwrap_or_default())
}

/// Rounded up, because a shorter wait would be refused again.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

impl SourceError {
    /// Whether an HTTP status of a server may be another one soon. Other errors of a server repeat themselves. The
    /// numbers from 520 are those of content delivery networks.
    pub(super) fn is_passing(status: u16) -> bool {
        matches!(status, 408 | 425 | 500 | 502..=504 | 507 | 509 | 520..=599)
    }

    /// What sort of failure this is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Redirected(error) => match &error.status {
                401 | 403 => Kind::Denied,
                404 | 410 => Kind::NotFound,
                429 => Kind::Transient,
                passing if Self::is_passing(*passing) => Kind::Transient,
                _ => Kind::Unsupported,
            },
            Self::NotFound { .. } => Kind::NotFound,
            Self::Denied { .. } | Self::Blocked { .. } => Kind::Denied,
            Self::Unproven { source, .. } => source.kind(),
            Self::RateLimited { .. }
            | Self::Unavailable { .. }
            | Self::Unreachable { .. }
            | Self::Stalled { .. }
            | Self::Overdue { .. }
            | Self::Slow { .. } => Kind::Transient,
            Self::Certificate { .. }
            | Self::PlainHttp { .. }
            | Self::WantsTls { .. }
            | Self::InsecureRealm { .. }
            | Self::Protocol { .. } => Kind::Unsupported,
            Self::TooLarge { .. }
            | Self::NotALayout { .. }
            | Self::SeveralImages { .. }
            | Self::Settings { .. } => Kind::Invalid,
            Self::Limit { .. } => Kind::Exhausted,
            Self::WrongDigest { .. } | Self::WrongSize { .. } => Kind::Corrupt,
            // Other errors of the file system, such as EIO or EMFILE, can pass.
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Kind::NotFound,
                io::ErrorKind::PermissionDenied => Kind::Denied,
                _ => Kind::Transient,
            },
            Self::Manifest { source, .. } => source.kind(),
            Self::Credential(error) => error.kind(),
        }
    }

    /// The same without the registry's own words, as after a request whose answer has no body.
    pub(super) fn without_detail(mut self) -> Self {
        if let Self::Redirected(error) = &mut self {
            error.detail.clear();
        }
        if let Self::Denied { detail, .. }
        | Self::RateLimited { detail, .. }
        | Self::Unavailable { detail, .. } = &mut self
        {
            detail.clear();
        }
        self
    }

    /// Whether other bytes came than those that were asked for.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::WrongDigest { .. } | Self::WrongSize { .. })
    }

    /// The wait that the server asked for, if it did.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Unavailable { retry_after, .. } => *retry_after,
            Self::Redirected(error) => error.retry_after,
            Self::Unproven { source, .. } => source.retry_after(),
            _ => None,
        }
    }
}
