//! Who waits for a task, as the task itself sees it: when the last one has gone for good, and when it is told to end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The callers that wait for one task. Clones share the count.
#[derive(Debug, Clone)]
pub(super) struct Attendance {
    count: watch::Sender<usize>,
    /// Those that have said who they are, in the order in which they came.
    named: Arc<Mutex<Named>>,
    end: CancellationToken,
}

#[derive(Debug, Default)]
struct Named {
    next: u64,
    waiters: BTreeMap<u64, Waiter>,
}

/// One caller that waits. Dropped, it has gone.
#[derive(Debug)]
pub(super) struct Attending {
    attendance: Attendance,
    number: Option<u64>,
}

/// For whom a caller waits. Only the operator may see it: pods of several tenants share a pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    /// The pod, as `namespace/name`; empty where the kubelet has not said it, as when it stages.
    pub pod: String,
    /// The volume's id.
    pub volume: String,
}

/// Why a task ends before its work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nobody has waited for the time given.
    Abandoned,
    /// Somebody has said so.
    Told,
}

impl Attendance {
    pub(super) fn new() -> Self {
        Self { count: watch::Sender::new(0), named: Arc::default(), end: CancellationToken::new() }
    }

    /// Counts one caller, and keeps its name while it waits.
    pub(super) fn attend(&self, waiter: Option<&Waiter>) -> Attending {
        self.count.send_modify(|count| *count += 1);
        let number = waiter.map(|waiter| {
            let mut named = self.named();
            named.next += 1;
            let number = named.next;
            named.waiters.insert(number, waiter.clone());
            number
        });
        Attending { attendance: self.clone(), number }
    }

    /// Those who wait and have a name, the longest waiting first.
    pub(super) fn waiters(&self) -> Vec<Waiter> {
        self.named().waiters.values().cloned().collect()
    }

    fn named(&self) -> MutexGuard<'_, Named> {
        // No change to the map can panic half-way, so a poisoned one is consistent.
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Tells the task to end.
    pub(super) fn end(&self) {
        self.end.cancel();
    }

    /// Waits until the task may end: it is told so, or nobody has waited for `grace`. Who comes back within that time
    /// starts it anew.
    pub(super) async fn ended(&self, grace: Duration) -> Ended {
        let abandoned = async {
            let mut count = self.count.subscribe();
            loop {
                // The sender is this value's own, so that the channel is open.
                let _ = count.wait_for(|count| *count == 0).await;
                if tokio::time::timeout(grace, count.wait_for(|count| *count > 0)).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = self.end.cancelled() => Ended::Told,
            () = abandoned => Ended::Abandoned,
        }
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.attendance.named().waiters.remove(&number);
        }
        self.attendance.count.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_millis(5);

    #[tokio::test]
    async fn only_those_that_nobody_waits_for_end() {
        let attendance = Attendance::new();
        let waiting = attendance.attend(None);
        let seen = attendance.clone();
        let task = tokio::spawn(async move { seen.ended(GRACE).await });
        tokio::time::sleep(4 * GRACE).await;
        assert!(!task.is_finished(), "somebody waits");
        let pod = Waiter { pod: "shop/web-0".to_owned(), volume: "v".to_owned() };
        let second = attendance.attend(Some(&pod));
        assert_eq!(attendance.waiters(), [pod]);
        drop(waiting);
        assert_eq!(attendance.count(), 1);
        tokio::time::sleep(4 * GRACE).await;
        assert!(!task.is_finished(), "somebody else waits");
        drop(second);
        assert_eq!(attendance.waiters(), []);
        assert_eq!(task.await.unwrap(), Ended::Abandoned);
        // It is told what it is told, also while somebody waits.
        let _waiting = attendance.attend(None);
        attendance.end();
        assert_eq!(attendance.ended(GRACE).await, Ended::Told);
    }
}
