//! Documents (manifests, lists of referrers, configs, claims, with the tokens that they need): in turn, and within a
//! time for all attempts together ([ADR 0020](../../../docs/adr/0020-turns.md)).
//!
//! A registry that hangs, or sends a byte at a time, would otherwise hold a request for minutes, and as many requests as
//! there are pods. While others wait, it holds one for some seconds.

use std::future::Future;
use std::time::{Duration, Instant};

use crate::fair::{Gate, Pass};
use crate::oci::SourceError;
use crate::oci::credentials::CredentialId;

/// How many documents are fetched at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentRules {
    /// By all clients together.
    pub at_once: usize,
    /// By one registry and credential.
    pub share: usize,
    /// How long one may take while others wait.
    pub patience: Duration,
}

impl Default for DocumentRules {
    /// A few MiB each at the most; a registry answers in a fraction of a second.
    fn default() -> Self {
        Self { at_once: 64, share: 16, patience: Duration::from_secs(5) }
    }
}

/// Registry and credential.
pub(super) type Tenant = (String, CredentialId);

/// The turns of all clients.
#[derive(Debug)]
pub(super) struct DocumentTurns {
    gate: Gate<Tenant>,
    patience: Duration,
}

impl DocumentTurns {
    pub(super) fn new(rules: DocumentRules) -> Self {
        Self { gate: Gate::new(rules.at_once as u64, rules.share as u64), patience: rules.patience }
    }
}

/// The time that is left for a document, over all attempts.
#[derive(Debug)]
pub(super) struct TimeLeft {
    whole: Duration,
    left: Duration,
}

impl TimeLeft {
    pub(super) fn of(whole: Duration) -> Self {
        Self { whole, left: whole }
    }

    pub(super) fn is_over(&self) -> bool {
        self.left.is_zero()
    }
}

impl DocumentTurns {
    /// Runs one attempt to fetch a document when it is the tenant's turn. `overdue` is the error of one that took so
    /// long, and whether that was too long only because others waited.
    ///
    /// # Errors
    /// Those of `attempt`, and `overdue`.
    pub(super) async fn run<T>(
        &self,
        tenant: Tenant,
        time: &mut TimeLeft,
        attempt: impl Future<Output = Result<T, SourceError>>,
        overdue: impl Fn(Duration, bool) -> SourceError,
    ) -> Result<T, SourceError> {
        let pass = self.gate.enter(tenant, 1).await;
        // Neither the wait for the turn nor one that the registry asks for counts.
        let began = Instant::now();
        let outcome = tokio::select! {
            biased;
            done = tokio::time::timeout(time.left, attempt) => {
                done.unwrap_or_else(|_| Err(overdue(time.whole, false)))
            }
            () = must_give_way(&pass, self.patience) => Err(overdue(began.elapsed(), true)),
        };
        time.left = time.left.saturating_sub(began.elapsed());
        outcome
    }
}

/// Waits until another registry or credential needs the turn of one that has had it for long.
async fn must_give_way(pass: &Pass<Tenant>, patience: Duration) {
    tokio::time::sleep(patience).await;
    // A slow registry gets no faster by giving up for itself.
    while !pass.is_wanted_by_others() {
        tokio::time::sleep(patience / 5).await;
    }
}
