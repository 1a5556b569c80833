//! Follows the kernel log, the only place where the kernel reports which object failed verification at a read.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::node::corruption::{Watcher, parse};
use crate::sys::kernel_log::KernelLog;

/// How often known corruption is checked again.
const RECHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Passes every report about an object to `watcher`, from the first one of this boot, until the shutdown. Without
/// access to the log it warns once and does nothing more; the kernel still refuses the reads.
pub async fn follow(mut watcher: Watcher, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut log = match KernelLog::open() {
        Ok(log) => log,
        Err(error) => {
            tracing::warn!(
                "cannot read the kernel log ({error}), so corruption found while pods read is not reported here; \
                 give the container /dev/kmsg and CAP_SYSLOG, or run `composefs-csi verify` regularly"
            );
            // A supervised task must not end before the shutdown.
            shutdown.cancelled().await;
            return Ok(());
        }
    };
    loop {
        let complaint = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(RECHECK_INTERVAL), if watcher.knows_of_damage() => None,
            record = log.next() => match parse(&record?) {
                // Another message of the kernel.
                None => continue,
                complaint => complaint,
            },
        };
        // Checking reads whole objects from disk.
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
