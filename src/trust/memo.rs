//! Judgements that were made before: a signature costs a fraction of a millisecond to verify, and a node mounts
//! the same image many times.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::signature::Claim;
use super::{Claims, Subject};
use crate::oci::digest::{Digest, Hasher};

/// Judgements kept at a time; all go when there are more. One is about a kilobyte.
const KEPT_MAX: usize = 1024;
/// How long a judgement is good for. Nothing in it depends on the time of day but the validity of trusted roots.
const FRESH: Duration = Duration::from_secs(600);

/// Values by what they follow from.
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
    /// What `make` has made for `key` lately, or makes now.
    pub(super) fn get_or(&self, key: Digest, make: impl FnOnce() -> T) -> T {
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, value)) = lock().get(&key)
            && when.elapsed() < FRESH
        {
            return value.clone();
        }
        // Not under the lock: the work is long, and doing it twice does no harm.
        let value = make();
        let mut kept = lock();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key, (Instant::now(), value.clone()));
        value
    }
}

/// Digest over everything that a judgement follows from: what `rule` stands for, the subject, and every byte of
/// the claims.
pub(super) fn key(rule: &[&[u8]], subject: &Subject, claims: &Claims) -> Digest {
    let mut hasher = Hasher::default();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    rule.iter().for_each(|bytes| part(bytes));
    part(subject.reference.to_string().as_bytes());
    part(&[u8::from(subject.sealed)]);
    part(subject.target.digest.as_bytes());
    part(&(subject.digests.len() as u64).to_le_bytes());
    subject.digests.iter().for_each(|digest| part(digest.as_bytes()));
    for claim in &claims.claims {
        match claim {
            Claim::Simple { payload, signature, certificate, chain, bundle, timestamp } => {
                part(b"simple");
                part(payload.as_bytes());
                part(signature.as_bytes());
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
