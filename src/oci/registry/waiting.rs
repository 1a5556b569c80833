//! Waits before requests: after transient failures, and while the registry limits the rate.
//!
//! A registry limits users, and a client is one user of one registry. The client therefore remembers how long it was
//! told to wait (HTTP 429), and sends no request before, because most registries count those as well. Requests in
//! progress wait. If the wait is longer than the policy allows, they fail and report the time left. Callers can see the
//! wait ([`Source::waits`](crate::oci::Source::waits)).

use std::future::Future;

use super::client::RegistryClient;
use super::documents::TimeLeft;
use super::request::Request;
use super::retry::jitter;
use crate::oci::SourceError;

impl RegistryClient {
    /// Fetches a document: runs `attempt`, each time in its turn, until it succeeds, fails permanently, or the policy's
    /// attempts or the time for all of them are used up.
    pub(super) async fn retrying<T, F>(
        &self,
        request: &Request,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        let (mut failed, mut time) = (0, TimeLeft::of(self.document_timeout()));
        loop {
            self.wait_for_hold(&request.subject).await?;
            let error = match self.in_turn(&request.subject, &mut time, attempt()).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            if time.is_over() {
                return Err(error);
            }
            failed += 1;
            self.pause_or_fail(failed, error).await?;
            self.count_repeat(0);
        }
    }

    /// Runs one attempt to fetch a document, when it is this client's turn.
    ///
    /// # Errors
    /// Those of `attempt`, and [`SourceError::Overdue`].
    pub(super) async fn in_turn<T>(
        &self,
        subject: &str,
        time: &mut TimeLeft,
        attempt: impl Future<Output = Result<T, SourceError>>,
    ) -> Result<T, SourceError> {
        let overdue = |after, crowded| self.overdue(subject, after, crowded);
        self.documents().run(self.tenant(), time, attempt, overdue).await
    }

    /// Waits until the registry accepts requests. Fails with the time left if that is too long.
    pub(super) async fn wait_for_hold(&self, subject: &str) -> Result<(), SourceError> {
        let Some(wait) = self.hold.current() else { return Ok(()) };
        let left = wait.left();
        if left > self.retry_policy().longest_retry_after {
            let detail = "as it answered an earlier request".to_owned();
            let (subject, host) = (subject.to_owned(), wait.host);
            return Err(SourceError::RateLimited { subject, host, retry_after: Some(left), detail });
        }
        tokio::time::sleep(left).await;
        Ok(())
    }

    /// Waits before the next attempt, or returns the error if there is none.
    pub(super) async fn pause_or_fail(&self, failed: u32, error: SourceError) -> Result<(), SourceError> {
        let pause = self.retry_policy().pause(failed, &error, jitter());
        // Other requests of this client wait as well, even if this one gives up.
        if let SourceError::RateLimited { host, retry_after, .. } = &error
            && let Some(wait) = pause.or(*retry_after)
        {
            self.hold.extend(host, wait);
        }
        let Some(pause) = pause else { return Err(error) };
        tracing::debug!(registry = self.host(), %error, failed, ?pause, "trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
