//! The client of one registry with one credential: requests and their authorization.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, header};

use super::authorization::{Authorization, Authorizations, Held};
use super::body::BodyError;
use super::challenge::{self, Challenge};
use super::documents::{DocumentTurns, Tenant};
use super::failure::Asked;
use super::hold::Hold;
use super::location::RangeHosts;
use super::metrics::{RegistryMetrics, Repeat, RequestKind};
use super::pace::Pace;
use super::request::Request;
use super::retry::RetryPolicy;
use super::scopes::Scopes;
use super::{Transport, failure};
use crate::oci::SourceError;
use crate::oci::credentials::{Credential, CredentialId, Secret};
use crate::oci::limits::ImageLimits;
use crate::oci::reference::{RegistryReference, api_host};

/// A client of one registry with one credential. Its tokens never leave it.
pub(crate) struct RegistryClient {
    transport: Arc<Transport>,
    /// The registry as users name it.
    host: String,
    base: Url,
    /// Headers of every request to it, and of none to another host.
    pub(super) headers: HeaderMap,
    /// The registry that a host which serves several is asked for (`?ns=`).
    namespace: Option<String>,
    credential: Option<Credential>,
    authorizations: Authorizations,
    /// The time before which no request goes out.
    pub(super) hold: Hold,
}

/// Where a registry's API is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ApiAddress<'a> {
    pub(crate) scheme: &'static str,
    /// As references name it.
    pub(crate) host: &'a str,
    /// The path of the API, without slashes at its ends.
    pub(crate) root: &'a str,
    /// The registry that it is asked for, if it serves several.
    pub(crate) namespace: Option<&'a str>,
}

impl fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let credential = self.credential.as_ref();
        f.debug_struct("RegistryClient")
            .field("base", &self.base.as_str())
            .field("credential", &credential)
            .finish_non_exhaustive()
    }
}

impl RegistryClient {
    /// A client without tokens. Does no I/O.
    pub(crate) fn new(
        transport: Arc<Transport>,
        reference: &RegistryReference,
        credential: Option<Credential>,
    ) -> Result<Self, SourceError> {
        let scheme = transport.scheme(reference.host());
        let address = ApiAddress { scheme, host: reference.host(), root: "v2", namespace: None };
        Self::at(transport, &address, HeaderMap::new(), credential)
    }

    /// The same for an API at another address. Does no I/O.
    pub(crate) fn at(
        transport: Arc<Transport>,
        address: &ApiAddress<'_>,
        headers: HeaderMap,
        credential: Option<Credential>,
    ) -> Result<Self, SourceError> {
        let ApiAddress { scheme, host, root, namespace } = *address;
        let slash = if root.is_empty() { "" } else { "/" };
        let base = Url::parse(&format!("{scheme}://{}/{root}{slash}", api_host(host)));
        let base = base.map_err(|e| SourceError::Settings { detail: format!("{host} makes no URL: {e}") })?;
        let (authorizations, hold) = (Authorizations::default(), Hold::default());
        let (host, namespace) = (host.to_owned(), namespace.map(str::to_owned));
        Ok(Self { transport, host, base, headers, namespace, credential, authorizations, hold })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    pub(super) fn is_insecure(&self) -> bool {
        self.base.scheme() == "http"
    }

    pub(super) fn http(&self) -> &Client {
        &self.transport.client
    }

    pub(super) fn retry_policy(&self) -> &RetryPolicy {
        &self.transport.retry
    }

    /// Sends a request once and returns a successful response. The authorization is renewed at most
    /// once. The caller retries transient failures.
    pub(super) async fn send(&self, request: &Request) -> Result<Response, SourceError> {
        // The limit covers tokens and error bodies, which a hostile server can trickle as well.
        let result = self.in_time(&request.subject, self.send_now(request)).await;
        self.transport.metrics.count(RequestKind::by_path(&request.path), result)
    }

    async fn send_now(&self, request: &Request) -> Result<Response, SourceError> {
        let mut held = self.authorizations.current(&request.repository);
        let mut renewed = false;
        // A token that is known to have expired is renewed before the request.
        if held.expired() {
            held = self.renew(request, &held, held.challenge.clone()).await?;
            renewed = true;
        }
        loop {
            let sent = Transport::send(self.build(request, &held.authorization)?).await;
            let response = sent.map_err(|e| self.broken(e, &request.subject))?;
            let response = self.redirected(response, request).await?;
            if request.is_answered_by(response.status()) {
                return Ok(response);
            }
            // A second refusal means that a new token does not help.
            match self.answerable(&response, &held).filter(|_| !renewed) {
                Some(challenge) => {
                    held = self.renew(request, &held, Some(challenge)).await?;
                    renewed = true;
                }
                None => {
                    if !renewed
                        && may_hide(response.status(), &held)
                        && let Some(challenge) = self.root_challenge().await
                        // If it cannot be answered, the first refusal counts.
                        && let Ok(answered) = self.renew(request, &held, Some(challenge)).await
                    {
                        (held, renewed) = (answered, true);
                        continue;
                    }
                    // Whether a credential was used decides which remedy the message gives.
                    let sent = held.authorization != Authorization::None && self.credential.is_some();
                    let failure = failure::of_response(response, self.asked(), &request.subject, sent).await;
                    return Err(if request.quiet { failure.without_detail() } else { failure });
                }
            }
        }
    }

    /// The challenge of the API's root. Some registries challenge only there, and hide repositories from whoever has no
    /// token (docker and podman begin there). A failure is none, and is not remembered.
    async fn root_challenge(&self) -> Option<Challenge> {
        if let Some(known) = self.authorizations.of_root() {
            return known;
        }
        let url = self.with_namespace(self.base.clone());
        let request = self.http().get(url).headers(self.headers.clone());
        let response = Transport::send(request).await.ok()?;
        let headers = response.headers().get_all(header::WWW_AUTHENTICATE).iter();
        let challenge = match response.status() {
            StatusCode::UNAUTHORIZED => challenge::choose(headers.filter_map(|value| value.to_str().ok())),
            _ => None,
        };
        self.authorizations.keep_root(challenge.clone());
        challenge
    }

    /// Counts a request that is sent again, from `offset` of a blob or whole.
    pub(super) fn count_repeat(&self, offset: u64) {
        let repeat = if offset > 0 { Repeat::Resumed } else { Repeat::Retried };
        self.transport.metrics.count_repeat(&self.host, repeat);
    }

    /// Where what comes is counted.
    pub(super) fn metrics(&self) -> &RegistryMetrics {
        &self.transport.metrics
    }

    /// The failure of a transport error while a response is read.
    pub(super) fn broken(&self, error: reqwest::Error, subject: &str) -> SourceError {
        self.failed_at(self.asked(), error, subject)
    }

    /// The same with the server that was asked, which may be the token service.
    pub(super) fn failed_at(&self, asked: Asked<'_>, e: reqwest::Error, subject: &str) -> SourceError {
        failure::of_transport(e, asked, subject, self.transport.read_timeout)
    }

    /// The failure of a body.
    pub(super) fn unreadable(&self, error: BodyError, subject: &str) -> SourceError {
        match error {
            BodyError::Transport(error) if error.is_timeout() => self.stalled(subject),
            BodyError::Transport(error) => self.broken(error, subject),
            BodyError::Coding(detail) => self.protocol(subject, detail, None),
        }
    }

    /// An answer that is not one of a registry, from the registry or from where it redirected to.
    pub(super) fn protocol(&self, subject: &str, detail: String, answered: Option<&Url>) -> SourceError {
        SourceError::Protocol { subject: subject.to_owned(), host: self.asked().named(answered), detail }
    }

    fn asked(&self) -> Asked<'_> {
        Asked { host: &self.host, url: &self.base }
    }

