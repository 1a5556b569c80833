//! The HTTP client that all registry clients share: TLS, time limits, redirects.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, RequestBuilder, Response, Url};

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
const REDIRECTS_MAX: usize = 5;

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
    pub(super) documents: DocumentTurns,
    pub(super) pace: Pace,
    pub(super) ranges: RangeHosts,
    limits: ImageLimits,
    insecure: BTreeSet<String>,
    pub(super) metrics: RegistryMetrics,
}

impl Transport {
    /// Builds the client.
    pub(crate) fn new(settings: &SourceSettings, reach: Reach) -> Result<Self, SourceError> {
        let mut builder = Client::builder()
            .user_agent(concat!("composefs-csi/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.connect_timeout)
            .read_timeout(settings.read_timeout)
            // A Referer would hand a storage back end's signed URL to the next host.
            .referer(false)
            .redirect(Policy::custom(redirect));
        // reqwest reads the environment's proxies unless it is told not to.
        if !settings.proxy_from_environment {
            builder = builder.no_proxy();
        }
        let client = builder.tls_certs_merge(reach.authorities).build().map_err(|e| {
            let detail = format!("no HTTP client can be made: {}", super::failure::chain(&e));
            SourceError::Settings { detail }
        })?;
        Ok(Self {
            client,
            retry: settings.retry,
            read_timeout: settings.read_timeout,
            document_timeout: settings.document_timeout,
            documents: DocumentTurns::new(settings.documents),
            pace: settings.pace,
            ranges: RangeHosts::default(),
            limits: settings.limits,
            insecure: reach.insecure,
            metrics: settings.metrics.clone(),
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
    pub(super) fn scheme(&self, host: &str) -> &'static str {
        if self.insecure.contains(host) { "http" } else { "https" }
    }
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
