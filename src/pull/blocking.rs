//! Files and signatures are not for the threads of the runtime.

use super::PullError;

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
