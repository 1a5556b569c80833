//! Follows the kernel's log, the only place where it says which object it refused to a reader.

use tokio_util::sync::CancellationToken;

use crate::node::damage::{Watcher, parse};
use crate::sys::kernel_log::KernelLog;

/// Hands every complaint about an object to `watcher`, from the first of this boot on, until the shutdown. Without
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
        let record = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            record = log.next() => record?,
        };
        let Some(complaint) = parse(&record) else { continue };
        let task = tokio::task::spawn_blocking(move || {
            if let Err(error) = watcher.look_into(&complaint) {
                tracing::error!(
                    "the kernel complained ({complaint:?}) and the store cannot be examined: {error}"
                );
            }
            watcher
        });
        watcher = task.await?;
    }
}
