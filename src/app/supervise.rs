//! Long-running tasks: named, supervised and ended together.
//!
//! A task that ends before the shutdown ends the process, whatever it returns, because a plugin without one of its
//! parts must not seem healthy. Mounts belong to the kernel and stay.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// The tasks of a run mode.
#[derive(Debug, Default)]
pub struct Supervisor {
    tasks: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, &'static str>,
    shutdown: CancellationToken,
    alive: Alive,
}

/// Whether all tasks are running. Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Alive(Arc<OnceLock<&'static str>>);

impl Alive {
    /// The first task that has ended, if any.
    pub fn ended(&self) -> Option<&'static str> {
        self.0.get().copied()
    }

    /// Records that a task has ended. Only the first one is kept.
    pub(super) fn note_end(&self, task: &'static str) {
        let _ = self.0.set(task);
    }
}

/// Records the end of a task when dropped: also after a panic or a cancellation.
struct Ending(&'static str, Alive);

impl Drop for Ending {
    fn drop(&mut self) {
        self.1.note_end(self.0);
    }
}

impl Supervisor {
    /// A supervisor whose tasks end when `shutdown` is cancelled.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), names: HashMap::new(), shutdown, alive: Alive::default() }
    }

    /// A handle that says whether all tasks are running.
    pub fn alive(&self) -> Alive {
        self.alive.clone()
    }

    /// Starts a task that must run until the shutdown.
    pub fn start(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let span = tracing::info_span!("task", name);
        // Made outside of the task, so that it is dropped even if the task never runs.
        let ending = Ending(name, self.alive.clone());
        let supervised = async move {
            let _ending = ending;
            task.await
        };
        let handle = self.tasks.spawn(supervised.instrument(span));
        self.names.insert(handle.id(), name);
    }

    /// Runs until SIGTERM, SIGINT, the shutdown or the end of a task. Then the tasks have the time `drain` to end.
    ///
    /// # Errors
    /// A task ended by itself, failed, or panicked.
    pub async fn run(mut self, drain: Duration) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let mut outcome = tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            () = self.shutdown.cancelled() => Ok(()),
            Some(ended) = self.tasks.join_next_with_id() => self.judge(ended, false),
        };
        tracing::info!("shutting down; published volumes stay mounted");
        // Also when a task ended by itself: the others have to end too.
        self.shutdown.cancel();
        let drained = tokio::time::timeout(drain, async {
            while let Some(ended) = self.tasks.join_next_with_id().await {
                // The first failure is reported: later ones may follow from it.
                let judged = self.judge(ended, true);
                outcome = std::mem::replace(&mut outcome, Ok(())).and(judged);
            }
        });
        if drained.await.is_err() {
            tracing::warn!(
                seconds = drain.as_secs(),
                "tasks still running at the end of the shutdown are dropped"
            );
        }
        outcome
    }

    fn judge(
        &self,
        ended: Result<(Id, anyhow::Result<()>), JoinError>,
        expected: bool,
    ) -> anyhow::Result<()> {
        let name = |id| self.names.get(&id).copied().unwrap_or("unnamed");
        match ended {
            Ok((_, Ok(()))) if expected => Ok(()),
            Ok((id, Ok(()))) => Err(anyhow!("task {:?} ended by itself; this is a defect", name(id))),
            Ok((id, Err(error))) => Err(error.context(format!("task {:?} failed", name(id)))),
            Err(error) => {
                let name = name(error.id());
                Err(anyhow!("task {name:?} ended: {error}; this is a defect"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_task_that_ends_ends_all() {
        let shutdown = CancellationToken::new();
        let mut supervisor = Supervisor::new(shutdown.clone());
        let alive = supervisor.alive();
        let other = shutdown.clone();
        supervisor.start("patient", async move {
            other.cancelled().await;
            Ok(())
        });
        assert_eq!(alive.ended(), None);
        supervisor.start("short", async { Ok(()) });
        let error = supervisor.run(DRAIN).await.unwrap_err().to_string();
        assert!(error.contains("\"short\" ended by itself"), "{error}");
        assert!(shutdown.is_cancelled());
        assert_eq!(alive.ended(), Some("short"));
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_a_shutdown_is_not() {
        let mut supervisor = Supervisor::new(CancellationToken::new());
        supervisor.start("broken", async { panic!("boom") });
        assert!(supervisor.run(DRAIN).await.unwrap_err().to_string().contains("broken"));

        let shutdown = CancellationToken::new();
        let mut supervisor = Supervisor::new(shutdown.clone());
        let token = shutdown.clone();
        supervisor.start("patient", async move {
            token.cancelled().await;
            Ok(())
        });
        shutdown.cancel();
        supervisor.run(DRAIN).await.unwrap();
    }
}
