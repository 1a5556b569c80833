//! The thread that the composefs crate works in.

use super::error::ImageError;

/// Runs `work` in a thread. The composefs crate recurses by directory, and panics where its assumptions fail. The
/// thread's stack holds the deepest tree, and its end turns a panic into an error.
pub(super) fn in_own_thread<T: Send>(
    work: impl FnOnce() -> Result<T, ImageError> + Send,
) -> Result<T, ImageError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("composefs".to_owned()).stack_size(64 << 20);
        let running = thread.spawn_scoped(scope, work).map_err(|source| ImageError::Thread { source })?;
        running.join().unwrap_or_else(|panic| {
            // The payload is a `String` with a formatted message, a `&str` with a constant one.
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(ImageError::Panic { message: message.unwrap_or("no message").to_owned() })
        })
    })
}
