//! One way to reach a registry, as a file describes it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::oci::SourceError;
use crate::oci::registry::{EndpointTls, Transport};

/// For how long a host that could not be reached is asked after the others.
const DOWN: Duration = Duration::from_secs(30);

/// How a URL begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Where a registry's API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) scheme: Scheme,
    /// `HOST[:PORT]`, as references spell it.
    pub(super) authority: String,
    /// The path of the API without slashes at its ends, such as `v2` or `v2/cache`.
    pub(super) root: String,
}

/// What a host is asked for (containerd's `capabilities`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// Manifests and blobs by digest.
    pub(super) pull: bool,
    /// What a tag means. Its answer is believed, so it needs `pull` as well.
    pub(super) resolve: bool,
    /// Writing manifests.
    pub(super) push: bool,
    /// Lists of signatures and other referrers.
    pub(super) referrers: bool,
}

impl Capabilities {
    /// Where nothing is said.
    pub(super) const ALL: Self = Self { pull: true, resolve: true, push: true, referrers: true };
}

/// One way to reach a registry: where, with which trust, and what may be asked there.
#[derive(Debug)]
pub(super) struct Host {
    /// Tells its clients from those of others.
    pub(super) id: u64,
    /// `None`: the registry that the image names.
    pub(super) address: Option<Address>,
    pub(super) capabilities: Capabilities,
    /// Headers of every request to this host. Their values are marked as sensitive.
    pub(super) headers: HeaderMap,
    pub(super) tls: EndpointTls,
    /// Made when it is first used.
    transport: OnceLock<Arc<Transport>>,
    down_until: Mutex<Option<Instant>>,
}

impl Host {
    pub(super) fn new(
        address: Option<Address>,
        capabilities: Capabilities,
        headers: HeaderMap,
        tls: EndpointTls,
    ) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let id = LAST.fetch_add(1, Ordering::Relaxed);
        let (transport, down_until) = (OnceLock::new(), Mutex::default());
        Self { id, address, capabilities, headers, tls, transport, down_until }
    }

    /// The registry that the image names, as it is reached without any file.
    pub(super) fn plain() -> Self {
        Self::new(None, Capabilities::ALL, HeaderMap::new(), EndpointTls::default())
    }

    /// The connections to it.
    ///
    /// # Errors
    /// `make` fails.
    pub(super) fn transport(
        &self,
        make: impl FnOnce() -> Result<Transport, SourceError>,
    ) -> Result<Arc<Transport>, SourceError> {
        if let Some(made) = self.transport.get() {
            return Ok(Arc::clone(made));
        }
        let made = Arc::new(make()?);
        // Another thread may have been faster; one of the two serves all.
        Ok(Arc::clone(self.transport.get_or_init(|| made)))
    }

    /// Whether it could not be reached a short time ago.
    pub(super) fn is_down(&self) -> bool {
        self.down().is_some_and(|until| Instant::now() < until)
    }

    /// Remembers whether it could be reached, which `error` tells.
    pub(super) fn note(&self, error: Option<&SourceError>) {
        let unreachable = error.is_some_and(|error| {
            matches!(
                error,
                SourceError::Unreachable { .. }
                    | SourceError::Stalled { .. }
                    | SourceError::Overdue { .. }
                    | SourceError::Certificate { .. }
                    | SourceError::PlainHttp { .. }
                    | SourceError::WantsTls { .. }
            )
        });
        *self.down() = unreachable.then(|| Instant::now() + DOWN);
    }

    fn down(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        // The value is replaced as a whole, so a poisoned one is consistent.
        self.down_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a header whose value is not shown.
pub(super) fn add_header(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), &'static str> {
    let name: HeaderName = name.parse().map_err(|_| "is not the name of an HTTP header")?;
    let mut value: HeaderValue =
        value.parse().map_err(|_| "has a value with characters that an HTTP header cannot hold")?;
    value.set_sensitive(true);
    headers.append(name, value);
    Ok(())
}
