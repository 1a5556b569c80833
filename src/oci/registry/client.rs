//! The client of one registry with one credential: requests and their authorization.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, header};

use super::authorization::{Authorization, Authorizations, Held};
use super::challenge::{self, Challenge};
use super::documents::{DocumentTurns, Tenant};
use super::hold::Hold;
use super::metrics::{Repeat, RequestKind};
use super::pace::Pace;
use super::request::Request;
use super::retry::RetryPolicy;
use super::{Transport, failure};
use crate::oci::SourceError;
use crate::oci::credentials::{Credential, CredentialId, Secret};
use crate::oci::limits::ImageLimits;
use crate::oci::reference::RegistryReference;

/// A client of one registry with one credential. Its tokens never leave it.
pub(crate) struct RegistryClient {
    transport: Arc<Transport>,
    /// The registry as users name it.
    host: String,
    base: Url,
    credential: Option<Credential>,
    authorizations: Authorizations,
    /// The time before which no request goes out.
    pub(super) hold: Hold,
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
        let host = reference.host().to_owned();
        let scheme = transport.scheme(&host);
        let base = Url::parse(&format!("{scheme}://{}/v2/", reference.api_host()));
        let base = base.map_err(|e| SourceError::Settings { detail: format!("{host} makes no URL: {e}") })?;
        let (authorizations, hold) = (Authorizations::default(), Hold::default());
        Ok(Self { transport, host, base, credential, authorizations, hold })
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
            let sent = self.authorized(self.build(request)?, &held.authorization).send().await;
            let response = sent.map_err(|e| self.broken(e, &request.subject))?;
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
                    // Whether a credential was used decides which remedy the message gives.
                    let sent = held.authorization != Authorization::None && self.credential.is_some();
                    let host = &self.host;
                    let failure = failure::of_response(response, host, &request.subject, sent).await;
                    return Err(if request.quiet { failure.without_detail() } else { failure });
                }
            }
        }
    }

    /// Counts a request that is sent again, from `offset` of a blob or whole.
    pub(super) fn count_repeat(&self, offset: u64) {
        let repeat = if offset > 0 { Repeat::Resumed } else { Repeat::Retried };
        self.transport.metrics.count_repeat(&self.host, repeat);
    }

    /// The failure of a transport error while a response is read.
    pub(super) fn broken(&self, error: reqwest::Error, subject: &str) -> SourceError {
        self.failed_at(&self.host, error, subject)
    }

    /// The same with the host that failed, which may be the token service.
    pub(super) fn failed_at(&self, host: &str, e: reqwest::Error, subject: &str) -> SourceError {
        failure::of_transport(e, host, subject, self.transport.read_timeout)
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
            (Challenge::Bearer { realm, service }, _) => {
                let service = service.as_deref();
                let fetched =
                    self.fetch_token(realm, service, repository, request.actions(), &request.subject).await;
                let fetched = self.transport.metrics.count(RequestKind::Token, fetched)?;
                (Authorization::Bearer(fetched.value.into()), Some(fetched.lifetime))
            }
        };
        self.authorizations.keep(repository, authorization, challenge, lifetime);
        Ok(self.authorizations.current(repository))
    }

    fn build(&self, request: &Request) -> Result<RequestBuilder, SourceError> {
        let url = self.base.join(&format!("{}/{}", request.repository, request.path));
        let url = url.map_err(|e| SourceError::Settings {
            detail: format!("{} makes no URL: {e}", request.subject),
        })?;
        let mut builder = self.http().request(request.method.clone(), url);
        if let Some(accept) = &request.accept {
            builder = builder.header(header::ACCEPT, accept);
        }
        if request.offset > 0 {
            builder = builder.header(header::RANGE, format!("bytes={}-", request.offset));
        }
        if let Some(body) = &request.body {
            builder = builder.header(header::CONTENT_TYPE, &body.media_type).body(body.bytes.clone());
        }
        Ok(builder)
    }

    fn authorized(&self, builder: RequestBuilder, with: &Authorization) -> RequestBuilder {
        match (with, self.credential.as_ref().map(Credential::secret)) {
            (Authorization::Bearer(token), _) => builder.bearer_auth(token),
            (Authorization::Basic, Some(Secret::Password { user, password })) => {
                builder.basic_auth(user, Some(password))
            }
            _ => builder,
        }
    }
}
