//! The cache of plugins' answers, for as long as the answers say.
//!
//! If the plugin got a token, the key includes the token's owner: one ServiceAccount's credentials must never serve
//! another's pod.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::exec::{CacheScope, ExecResponse};
use crate::oci::Credentials;
use crate::oci::digest::Digest;

/// The number of cached answers. Those that expire first are evicted.
const MAX: usize = 1000;

/// The owner of an answer: who may use it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum CacheOwner {
    /// Every pod of the node: the plugin got no token.
    Node,
    /// A ServiceAccount, with the annotations that the plugin got.
    Account { namespace: String, name: String, uid: String, annotations: BTreeMap<String, String> },
    /// A token, by its digest.
    Token(Digest),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum CacheSubject {
    Image(String),
    Registry(String),
    Global,
}

/// The answers of one plugin.
#[derive(Debug, Default)]
pub(super) struct AnswerCache(Mutex<HashMap<(CacheSubject, CacheOwner), (Credentials, Instant)>>);

impl AnswerCache {
    /// A valid answer for `image` (without tag) at `registry`: as in kubelet, the narrowest scope first.
    pub(super) fn get(
        &self,
        image: &str,
        registry: &str,
        owner: &CacheOwner,
        now: Instant,
    ) -> Option<Credentials> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        [
            CacheSubject::Image(image.to_owned()),
            CacheSubject::Registry(registry.to_owned()),
            CacheSubject::Global,
        ]
        .into_iter()
        .find_map(|subject| kept.get(&(subject, owner.clone())).filter(|(_, until)| *until > now))
        .map(|(credentials, _)| credentials.clone())
    }

    /// Caches an answer, for `usual` if it does not say how long.
    pub(super) fn keep(
        &self,
        image: &str,
        registry: &str,
        owner: CacheOwner,
        answer: &ExecResponse,
        usual: Duration,
        now: Instant,
    ) {
        let Some(until) = now.checked_add(answer.keep.unwrap_or(usual)).filter(|until| *until > now) else {
            // Zero: the plugin forbids caching.
            return;
        };
        let subject = match answer.scope {
            CacheScope::Image => CacheSubject::Image(image.to_owned()),
            CacheScope::Registry => CacheSubject::Registry(registry.to_owned()),
            CacheScope::Global => CacheSubject::Global,
        };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Expired answers first, so that a valid one is evicted only if all are valid.
        kept.retain(|_, (_, until)| *until > now);
        if kept.len() >= MAX {
            let soonest = kept.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| key.clone());
            soonest.and_then(|key| kept.remove(&key));
        }
        kept.insert((subject, owner), (answer.credentials.clone(), until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(scope: CacheScope, keep: Option<u64>) -> ExecResponse {
        ExecResponse { credentials: Credentials::none(), scope, keep: keep.map(Duration::from_secs) }
    }

    fn account(uid: &str) -> CacheOwner {
        let (namespace, name) = ("ns".to_owned(), "default".to_owned());
        CacheOwner::Account { namespace, name, uid: uid.to_owned(), annotations: BTreeMap::new() }
    }

    #[test]
    fn as_wide_as_the_plugin_says_and_no_further_than_its_owner() {
        let now = Instant::now();
        let hits = |scope| {
            let cache = AnswerCache::default();
            cache.keep("r.io/a", "r.io", account("1"), &answer(scope, None), Duration::from_secs(9), now);
            let hit = |image, registry, owner| cache.get(image, registry, &owner, now).is_some();
            assert!(!hit("r.io/a", "r.io", account("2")), "another account of the same name");
            assert!(!hit("r.io/a", "r.io", CacheOwner::Node));
            [
                hit("r.io/a", "r.io", account("1")),
                hit("r.io/b", "r.io", account("1")),
                hit("s.io/a", "s.io", account("1")),
            ]
        };
        assert_eq!(hits(CacheScope::Image), [true, false, false]);
        assert_eq!(hits(CacheScope::Registry), [true, true, false]);
        assert_eq!(hits(CacheScope::Global), [true, true, true]);
    }

    #[test]
    fn as_long_as_the_plugin_says() {
        let (now, cache) = (Instant::now(), AnswerCache::default());
        let (usual, later) = (Duration::from_secs(60), now + Duration::from_secs(10));
        let hit = |at| cache.get("i", "r", &CacheOwner::Node, at).is_some();
        cache.keep("i", "r", CacheOwner::Node, &answer(CacheScope::Image, Some(0)), usual, now);
        assert!(!hit(now), "zero is not kept");
        cache.keep("i", "r", CacheOwner::Node, &answer(CacheScope::Image, Some(5)), usual, now);
        assert!(hit(now) && !hit(later));
        cache.keep("i", "r", CacheOwner::Node, &answer(CacheScope::Image, None), usual, now);
        assert!(hit(later));
    }

    #[test]
    fn the_number_of_answers_is_bounded() {
        let (now, cache) = (Instant::now(), AnswerCache::default());
        for i in 0..MAX + 5 {
            let answer = answer(CacheScope::Image, Some(10 + i as u64));
            cache.keep(&i.to_string(), "r", CacheOwner::Node, &answer, Duration::ZERO, now);
        }
        assert_eq!(cache.0.lock().unwrap().len(), MAX);
        assert!(cache.get("0", "r", &CacheOwner::Node, now).is_none());
    }
}
