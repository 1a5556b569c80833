//! How long the network is waited for, whatever else the task does meanwhile.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// Notes when it was first woken, and wakes the task.
struct Noting {
    task: Waker,
    woken: Mutex<Option<Instant>>,
}

impl Wake for Noting {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        self.task.wake_by_ref();
    }
}

/// Runs `work` and measures how long it waited. The time from when it could go on to when the task came back to it does
/// not count: one that writes to a slow disk, or holds back on purpose, has no slow registry.
pub(super) async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let (mut work, mut waited) = (pin!(work), Duration::ZERO);
    let mut waiting: Option<(Instant, Arc<Noting>)> = None;
    poll_fn(move |context| {
        if let Some((since, noting)) = waiting.take() {
            let woken = *noting.woken.lock().unwrap_or_else(PoisonError::into_inner);
            waited += woken.unwrap_or_else(Instant::now).saturating_duration_since(since);
        }
        let noting = Arc::new(Noting { task: context.waker().clone(), woken: Mutex::new(None) });
        let waker = Waker::from(Arc::clone(&noting));
        match work.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => Poll::Ready((done, waited)),
            Poll::Pending => {
                waiting = Some((Instant::now(), noting));
                Poll::Pending
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_the_task_does_meanwhile_does_not_count() {
        let (tell, told) = oneshot::channel();
        let mut work = Box::pin(timed(told));
        // Begins to wait, is told at once, and is looked at much later.
        assert!(futures_util::poll!(&mut work).is_pending());
        tell.send(()).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let (told, waited) = work.await;
        told.unwrap();
        assert!(waited < Duration::from_millis(300), "{waited:?}");
    }

    #[tokio::test]
    async fn what_is_waited_for_counts_however_often_it_is_looked_at() {
        let work = timed(tokio::time::sleep(Duration::from_millis(60)));
        let looking = async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let (((), waited), ()) = tokio::join!(work, looking);
        assert!(waited >= Duration::from_millis(59), "{waited:?}");
    }
}
