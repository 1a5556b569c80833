//! Single flight: one task per key, however many wait for it, and whoever stops waiting.
//!
//! The task belongs to the map, not to a caller: a dropped RPC future leaves it running, and the
//! retry finds it. A flight that ended is forgotten at once, so a failure is never cached.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

/// What a flight ends with, for everybody who waits; dropping it changes nothing.
pub type Outcome<T> = Shared<BoxFuture<'static, Result<T, Lost>>>;

type UnderWay<K, I, T> = Arc<Mutex<HashMap<K, (I, Outcome<T>)>>>;

/// The task ended without a result: it panicked, or the runtime is shutting down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost(pub String);

/// A flight as one who waits for it sees it.
#[derive(Debug)]
pub struct Joined<I, T: Clone> {
    /// What the flight shows to everybody who joins.
    pub info: I,
    /// What it ends with.
    pub outcome: Outcome<T>,
    /// Whether it was started by this call.
    pub started: bool,
}

/// SingleFlight under way, by key. `I` is what a joiner gets to see at once.
#[derive(Debug)]
pub struct SingleFlight<K, I, T: Clone> {
    under_way: UnderWay<K, I, T>,
}

impl<K, I, T> SingleFlight<K, I, T>
where
    K: Eq + Hash + Clone + Send + 'static,
    I: Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// No flights.
    pub fn new() -> Self {
        Self { under_way: Arc::default() }
    }

    /// Joins the flight of `key`, starting it with `start` if there is none.
    pub fn join<F>(&self, key: K, start: impl FnOnce() -> (I, F)) -> Joined<I, T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((info, outcome)) = under_way.get(&key) {
            return Joined { info: info.clone(), outcome: outcome.clone(), started: false };
        }
        let (info, work) = start();
        // The removal removes the entry even when the work panics.
        let removal = Removal { key: key.clone(), under_way: Arc::clone(&self.under_way) };
        let task = tokio::spawn(async move {
            let _landing = removal;
            work.await
        });
        let outcome = async move { task.await.map_err(|error| Lost(error.to_string())) }.boxed().shared();
        under_way.insert(key, (info.clone(), outcome.clone()));
        Joined { info, outcome, started: true }
    }

    /// How many flights are under way.
    pub fn len(&self) -> usize {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl<K, I, T> Default for SingleFlight<K, I, T>
where
    K: Eq + Hash + Clone + Send + 'static,
    I: Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    fn default() -> Self {
        Self::new()
    }
}

struct Removal<K: Eq + Hash, I, T: Clone> {
    key: K,
    under_way: UnderWay<K, I, T>,
}

impl<K: Eq + Hash, I, T: Clone> Drop for Removal<K, I, T> {
    fn drop(&mut self) {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;

    use super::*;

    type Numbers = SingleFlight<u8, (), usize>;

    fn counted(runs: &Arc<AtomicUsize>) -> impl FnOnce() -> ((), BoxFuture<'static, usize>) + use<> {
        let runs = Arc::clone(runs);
        move || {
            let work = async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                runs.fetch_add(1, SeqCst) + 1
            };
            ((), work.boxed())
        }
    }

    #[tokio::test]
    async fn many_join_one() {
        let (flights, runs) = (Numbers::new(), Arc::new(AtomicUsize::new(0)));
        let waiting: Vec<_> = (0..10).map(|_| flights.join(7, counted(&runs))).collect();
        assert_eq!(waiting.iter().filter(|joined| joined.started).count(), 1);
        assert_eq!(flights.len(), 1);
        for joined in waiting {
            assert_eq!(joined.outcome.await, Ok(1));
        }
        assert!(flights.len() == 0);
        assert_eq!(flights.join(7, counted(&runs)).outcome.await, Ok(2), "an ended flight is not joined");
    }

    #[tokio::test]
    async fn goes_on_when_nobody_waits() {
        let (flights, runs) = (Numbers::new(), Arc::new(AtomicUsize::new(0)));
        drop(flights.join(7, counted(&runs)));
        let retry = flights.join(7, counted(&runs)).outcome;
        assert_eq!(retry.await, Ok(1));
        assert_eq!(runs.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_and_is_forgotten() {
        let flights = Numbers::new();
        let lost = flights.join(7, || ((), async { panic!("boom") })).outcome.await;
        assert!(matches!(lost, Err(Lost(why)) if why.contains("panic")));
        assert!(flights.len() == 0);
    }
}
