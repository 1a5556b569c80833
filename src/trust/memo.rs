//! A cache of judgements: verifying a signature takes a fraction of a millisecond, and a node mounts the same image
//! many times.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::signature::Claim;
use super::subject::{Claims, Subject};
use crate::oci::digest::{Digest, Hasher};

/// The most judgements in the cache, about a kilobyte each. A full cache is cleared.
const ENTRIES_MAX: usize = 1024;
/// How long a judgement is valid. Only the validity of trusted roots depends on the time of day.
const TTL: Duration = Duration::from_secs(600);

/// Values by the digest of everything that they depend on.
#[derive(Debug)]
pub(super) struct Memo<T> {
    kept: Mutex<HashMap<Digest, (Instant, T)>>,
}

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self { kept: Mutex::default() }
    }
}

impl<T: Clone> Memo<T> {
    /// The cached value for `key`, or a new one from `make`.
    pub(super) fn get_or(&self, key: Digest, make: impl FnOnce() -> T) -> T {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, value)) = lock().get(&key)
            && when.elapsed() < TTL
        {
            return value.clone();
        }
        // Outside the lock: `make` is slow, and a second evaluation does no harm.
        let value = make();
        let mut kept = lock();
        // Clearing is simpler than evicting, and costs one verification for each image in use.
        if kept.len() >= ENTRIES_MAX {
            kept.clear();
        }
        kept.insert(key, (Instant::now(), value.clone()));
        value
    }
}

/// Digest over everything that a judgement depends on: what identifies the rule, the subject, and every byte of the
/// claims.
pub(super) fn key(rule: &[&[u8]], subject: &Subject, claims: &Claims) -> Digest {
    let mut hasher = Hasher::default();
    // Lengths separate the parts, so that different inputs never give the same bytes.
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    rule.iter().for_each(|bytes| part(bytes));
    part(subject.reference.to_string().as_bytes());
    part(&[u8::from(subject.sealed)]);
    part(subject.target.digest.as_bytes());
    // The number of digests separates them from the claims.
    part(&(subject.digests.len() as u64).to_le_bytes());
    subject.digests.iter().for_each(|digest| part(digest.as_bytes()));
    // The message says how many were found.
    part(&(claims.found() as u64).to_le_bytes());
    part(&[u8::from(claims.is_cut)]);
    for claim in &claims.claims {
        match claim {
            Claim::Simple { payload, signature, certificate, chain, bundle, timestamp } => {
                part(b"simple");
                part(payload.as_bytes());
                part(signature.as_bytes());
                // A missing annotation differs from an empty one.
                for optional in [certificate, chain, bundle, timestamp] {
                    part(&[u8::from(optional.is_some())]);
                    part(optional.as_deref().unwrap_or_default().as_bytes());
                }
            }
            Claim::Bundle { json } => {
                part(b"bundle");
                part(json.as_bytes());
            }
        }
    }
    hasher.finish()
}
