//! Waiting for one's turn: a [`Queue`] that tasks share.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use super::{Occupancy, Queue, Ticket};

/// Lets tasks in, in the order of a [`Queue`]. Clones share it.
pub struct Gate<K>(Arc<Mutex<Inner<K>>>);

struct Inner<K> {
    queue: Queue<K>,
    /// Whom to tell that it is let in.
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
}

/// Something that is inside, or stands in line if it has not been told otherwise. Dropped, it leaves.
pub struct Pass<K: Eq + Hash + Clone> {
    gate: Gate<K>,
    ticket: Ticket,
}

impl<K: Eq + Hash + Clone> Gate<K> {
    /// `capacity` units for all, of which one tenant has at most `share`.
    pub fn new(capacity: u64, share: u64) -> Self {
        let queue = Queue::new(capacity, share);
        Self(Arc::new(Mutex::new(Inner { queue, waiting: HashMap::new() })))
    }

    /// Waits until `tenant` is let in with so many units. Dropped, the future leaves the line.
    pub async fn enter(&self, tenant: K, units: u64) -> Pass<K> {
        self.wait(|queue| queue.enter(tenant, units)).await
    }

    /// Lets `tenant` in with so many units if that can be at once.
    pub fn try_enter(&self, tenant: K, units: u64) -> Option<Pass<K>> {
        self.enter(tenant, units).now_or_never()
    }

    /// As [`Gate::enter`], behind all that enter so; see [`Queue::enter_behind`].
    pub async fn enter_behind(&self, tenant: K, units: u64) -> Pass<K> {
        self.wait(|queue| queue.enter_behind(tenant, units)).await
    }

    async fn wait(&self, line_up: impl FnOnce(&mut Queue<K>) -> Ticket) -> Pass<K> {
        let (pass, told) = {
            let mut inner = self.inner();
            let ticket = line_up(&mut inner.queue);
            let (tell, told) = oneshot::channel();
            inner.waiting.insert(ticket, tell);
            inner.admit();
            (Pass { gate: self.clone(), ticket }, told)
        };
        // The sender is dropped unused only with the pass, which is here.
        let _ = told.await;
        pass
    }

    /// How much is lent now.
    pub fn occupancy(&self) -> Occupancy {
        self.inner().queue.occupancy()
    }

    fn inner(&self) -> MutexGuard<'_, Inner<K>> {
        // No change to the queue can panic half-way, so a poisoned one is consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> Inner<K> {
    fn admit(&mut self) {
        for ticket in self.queue.admit() {
            if let Some(tell) = self.waiting.remove(&ticket) {
                // One that has just gone leaves by itself, which admits the next.
                let _ = tell.send(());
            }
        }
    }
}

impl<K: Eq + Hash + Clone> Pass<K> {
    /// Whether somebody would be let in if this left.
    pub fn is_wanted(&self) -> bool {
        self.gate.inner().queue.is_wanted(self.ticket)
    }

    /// The same of something that does not stand behind, as this does.
    pub fn is_wanted_in_front(&self) -> bool {
        self.gate.inner().queue.is_wanted_in_front(self.ticket)
    }

    /// The same of another tenant.
    pub fn is_wanted_by_others(&self) -> bool {
        self.gate.inner().queue.is_wanted_by_others(self.ticket)
    }
}

impl<K: Eq + Hash + Clone> Drop for Pass<K> {
    fn drop(&mut self) {
        let mut inner = self.gate.inner();
        inner.waiting.remove(&self.ticket);
        inner.queue.leave(self.ticket);
        inner.admit();
    }
}

impl<K> Clone for Gate<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> fmt::Debug for Gate<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl<K: Eq + Hash + Clone> fmt::Debug for Pass<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn leaving_lets_the_next_in_and_so_does_giving_up() {
        let gate = Gate::new(1, 1);
        let first = gate.enter("a", 1).await;
        assert!(!first.is_wanted());
        let mut second = gate.enter("b", 1).boxed();
        let mut third = gate.enter("c", 1).boxed();
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        assert!(first.is_wanted());
        assert_eq!(gate.occupancy(), Occupancy { capacity: 1, used: 1, waiting: 2 });
        drop(second);
        drop(first);
        let third = third.now_or_never().expect("its turn");
        // One that was let in, and gave up before it noticed.
        let unnoticed = {
            let mut waiting = gate.enter("d", 1).boxed();
            assert!((&mut waiting).now_or_never().is_none());
            waiting
        };
        drop(third);
        drop(unnoticed);
        let last = gate.try_enter("e", 1);
        assert!(last.is_some());
        assert!(gate.try_enter("f", 1).is_none());
        assert_eq!(
            gate.occupancy(),
            Occupancy { capacity: 1, used: 1, waiting: 0 },
            "who only tried does not wait"
        );
    }
}
