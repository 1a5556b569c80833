//! Who waits for a task, as the task itself sees it: when the last one has gone for good, and when it is told to end.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The callers that wait for one task. Clones share the count.
#[derive(Debug, Clone)]
pub(super) struct Attendance {
    count: watch::Sender<usize>,
    end: CancellationToken,
}

/// One caller that waits. Dropped, it has gone.
#[derive(Debug)]
pub(super) struct Attending(watch::Sender<usize>);

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
        Self { count: watch::Sender::new(0), end: CancellationToken::new() }
    }

    /// Counts one caller.
    pub(super) fn attend(&self) -> Attending {
        self.count.send_modify(|count| *count += 1);
        Attending(self.count.clone())
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
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_millis(5);

    #[tokio::test]
    async fn only_those_that_nobody_waits_for_end() {
        let attendance = Attendance::new();
        let waiting = attendance.attend();
        let seen = attendance.clone();
        let task = tokio::spawn(async move { seen.ended(GRACE).await });
        tokio::time::sleep(4 * GRACE).await;
        assert!(!task.is_finished(), "somebody waits");
        let second = attendance.attend();
        drop(waiting);
        assert_eq!(attendance.count(), 1);
        tokio::time::sleep(4 * GRACE).await;
        assert!(!task.is_finished(), "somebody else waits");
        drop(second);
        assert_eq!(task.await.unwrap(), Ended::Abandoned);
        // It is told what it is told, also while somebody waits.
        let _waiting = attendance.attend();
        attendance.end();
        assert_eq!(attendance.ended(GRACE).await, Ended::Told);
    }
}
