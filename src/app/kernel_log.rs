//! Follows the kernel's log, the only place where it says which object it refused to a reader.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::node::corruption::{Watcher, parse};
use crate::sys::kernel_log::KernelLog;

/// How long damage is believed before it is looked at again.
const AGAIN: Duration = Duration::from_secs(60);

/// Passes every complaint about an object to `watcher`, from the first of this boot on, until the shutdown. Without
/// access to the log it says so once and does nothing: reads are refused all the same.
pub async fn follow(mut watcher: Watcher, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut log = match KernelLog::open() {
        Ok(log) => log,
        Err(error) => {
            tracing::warn!(
                "cannot read the kernel log ({error}), so damage that shows while pods read is not reported here; \
                 give the container /dev/kmsg and CAP_SYSLOG, or run `composefs-csi verify` now and then"
            );
            shutdown.cancelled().await;
            return Ok(());
        }
    };
    loop {
        let complaint = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(AGAIN), if watcher.knows_of_damage() => None,
            record = log.next() => match parse(&record?) {
                None => continue,
                complaint => complaint,
            },
        };
        let task = tokio::task::spawn_blocking(move || {
            let looked = match &complaint {
                Some(complaint) => watcher.look_into(complaint),
                None => watcher.look_again(),
            };
            if let Err(error) = looked {
                tracing::error!(?complaint, "damaged objects cannot be examined: {error}");
            }
            watcher
        });
        watcher = task.await?;
    }
}
