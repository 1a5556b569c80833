//! Whether the process is ready: the answer to Probe, and to `/readyz`.

use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Mutex;

/// How long the check may take before the answer is that there is none. The livenessprobe sidecar waits three seconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// Says what is wrong with the process; `None` if nothing is. Blocking.
pub type Check = dyn Fn() -> Option<String> + Send + Sync;

/// Whether the process is ready, and if not, why. Not ready at first. Clones share the state.
#[derive(Clone)]
pub struct Readiness(Arc<State>);

struct State {
    waiting_for: RwLock<Option<String>>,
    check: OnceLock<Arc<Check>>,
    /// Held while a check runs: where a disk hangs, one thread hangs with it, and not one for each question.
    checking: Arc<Mutex<()>>,
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readiness").field(&self.0.waiting_for).finish()
    }
}

impl Default for Readiness {
    fn default() -> Self {
        let waiting_for = RwLock::new(Some("starting".to_owned()));
        Self(Arc::new(State { waiting_for, check: OnceLock::new(), checking: Arc::default() }))
    }
}

impl Readiness {
    /// Sets whether the process is ready.
    pub fn set(&self, ready: bool) {
        self.set_waiting_for((!ready).then(|| "not ready".to_owned()));
    }

    /// Sets the process not ready: it waits for `what`.
    pub(crate) fn wait_for(&self, what: impl Into<String>) {
        self.set_waiting_for(Some(what.into()));
    }

    /// From now on, a process that is ready is only so as long as `check` finds nothing. Counts once.
    pub fn check_with(&self, check: Arc<Check>) {
        let _ = self.0.check.set(check);
    }

    /// What the process waits for; `None` once it has all that it needs. Checks nothing.
    pub fn waiting_for(&self) -> Option<String> {
        self.0.waiting_for.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the process is not ready; `None` if it is. Answers within seconds, whatever the check does.
    pub async fn problem(&self) -> Option<String> {
        if let Some(what) = self.waiting_for() {
            return Some(what);
        }
        let check = Arc::clone(self.0.check.get()?);
        let checking = Arc::clone(&self.0.checking);
        let checked = async move {
            let turn = checking.lock_owned().await;
            let work = move || {
                let _turn = turn;
                check()
            };
            tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Some(error.to_string()))
        };
        let late = || Some("the state directory does not answer; see the kernel log for its disk".to_owned());
        tokio::time::timeout(PATIENCE, checked).await.unwrap_or_else(|_| late())
    }

    fn set_waiting_for(&self, what: Option<String>) {
        *self.0.waiting_for.write().unwrap_or_else(PoisonError::into_inner) = what;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_check_counts_once_the_process_has_started() {
        let ready = Readiness::default();
        assert_eq!(ready.problem().await.as_deref(), Some("starting"));
        ready.set(true);
        assert_eq!(ready.problem().await, None);
        let checks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&checks);
        ready.check_with(Arc::new(move || {
            (counted.fetch_add(1, Ordering::SeqCst) == 0).then(|| "gone".to_owned())
        }));
        assert_eq!(ready.problem().await.as_deref(), Some("gone"));
        assert_eq!(ready.problem().await, None, "it is back");
        ready.wait_for("a restart");
        assert_eq!(ready.problem().await.as_deref(), Some("a restart"));
        assert_eq!(checks.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_check_that_hangs_hangs_once() {
        let ready = Readiness::default();
        ready.set(true);
        let (end, ended) = mpsc::channel::<()>();
        let (ended, begun) = (std::sync::Mutex::new(ended), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&begun);
        ready.check_with(Arc::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
            ended.lock().unwrap().recv().err().map(|error| error.to_string())
        }));
        let (one, other) = tokio::join!(ready.problem(), ready.problem());
        assert!(one.is_some_and(|why| why.contains("does not answer")) && other.is_some());
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        drop(end);
    }
}
