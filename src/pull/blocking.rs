//! Files and signatures are not for the threads of the runtime.

use tokio::task::JoinHandle;

use super::PullError;

/// How far the threads of a pull stand back, as nice(2) counts: a thread of the usual niceness that wakes up beside one
/// need not wait for the end of its turn. Kubernetes gives each container its own share of the processors, within which
/// this counts: other pods take no more from a pull than before.
const NICENESS: i32 = 10;

/// Runs `work`, which may read and sync files and verify signatures, on a thread for blocking work. `image` is for
/// messages.
///
/// # Errors
/// [`PullError::Lost`] if it panicked, or the runtime is shutting down.
pub(super) async fn blocking<T: Send + 'static>(
    image: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, PullError> {
    let span = tracing::Span::current();
    let done = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
    done.map_err(|error| PullError::Lost { image: image.to_owned(), why: error.to_string() })
}

/// Work that has begun in a thread of its own.
#[derive(Debug)]
pub(super) struct Background<T> {
    image: String,
    outcome: JoinHandle<Result<T, String>>,
}

/// Starts `work`, which takes a processor for long: inflating, hashing, building. Pods that wait for their mount go
/// first, so it is done by a thread that gives way to all others of this process, and so are those that it starts.
pub(super) fn background<T: Send + 'static>(
    image: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Background<T> {
    let span = tracing::Span::current();
    let run = move || {
        if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
            tracing::debug!(%error, "a thread does not give way");
        }
        span.in_scope(work)
    };
    // Not a thread of the runtime's own, which others use next and nobody may be allowed to raise again. One of these
    // waits for it, since a runtime that shuts down waits for them.
    let outcome = tokio::task::spawn_blocking(move || {
        let thread = std::thread::Builder::new().name("pull".to_owned()).spawn(run);
        let thread = thread.map_err(|error| error.to_string())?;
        thread.join().map_err(|_| "its thread panicked".to_owned())
    });
    Background { image: image.to_owned(), outcome }
}

impl<T> Background<T> {
    /// Waits for the end of the work, which goes on if nobody does.
    ///
    /// # Errors
    /// [`PullError::Lost`] if it panicked, there was no thread to be had, or the runtime is shutting down.
    pub(super) async fn outcome(self) -> Result<T, PullError> {
        let Self { image, outcome } = self;
        let done = outcome.await.unwrap_or_else(|error| Err(error.to_string()));
        done.map_err(|why| PullError::Lost { image, why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_in_the_background_gives_way_and_the_runtime_does_not() {
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let usual = niceness();
        let there = background("image", move || (niceness(), std::thread::spawn(niceness).join().unwrap()));
        assert_eq!(there.outcome().await.unwrap(), (NICENESS, NICENESS));
        assert_eq!(niceness(), usual);
        assert_eq!(blocking("image", niceness).await.unwrap(), usual);
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let lost = background("image", || panic!("for a test")).outcome().await;
        assert!(matches!(lost, Err::<(), _>(PullError::Lost { image, .. }) if image == "image"));
    }
}
