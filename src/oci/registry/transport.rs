//! The HTTP client that all registry clients share: TLS, time limits, redirects.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::{Attempt, Policy};
use reqwest::{Certificate, Client, Identity, RequestBuilder, Response, Url};

use super::documents::DocumentTurns;
use super::location::RangeHosts;
use super::metrics::RegistryMetrics;
use super::pace::Pace;
use super::retry::RetryPolicy;
use crate::oci::SourceError;
use crate::oci::limits::ImageLimits;
use crate::oci::registry_settings::Reach;
use crate::oci::settings::SourceSettings;

/// A registry redirects once to its storage; five leave room for proxies.
pub(super) const REDIRECTS_MAX: usize = 5;

tokio::task_local! {
    /// Where the request of this task was redirected to last. The HTTP client's errors name only where it began.
    static REDIRECTED: RefCell<Option<Url>>;
}

/// Connections to registries. It holds no credential; each request carries its own.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(super) client: Client,
    pub(super) retry: RetryPolicy,
    pub(super) read_timeout: Duration,
    pub(super) document_timeout: Duration,
    pub(super) documents: Arc<DocumentTurns>,
    pub(super) pace: Pace,
    pub(super) ranges: RangeHosts,
    limits: ImageLimits,
    insecure: BTreeSet<String>,
    authorities: Vec<Certificate>,
    pub(super) metrics: RegistryMetrics,
}

/// What a file says about connections to one host.
#[derive(Debug, Clone, Default)]
pub(in crate::oci) struct EndpointTls {
    /// Certificate authorities besides those of the settings and the system.
    pub(in crate::oci) authorities: Vec<Certificate>,
    /// The client's own certificate with its key.
    pub(in crate::oci) identity: Option<Identity>,
    /// Whether any certificate is taken.
    pub(in crate::oci) skip_verify: bool,
    /// Time limit for connecting, instead of that of the settings.
    pub(in crate::oci) connect_timeout: Option<Duration>,
}

impl EndpointTls {
    /// Whether it says nothing.
    pub(in crate::oci) fn is_plain(&self) -> bool {
        self.authorities.is_empty()
            && self.identity.is_none()
            && !self.skip_verify
            && self.connect_timeout.is_none()
    }
}

/// How requests to one of several places are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::oci) enum Patience {
    /// As the settings say: there is no other place.
    Settings,
    /// Not at all: another place is asked.
    None,
}

impl Transport {
    /// Builds the client.
    pub(crate) fn new(settings: &SourceSettings, reach: Reach) -> Result<Self, SourceError> {
        let client = client(settings, &reach.authorities, &EndpointTls::default(), true)?;
        Ok(Self {
            client,
            retry: settings.retry,
            read_timeout: settings.read_timeout,
            document_timeout: settings.document_timeout,
            documents: Arc::new(DocumentTurns::new(settings.documents)),
            pace: settings.pace,
            ranges: RangeHosts::default(),
            limits: settings.limits,
            insecure: reach.insecure,
            authorities: reach.authorities,
            metrics: settings.metrics.clone(),
        })
    }

    /// The same for one host with settings of its own. Turns and counters are those of all.
    ///
    /// `has_headers` says that the host has headers of its own; they must not follow a redirect, so that the caller
    /// follows it.
    ///
    /// # Errors
    /// The TLS library refuses the settings.
    pub(in crate::oci) fn for_host(
        &self,
        settings: &SourceSettings,
        tls: &EndpointTls,
        has_headers: bool,
        patience: Patience,
    ) -> Result<Self, SourceError> {
        let retry = match patience {
            Patience::Settings => self.retry,
            Patience::None => RetryPolicy { attempts: 1, longest_retry_after: Duration::ZERO, ..self.retry },
        };
        Ok(Self {
            client: client(settings, &self.authorities, tls, !has_headers)?,
            retry,
            read_timeout: self.read_timeout,
            document_timeout: self.document_timeout,
            documents: Arc::clone(&self.documents),
            pace: self.pace,
            ranges: RangeHosts::default(),
            limits: self.limits,
            insecure: self.insecure.clone(),
            authorities: self.authorities.clone(),
            metrics: self.metrics.clone(),
        })
    }

    /// Sends a request. The URL of an error is the one that failed.
    pub(super) async fn send(request: RequestBuilder) -> reqwest::Result<Response> {
        let followed = async {
            let outcome = request.send().await;
            (outcome, REDIRECTED.with(RefCell::take))
        };
        match REDIRECTED.scope(RefCell::default(), followed).await {
            (Err(error), Some(url)) => Err(error.with_url(url)),
            (outcome, _) => outcome,
        }
    }

    /// Caps on images.
    pub(crate) fn limits(&self) -> &ImageLimits {
        &self.limits
    }

    /// The URL scheme for a registry.
    pub(in crate::oci) fn scheme(&self, host: &str) -> &'static str {
        if self.insecure.contains(host) { "http" } else { "https" }
    }
}

fn client(
    settings: &SourceSettings,
    authorities: &[Certificate],
    tls: &EndpointTls,
    follow: bool,
) -> Result<Client, SourceError> {
    let mut builder = Client::builder()
        .user_agent(concat!("composefs-csi/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(tls.connect_timeout.unwrap_or(settings.connect_timeout))
        .read_timeout(settings.read_timeout)
        // A Referer would hand a storage back end's signed URL to the next host.
        .referer(false)
        .redirect(if follow { Policy::custom(redirect) } else { Policy::none() })
        .tls_certs_merge(authorities.iter().chain(&tls.authorities).cloned());
    // reqwest reads the environment's proxies unless it is told not to.
    if !settings.proxy_from_environment {
        builder = builder.no_proxy();
    }
    if tls.skip_verify {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    if let Some(identity) = &tls.identity {
        builder = builder.identity(identity.clone());
    }
    builder.build().map_err(|e| {
        let detail = format!("no HTTP client can be made: {}", super::failure::chain(&e));
        SourceError::Settings { detail }
    })
}

/// Limits redirects and refuses those from https to http. reqwest itself drops `Authorization`
/// when scheme, host or port change.
fn redirect(attempt: Attempt) -> reqwest::redirect::Action {
    // Without a scope, only the name in an error is lost.
    let _ = REDIRECTED.try_with(|last| last.replace(Some(attempt.url().clone())));
    // Content is checked by its digest, but anyone on the network could read it.
    let downgrade = attempt.previous().last().is_some_and(|from| from.scheme() == "https")
        && attempt.url().scheme() != "https";
    let target = super::failure::printable(attempt.url().host_str().unwrap_or_default());
    if downgrade {
        attempt.error(format!("it redirects from https to plain http at {target}"))
    } else if attempt.previous().len() > REDIRECTS_MAX {
        attempt.error(format!("it redirects more than 5 times, at last to {target}"))
    } else {
        attempt.follow()
    }
}
