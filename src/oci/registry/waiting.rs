//! Waiting before a registry is asked again: after failures that are likely to pass, and because it said so.
//!
//! What a registry limits is its user, and a client is one credential at one registry. So the client remembers for how
//! long it was told to wait (HTTP 429), and none of its requests goes out before: those that are under way wait, and
//! where that takes longer than a caller would, they fail with what is left of it. Asking earlier is counted as well by
//! most registries. Who waits for the bytes can see it ([`Source::waits`](crate::oci::Source::waits)).

use std::future::Future;

use super::client::{RegistryClient, Request};
use super::retry::dice;
use crate::oci::SourceError;

impl RegistryClient {
    /// Runs `attempt` until it succeeds, fails for good, or the policy's attempts are used up.
    pub(super) async fn retrying<T, F>(
        &self,
        request: &Request,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        let mut failed = 0;
        loop {
            self.turn(&request.subject).await?;
            let error = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            failed += 1;
            self.pause_or_fail(failed, error).await?;
        }
    }

    /// Waits until the registry may be asked, or says how long that would take.
    pub(super) async fn turn(&self, subject: &str) -> Result<(), SourceError> {
        let Some(wait) = self.hold.current() else { return Ok(()) };
        let left = wait.left();
        if left > self.retry_policy().longest_retry_after {
            let detail = "it said so to an earlier request".to_owned();
            let (subject, host) = (subject.to_owned(), wait.host);
            return Err(SourceError::RateLimited { subject, host, retry_after: Some(left), detail });
        }
        tokio::time::sleep(left).await;
        Ok(())
    }

    /// Waits before the next attempt, or gives the error back when there is to be none.
    pub(super) async fn pause_or_fail(&self, failed: u32, error: SourceError) -> Result<(), SourceError> {
        let pause = self.retry_policy().pause(failed, &error, dice());
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
