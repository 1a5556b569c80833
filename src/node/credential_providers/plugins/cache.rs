//! What plugins have answered, for as long as they say.
//!
//! The key has who asked wherever a token was handed over: one ServiceAccount's credentials must never serve
//! another's pod.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::exec::{Answer, Scope};
use crate::oci::Credentials;
use crate::oci::digest::Digest;

/// Answers kept at a time; those that end first go.
const MAX: usize = 1000;

/// Whose answer it is; `None` where the plugin was told nothing of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    /// Anybody's.
    Node,
    /// This ServiceAccount's, with the annotations that were passed on.
    Account { namespace: String, name: String, uid: String, annotations: BTreeMap<String, String> },
    /// Whoever shows this very token, by its digest.
    Token(Digest),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    Image(String),
    Registry(String),
    Global,
}

/// The answers of one plugin.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<HashMap<(Subject, Owner), (Credentials, Instant)>>);

impl Cache {
    /// An answer that is still good for `image` (without tag) at `registry`: as kubelet, the narrowest first.
    pub(super) fn get(
        &self,
        image: &str,
        registry: &str,
        owner: &Owner,
        now: Instant,
    ) -> Option<Credentials> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        [Subject::Image(image.to_owned()), Subject::Registry(registry.to_owned()), Subject::Global]
            .into_iter()
            .find_map(|subject| kept.get(&(subject, owner.clone())).filter(|(_, until)| *until > now))
            .map(|(credentials, _)| credentials.clone())
    }

    /// Keeps an answer, for `usual` where it does not say how long.
    pub(super) fn keep(
        &self,
        image: &str,
        registry: &str,
        owner: Owner,
        answer: &Answer,
        usual: Duration,
        now: Instant,
    ) {
        let Some(until) = now.checked_add(answer.keep.unwrap_or(usual)).filter(|until| *until > now) else {
            return;
        };
        let subject = match answer.scope {
            Scope::Image => Subject::Image(image.to_owned()),
            Scope::Registry => Subject::Registry(registry.to_owned()),
            Scope::Global => Subject::Global,
        };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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

    fn answer(scope: Scope, keep: Option<u64>) -> Answer {
        Answer { credentials: Credentials::none(), scope, keep: keep.map(Duration::from_secs) }
    }

    fn account(uid: &str) -> Owner {
        let (namespace, name) = ("ns".to_owned(), "default".to_owned());
        Owner::Account { namespace, name, uid: uid.to_owned(), annotations: BTreeMap::new() }
    }

    #[test]
    fn as_wide_as_the_plugin_says_and_no_further_than_its_owner() {
        let now = Instant::now();
        let hits = |scope| {
            let cache = Cache::default();
            cache.keep("r.io/a", "r.io", account("1"), &answer(scope, None), Duration::from_secs(9), now);
            let hit = |image, registry, owner| cache.get(image, registry, &owner, now).is_some();
            assert!(!hit("r.io/a", "r.io", account("2")), "another account of the same name");
            assert!(!hit("r.io/a", "r.io", Owner::Node));
            [
                hit("r.io/a", "r.io", account("1")),
                hit("r.io/b", "r.io", account("1")),
                hit("s.io/a", "s.io", account("1")),
            ]
        };
        assert_eq!(hits(Scope::Image), [true, false, false]);
        assert_eq!(hits(Scope::Registry), [true, true, false]);
        assert_eq!(hits(Scope::Global), [true, true, true]);
    }

    #[test]
    fn as_long_as_the_plugin_says() {
        let (now, cache) = (Instant::now(), Cache::default());
        let (usual, later) = (Duration::from_secs(60), now + Duration::from_secs(10));
        let hit = |at| cache.get("i", "r", &Owner::Node, at).is_some();
        cache.keep("i", "r", Owner::Node, &answer(Scope::Image, Some(0)), usual, now);
        assert!(!hit(now), "zero is not kept");
        cache.keep("i", "r", Owner::Node, &answer(Scope::Image, Some(5)), usual, now);
        assert!(hit(now) && !hit(later));
        cache.keep("i", "r", Owner::Node, &answer(Scope::Image, None), usual, now);
        assert!(hit(later));
    }

    #[test]
    fn the_number_of_answers_is_bounded() {
        let (now, cache) = (Instant::now(), Cache::default());
        for i in 0..MAX + 5 {
            let answer = answer(Scope::Image, Some(10 + i as u64));
            cache.keep(&i.to_string(), "r", Owner::Node, &answer, Duration::ZERO, now);
        }
        assert_eq!(cache.0.lock().unwrap().len(), MAX);
        assert!(cache.get("0", "r", &Owner::Node, now).is_none());
    }
}
