//! The authorizations that a client holds, per repository.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::challenge::Challenge;

/// The content of the `Authorization` header.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Authorization {
    /// No header: for the first request, and for registries that demand none.
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

/// The authorization for one repository.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) authorization: Authorization,
    /// The challenge that it answers, kept to answer it again when the token has expired.
    pub(super) challenge: Option<Challenge>,
    /// Changes with each renewal, so that a task sees that of another; 0 if nothing is held.
    pub(super) serial: u64,
    expires: Option<Instant>,
}

impl Held {
    /// Whether the token is known to have expired.
    pub(super) fn expired(&self) -> bool {
        self.expires.is_some_and(|expires| Instant::now() >= expires)
    }
}

/// The number of repositories whose tokens are kept. Beyond it all are dropped and fetched again.
const HELD_MAX: usize = 512;

/// How long it is remembered how the root of the API is answered.
const ROOT_KNOWN: Duration = Duration::from_secs(300);

/// The authorizations of one client.
#[derive(Debug, Default)]
pub(super) struct Authorizations {
    held: Mutex<(HashMap<String, Held>, u64)>,
    /// When the root of the API was asked, and its challenge, if it has one.
    root: Mutex<Option<(Instant, Option<Challenge>)>>,
}

impl Authorizations {
    /// The current authorization for a repository.
    pub(super) fn current(&self, repository: &str) -> Held {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.0.get(repository).cloned().unwrap_or(Held {
            authorization: Authorization::None,
            challenge: None,
            serial: 0,
            expires: None,
        })
    }

    /// The challenge of the API's root, or that it has none; the outer `None` if that is not known.
    pub(super) fn of_root(&self) -> Option<Option<Challenge>> {
        let root = self.root.lock().unwrap_or_else(PoisonError::into_inner);
        root.as_ref()
            .filter(|(asked, _)| asked.elapsed() < ROOT_KNOWN)
            .map(|(_, challenge)| challenge.clone())
    }

    /// Remembers it.
    pub(super) fn keep_root(&self, challenge: Option<Challenge>) {
        *self.root.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), challenge));
    }

    /// Replaces the authorization for a repository.
    pub(super) fn keep(
        &self,
        repository: &str,
        authorization: Authorization,
        challenge: Challenge,
        lifetime: Option<Duration>,
    ) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // Finding the oldest is not worth it: each repository costs one more token.
        if held.0.len() >= HELD_MAX {
            held.0.clear();
        }
        held.1 += 1;
        let serial = held.1;
        // A token is renewed a little early, so that it does not expire in transit.
        let expires = lifetime.map(|lifetime| Instant::now() + lifetime.mul_f64(0.9));
        let fresh = Held { authorization, challenge: Some(challenge), serial, expires };
        held.0.insert(repository.to_owned(), fresh);
    }
}