    /// Caps on images.
    pub(super) fn limits(&self) -> &ImageLimits {
        self.transport.limits()
    }

    /// The minimum transfer rate of a connection.
    pub(super) fn pace(&self) -> Pace {
        self.transport.pace
    }

    /// The time limit of a small document, over all attempts.
    pub(super) fn document_timeout(&self) -> Duration {
        self.transport.document_timeout
    }

    pub(super) fn documents(&self) -> &DocumentTurns {
        &self.transport.documents
    }

    /// Which hosts refused ranges.
    pub(super) fn ranges(&self) -> &RangeHosts {
        &self.transport.ranges
    }

    /// Whether a URL is not the registry's own: a storage back end's, to which it has redirected.
    pub(super) fn is_elsewhere(&self, url: &Url) -> bool {
        url.origin() != self.base.origin()
    }

    /// Whose share of what a node lends the client uses.
    pub(super) fn tenant(&self) -> Tenant {
        let id = self.credential.as_ref().map_or_else(CredentialId::anonymous, Credential::id);
        (self.host.clone(), id)
    }

    /// Runs `work` within the time limit of a small document.
    pub(super) async fn in_time<T>(
        &self,
        subject: &str,
        work: impl Future<Output = Result<T, SourceError>>,
    ) -> Result<T, SourceError> {
        let limit = self.transport.document_timeout;
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(self.overdue(subject, limit, false)))
    }

    pub(super) fn overdue(&self, subject: &str, after: Duration, crowded: bool) -> SourceError {
        SourceError::Overdue { subject: subject.to_owned(), host: self.host.clone(), after, crowded }
    }

    pub(super) fn stalled(&self, subject: &str) -> SourceError {
        SourceError::Stalled {
            subject: subject.to_owned(),
            host: self.host.clone(),
            after: self.transport.read_timeout,
        }
    }

    /// The challenge to answer before the request is repeated, if that can help. A 401 brings its
    /// own. Some registries answer an expired token with a 403, for which the last challenge serves.
    fn answerable(&self, response: &Response, held: &Held) -> Option<Challenge> {
        match response.status() {
            StatusCode::UNAUTHORIZED => {
                let headers = response.headers().get_all(header::WWW_AUTHENTICATE);
                challenge::choose(headers.iter().filter_map(|value| value.to_str().ok()))
                    // A 401 without a usable challenge may still mean an expired token.
                    .or_else(|| held.challenge.clone())
            }
            StatusCode::FORBIDDEN => match held.authorization {
                Authorization::Bearer(_) => held.challenge.clone(),
                // Without a token there is nothing to renew: the registry refuses this user.
                _ => None,
            },
            _ => None,
        }
    }

    /// Answers a challenge and returns the new authorization. Returns that of another task if one has
    /// answered since `seen` was read.
    async fn renew(
        &self,
        request: &Request,
        seen: &Held,
        challenge: Option<Challenge>,
    ) -> Result<Held, SourceError> {
        let repository = &request.repository;
        let current = self.authorizations.current(repository);
        // One answer serves all requests that were refused together.
        if current.serial != seen.serial && !current.expired() {
            return Ok(current);
        }
        let denied = || SourceError::Denied {
            subject: request.subject.clone(),
            host: self.host.clone(),
            credentials_sent: seen.authorization == Authorization::Basic,
            detail: String::new(),
        };
        let secret = self.credential.as_ref().map(Credential::secret);
        let challenge = challenge.ok_or_else(denied)?;
        let (authorization, lifetime) = match (&challenge, secret) {
            (Challenge::Basic, Some(Secret::Password { .. }))
                if seen.authorization != Authorization::Basic =>
            {
                (Authorization::Basic, None)
            }
            // The password was refused already, or there is none.
            (Challenge::Basic, _) => return Err(denied()),
            // The token is given, so there is nothing to exchange and its lifetime is unknown.
            (Challenge::Bearer { .. }, Some(Secret::RegistryToken(token))) => {
                (Authorization::Bearer(token.as_str().into()), None)
            }
            (Challenge::Bearer { realm, service, scope }, _) => {
                let scopes = Scopes::of(scope.as_deref(), repository, request.actions());
                let fetched = self.fetch_token(realm, service.as_deref(), &scopes, &request.subject).await;
                let fetched = self.transport.metrics.count(RequestKind::Token, fetched)?;
                (Authorization::Bearer(fetched.value.into()), Some(fetched.lifetime))
            }
        };
        self.authorizations.keep(repository, authorization, challenge, lifetime);
        Ok(self.authorizations.current(repository))
    }

    fn build(&self, request: &Request, with: &Authorization) -> Result<RequestBuilder, SourceError> {
        let url = match request.upload.as_ref().and_then(|upload| upload.at.clone()) {
            // Another host, a storage's, takes what its URL allows, and is shown nothing that is meant for this one.
            Some(url) if !self.is_own(&url) => return Ok(self.bare(url, request)),
            Some(url) => url,
            None => {
                let url = self.base.join(&format!("{}/{}", request.repository, request.path));
                self.with_namespace(url.map_err(|e| SourceError::Settings {
                    detail: format!("{} makes no URL: {e}", request.subject),
                })?)
            }
        };
        Ok(self.authorized(self.bare(url, request).headers(self.own_headers(with)), with))
    }

    /// The headers for this host alone. One for the authorization gives way to an answer to its challenge.
    pub(super) fn own_headers(&self, with: &Authorization) -> HeaderMap {
        let mut headers = self.headers.clone();
        if *with != Authorization::None {
            headers.remove(header::AUTHORIZATION);
        }
        headers
    }

    /// The URL with the registry that this host is asked for, if it serves several.
    fn with_namespace(&self, mut url: Url) -> Url {
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        url
    }

    /// The request for a URL, with nothing that is meant for this host alone.
    pub(super) fn bare(&self, url: Url, request: &Request) -> RequestBuilder {
        let mut builder = self.http().request(request.method.clone(), url);
        if let Some(accept) = &request.accept {
            builder = builder.header(header::ACCEPT, accept);
        }
        // Without this any coding would be acceptable (RFC 9110, section 12.5.3), and a coded blob has no ranges.
        builder = builder.header(header::ACCEPT_ENCODING, "identity");
        if let Some(range) = request.range() {
            builder = builder.header(header::RANGE, range);
        }
        if let Some(range) = request.upload.as_ref().and_then(|upload| upload.range.as_ref()) {
            builder = builder.header(header::CONTENT_RANGE, range);
        }
        if let Some(body) = &request.body {
            builder = builder.header(header::CONTENT_TYPE, &body.media_type).body(body.bytes.clone());
        }
        builder
    }

    /// Whether a URL leads to this registry itself.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        let place = |url: &Url| {
            (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default())
        };
        place(url) == place(&self.base)
    }

    /// The authorization for a repository as it is now.
    pub(super) fn held(&self, repository: &str) -> Authorization {
        self.authorizations.current(repository).authorization
    }

    pub(super) fn authorized(&self, builder: RequestBuilder, with: &Authorization) -> RequestBuilder {
        match (with, self.credential.as_ref().map(Credential::secret)) {
            (Authorization::Bearer(token), _) => builder.bearer_auth(token),
            (Authorization::Basic, Some(Secret::Password { user, password })) => {
                builder.basic_auth(user, Some(password))
            }
            _ => builder,
        }
    }
}

/// Whether a refusal may be one for lack of a token that the registry does not ask for.
fn may_hide(status: StatusCode, held: &Held) -> bool {
    held.authorization == Authorization::None
        && matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND)
}
