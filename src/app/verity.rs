//! Enabling fs-verity on the objects of a store that was filled before its filesystem had it: in the background, at most
//! half of the time, until it is complete.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::image::store::{Store, StoreError, VerityProgress};

/// How often the progress is logged.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// How long to wait after an attempt that failed or left something.
const RETRY: Duration = Duration::from_secs(600);
/// The longest rest after an object, so that a giant does not delay the others by as long as it took.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Enables fs-verity where it is missing. Returns at the shutdown, or with an error when it is complete and level `read`
/// is `demanded`: only a new start reaches it.
///
/// # Errors
/// See above.
pub async fn keep(store: Arc<Store>, demanded: bool, shutdown: CancellationToken) -> anyhow::Result<()> {
    while store.lacks_verity() {
        let (blocking, stop) = (Arc::clone(&store), shutdown.clone());
        match tokio::task::spawn_blocking(move || enable(&blocking, &stop)).await? {
            Ok(true) if demanded => anyhow::bail!(
                "fs-verity is enabled on all objects: starting again to serve at level read, which is demanded"
            ),
            Ok(true) => tracing::info!(
                "fs-verity is enabled on all objects; the next start of the plugin reaches level read"
            ),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "fs-verity is not enabled on all objects yet; it is tried again")
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(RETRY) => {}
        }
    }
    shutdown.cancelled().await;
    Ok(())
}

fn enable(store: &Store, shutdown: &CancellationToken) -> Result<bool, StoreError> {
    let mut logged: Option<Instant> = None;
    store.enable_verity(|progress: &VerityProgress| {
        if logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            let (done, objects) = (progress.done, progress.objects);
            tracing::info!(done, objects, "enabling fs-verity on objects: the filesystem has it now");
            logged = Some(Instant::now());
        }
        // Others want the disk as well.
        std::thread::sleep(progress.took.min(LONGEST_REST));
        !shutdown.is_cancelled()
    })
}
