//! Single flight: one task per key, however many callers wait for it and stop waiting.
//!
//! The task belongs to the map, not to a caller: a dropped RPC future leaves it running, and the retry joins it. A
//! task that has ended is removed at once, so a failure is never cached.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

use super::attendance::{Attendance, Attending, Waiter};

/// The result of a task, for each caller that waits. Dropping it does not stop the task.
pub(super) type Completion<T> = Shared<BoxFuture<'static, Result<T, Lost>>>;

type UnderWay<K, I, T> = Arc<Mutex<HashMap<K, Flight<I, T>>>>;

#[derive(Debug)]
struct Flight<I, T: Clone> {
    info: I,
    completion: Completion<T>,
    attendance: Attendance,
}

/// The task ended without a result: it panicked, or the runtime is shutting down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lost(pub(super) String);

/// A task as a waiting caller sees it.
#[derive(Debug)]
pub(super) struct Joined<I, T: Clone> {
    /// What the task shows to every caller that joins.
    pub info: I,
    /// Its result.
    completion: Completion<T>,
    attending: Attending,
    /// Whether this call started it.
    pub started: bool,
}

impl<I, T: Clone> Joined<I, T> {
    /// Waits for the result. Until then the caller counts as waiting.
    pub(super) async fn completion(self) -> Result<T, Lost> {
        let _attending = self.attending;
        self.completion.await
    }
}

/// Tasks under way, by key. `I` is what a caller that joins sees at once. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct SingleFlight<K, I, T: Clone> {
    under_way: UnderWay<K, I, T>,
}

impl<K, I, T> SingleFlight<K, I, T>
where
    K: Eq + Hash + Clone + Send + 'static,
    I: Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// No tasks.
    pub(super) fn new() -> Self {
        Self { under_way: Arc::default() }
    }

    /// Joins the task of `key` for `waiter`; `start` makes it if there is none, and is given those who wait for it.
    pub(super) fn join<F>(
        &self,
        key: K,
        waiter: Option<&Waiter>,
        start: impl FnOnce(Attendance) -> (I, F),
    ) -> Joined<I, T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Flight { info, completion, attendance }) = under_way.get(&key) {
            let (info, completion, attending) = (info.clone(), completion.clone(), attendance.attend(waiter));
            return Joined { info, completion, attending, started: false };
        }
        let attendance = Attendance::new();
        let attending = attendance.attend(waiter);
        let (info, work) = start(attendance.clone());
        // A guard removes the entry even if the work panics.
        let removal = Removal { key: key.clone(), under_way: Arc::clone(&self.under_way) };
        let task = tokio::spawn(async move {
            let _removal = removal;
            work.await
        });
        let completion = async move { task.await.map_err(|error| Lost(error.to_string())) }.boxed().shared();
        let flight = Flight { info: info.clone(), completion: completion.clone(), attendance };
        under_way.insert(key, flight);
        Joined { info, completion, attending, started: true }
    }

    /// What each task shows, and who waits for it.
    pub(super) fn list(&self) -> Vec<(I, Attendance)> {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.values().map(|flight| (flight.info.clone(), flight.attendance.clone())).collect()
    }

    /// How many tasks are under way.
    #[cfg(test)]
    fn len(&self) -> usize {
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

/// Removes a task's entry when it is dropped.
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

    fn counted(
        runs: &Arc<AtomicUsize>,
    ) -> impl FnOnce(Attendance) -> ((), BoxFuture<'static, usize>) + use<> {
        let runs = Arc::clone(runs);
        move |_| {
            let work = async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                runs.fetch_add(1, SeqCst) + 1
            };
            ((), work.boxed())
        }
    }

    #[tokio::test]
    async fn many_join_one() {
        let (tasks, runs) = (Numbers::new(), Arc::new(AtomicUsize::new(0)));
        let waiting: Vec<_> = (0..10).map(|_| tasks.join(7, None, counted(&runs))).collect();
        assert_eq!(waiting.iter().filter(|joined| joined.started).count(), 1);
        assert_eq!(tasks.len(), 1);
        for joined in waiting {
            assert_eq!(joined.completion().await, Ok(1));
        }
        assert!(tasks.len() == 0);
        assert_eq!(
            tasks.join(7, None, counted(&runs)).completion().await,
            Ok(2),
            "a task that has ended is not joined"
        );
    }

    #[tokio::test]
    async fn goes_on_when_nobody_waits() {
        let (tasks, runs) = (Numbers::new(), Arc::new(AtomicUsize::new(0)));
        drop(tasks.join(7, None, counted(&runs)));
        let retry = tasks.join(7, None, counted(&runs));
        assert_eq!(tasks.list()[0].1.count(), 1);
        assert_eq!(retry.completion().await, Ok(1));
        assert_eq!(runs.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_and_is_forgotten() {
        let tasks = Numbers::new();
        let lost = tasks.join(7, None, |_| ((), async { panic!("boom") })).completion().await;
        assert!(matches!(lost, Err(Lost(why)) if why.contains("panic")));
        assert!(tasks.len() == 0);
    }
}
