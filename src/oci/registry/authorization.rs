//! What a client holds to show to its registry, per repository.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::challenge::Challenge;

/// What to put in the `Authorization` header.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Authorization {
    /// Nothing: the first request of all, and registries that ask for nothing.
    None,
    /// The client's user and password.
    Basic,
    /// A token.
    Bearer(Arc<str>),
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic => "Basic",
            Self::Bearer(_) => "Bearer([redacted])",
        })
    }
}

/// What is held for one repository.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) authorization: Authorization,
    /// The challenge that it answered, to answer it again when the token has expired.
    pub(super) challenge: Option<Challenge>,
    /// Tells whether another task has renewed it meanwhile; 0 is nothing at all.
    pub(super) serial: u64,
    expires: Option<Instant>,
}

impl Held {
    /// Whether the token is known to have expired.
    pub(super) fn expired(&self) -> bool {
        self.expires.is_some_and(|expires| Instant::now() >= expires)
    }
}

/// Repositories whose tokens are kept; beyond it all are dropped and asked for again.
const HELD_MAX: usize = 512;

/// The authorizations of one client.
#[derive(Debug, Default)]
pub(super) struct Authorizations {
    held: Mutex<(HashMap<String, Held>, u64)>,
}

impl Authorizations {
    /// What is held for a repository now.
    pub(super) fn current(&self, repository: &str) -> Held {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.0.get(repository).cloned().unwrap_or(Held {
            authorization: Authorization::None,
            challenge: None,
            serial: 0,
            expires: None,
        })
    }

    /// Replaces what is held for a repository.
    pub(super) fn keep(
        &self,
        repository: &str,
        authorization: Authorization,
        challenge: Challenge,
        lifetime: Option<Duration>,
    ) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0.len() >= HELD_MAX {
            held.0.clear();
        }
        held.1 += 1;
        let serial = held.1;
        // A token is renewed a little early, so that it does not expire on its way.
        let expires = lifetime.map(|lifetime| Instant::now() + lifetime.mul_f64(0.9));
        let fresh = Held { authorization, challenge: Some(challenge), serial, expires };
        held.0.insert(repository.to_owned(), fresh);
    }
}
